/* From bytes on disk to a checked profile: read, gunzip, unpack, check. Used by `stile top` and the tests.
 * Context: the command line; blocking. The file may hold anything; memory stays in proportion to its size. */
#include "proto/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/buffer.h"
#include "proto/gzip.h"

/* Bytes. Unpacked structures take up to some 30 times their size on file. */
#define MESSAGE_MOST      ((size_t)1 << 30)
#define UNPACKED_MOST     ((size_t)8 << 30)
#define UNPACKED_PER_BYTE 48
#define UNPACKED_BASE     ((size_t)1 << 20)

static int __attribute__((format(printf, 4, 5)))
fail(char *err, size_t errlen, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(err, errlen, format, args);
    va_end(args);
    return code;
}

static int file_read(int fd, struct stile__buffer *out)
{
    for (;;) {
        ssize_t n;

        if (stile__buffer_reserve(out, 64 * 1024))
            return -ENOMEM;
        n = read(fd, out->data + out->size, out->capacity - out->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        out->size += (size_t)n;
        if (out->size > MESSAGE_MOST)
            return -EFBIG;
    }
}

static void *arena_alloc(void *arena, size_t size)
{
    return stile__arena_alloc(arena, size);
}

static void arena_no_free(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

static int message_unpack(struct stile__profile *p, const void *bytes, size_t size)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_no_free, &p->arena};

    p->arena.limit = size * UNPACKED_PER_BYTE + UNPACKED_BASE;
    if (p->arena.limit > UNPACKED_MOST)
        p->arena.limit = UNPACKED_MOST;
    p->pb = perftools__profiles__profile__unpack(&allocator, size, bytes);
    return p->pb ? 0 : -EINVAL;
}

/* bytes are no longer gzipped. */
static int message_parse(const char *name, const void *bytes, size_t size, struct stile__profile **out,
                         char *err, size_t errlen)
{
    struct stile__profile *p = calloc(1, sizeof(*p));
    char why[128] = "";
    int status;

    if (!p)
        return fail(err, errlen, -ENOMEM, "%s: out of memory", name);
    status = size ? message_unpack(p, bytes, size) : -EINVAL;
    if (status) {
        fail(err, errlen, status, "%s: not a pprof profile%s", name, size ? "" : ": it is empty");
    } else {
        status = stile__profile_check(p, why, sizeof(why));
        if (status == -ENOMEM)
            fail(err, errlen, status, "%s: out of memory", name);
        else if (status)
            fail(err, errlen, status, "%s: not a pprof profile: %s", name, why);
    }
    if (status) {
        stile__profile_free(p);
        return status;
    }
    *out = p;
    return 0;
}

int stile__profile_parse(const char *name, const void *bytes, size_t size, struct stile__profile **out,
                         char *err, size_t errlen)
{
    void *unpacked;
    int status;

    if (!stile__is_gzip(bytes, size))
        return message_parse(name, bytes, size, out, err, errlen);
    status = stile__gunzip(bytes, size, MESSAGE_MOST, &unpacked, &size);
    switch (status) {
    case 0:
        break;
    case -EINVAL:
        return fail(err, errlen, status, "%s: damaged or truncated gzip data", name);
    case -EFBIG:
        return fail(err, errlen, status, "%s: larger than %zu MiB unpacked", name, MESSAGE_MOST >> 20);
    default:
        return fail(err, errlen, status, "%s: %s", name, strerror(-status));
    }
    status = message_parse(name, unpacked, size, out, err, errlen);
    free(unpacked);
    return status;
}

int stile__profile_read(const char *path, struct stile__profile **out, char *err, size_t errlen)
{
    struct stile__buffer bytes = {0};
    struct stat st;
    int status = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fail(err, errlen, -errno, "%s: %s", path, strerror(errno));
    if (!fstat(fd, &st) && S_ISDIR(st.st_mode)) {
        close(fd);
        return fail(err, errlen, -EISDIR, "%s: is a directory", path);
    }
    status = file_read(fd, &bytes);
    close(fd);
    if (status)
        fail(err, errlen, status, "%s: %s", path, strerror(-status));
    else
        status = stile__profile_parse(path, bytes.data, bytes.size, out, err, errlen);
    stile__buffer_free(&bytes);
    return status;
}

void stile__profile_free(struct stile__profile *p)
{
    if (!p)
        return;
    stile__id_table_free(&p->mappings);
    stile__id_table_free(&p->locations);
    stile__id_table_free(&p->functions);
    stile__arena_free(&p->arena);
    free(p);
}
