/* gzip around zlib: the last step of the builder and the first one of the reader.
 * Context: any normal context; blocking. */
#include "proto/gzip.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "proto/buffer.h"

enum {
    WINDOW_GZIP = 15 + 16, /* the largest window, gzip framing */
    MEMORY_LEVEL = 8,      /* zlib's default */
    LEVEL = 4,             /* on profiles half the time of zlib's default, for files a thirtieth larger */
    CHUNK = 64 * 1024,
    /* zlib counts in unsigned int: feed it at most this much at a time. */
    FEED = 1 << 30,
};

int stile__write_all(int fd, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;

    while (size) {
        ssize_t n = write(fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int stile__pieces_write(int fd, const struct iovec *pieces, size_t n)
{
    int err = 0;

    for (size_t i = 0; i < n && !err; i++)
        err = stile__write_all(fd, pieces[i].iov_base, pieces[i].iov_len);
    return err;
}

/* Where deflated bytes go: to fd, or, if that is -1, to memory. */
struct sink {
    int fd;
    struct stile__buffer memory;
};

static int sink_put(struct sink *sink, const void *bytes, size_t size)
{
    if (sink->fd >= 0)
        return stile__write_all(sink->fd, bytes, size);
    return stile__buffer_append(&sink->memory, bytes, size);
}

/* Deflates what z has as input; with Z_FINISH to the end of the member. */
static int deflate_some(z_stream *z, int flush, struct sink *sink)
{
    uint8_t out[CHUNK];
    int err;

    do {
        z->next_out = out;
        z->avail_out = sizeof(out);
        deflate(z, flush); /* cannot fail: the stream is consistent and has room */
        err = sink_put(sink, out, sizeof(out) - z->avail_out);
        if (err)
            return err;
    } while (z->avail_out == 0);
    return 0;
}

static int deflate_pieces(const struct iovec *pieces, size_t n, struct sink *sink)
{
    z_stream z = {0};
    int err = 0;

    if (deflateInit2(&z, LEVEL, Z_DEFLATED, WINDOW_GZIP, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    for (size_t i = 0; i < n && !err; i++) {
        const uint8_t *p = pieces[i].iov_base;
        size_t left = pieces[i].iov_len;

        while (left && !err) {
            size_t feed = left < FEED ? left : FEED;

            z.next_in = (uint8_t *)p; /* only read */
            z.avail_in = (unsigned)feed;
            err = deflate_some(&z, Z_NO_FLUSH, sink);
            p += feed;
            left -= feed;
        }
    }
    if (!err)
        err = deflate_some(&z, Z_FINISH, sink);
    deflateEnd(&z);
    return err;
}

int stile__gzip_write(int fd, const struct iovec *pieces, size_t n)
{
    struct sink sink = {.fd = fd};

    return fd < 0 ? -EBADF : deflate_pieces(pieces, n, &sink);
}

int stile__gzip_compress(const void *in, size_t size, void **out, size_t *out_size)
{
    const struct iovec piece = {(void *)in, size};
    struct sink sink = {.fd = -1};
    int err = deflate_pieces(&piece, 1, &sink);

    if (err) {
        stile__buffer_free(&sink.memory);
        return err;
    }
    *out = sink.memory.data;
    *out_size = sink.memory.size;
    return 0;
}

bool stile__is_gzip(const void *in, size_t size)
{
    const uint8_t *p = in;

    return size >= 2 && p[0] == 0x1f && p[1] == 0x8b;
}

/* Inflates the member at z->next_in; on return z stands behind it. */
static int inflate_member(z_stream *z, size_t limit, struct stile__buffer *out)
{
    for (;;) {
        unsigned room;
        int err, status;

        err = stile__buffer_reserve(out, CHUNK);
        if (err)
            return err;
        room = out->capacity - out->size < FEED ? (unsigned)(out->capacity - out->size) : FEED;
        z->next_out = out->data + out->size;
        z->avail_out = room;
        status = inflate(z, Z_NO_FLUSH);
        out->size += room - z->avail_out;
        if (out->size > limit)
            return -EFBIG;
        if (status == Z_STREAM_END)
            return 0;
        if (status == Z_MEM_ERROR)
            return -ENOMEM;
        if (status != Z_OK || (z->avail_in == 0 && z->avail_out))
            return -EINVAL; /* damaged, or the input ended early */
    }
}

int stile__gunzip(const void *in, size_t size, size_t limit, void **out, size_t *out_size)
{
    struct stile__buffer buffer = {0};
    z_stream z = {0};
    int err = 0;

    if (!stile__is_gzip(in, size))
        return -EINVAL;
    if (size > UINT32_MAX)
        return -EFBIG;
    if (inflateInit2(&z, WINDOW_GZIP) != Z_OK)
        return -ENOMEM;
    z.next_in = (uint8_t *)in; /* only read */
    z.avail_in = (unsigned)size;
    do {
        err = inflate_member(&z, limit, &buffer);
        if (!err && z.avail_in && inflateReset(&z) != Z_OK)
            err = -EINVAL;
    } while (!err && z.avail_in);
    inflateEnd(&z);
    if (!err)
        err = stile__buffer_append(&buffer, "", 1);
    if (err) {
        stile__buffer_free(&buffer);
        return err;
    }
    *out = buffer.data;
    *out_size = buffer.size - 1;
    return 0;
}
