/* gzip in memory and to a file descriptor. Context: any normal context; blocking. */
#ifndef STILE_PROTO_GZIP_H
#define STILE_PROTO_GZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/* Writes all of it, however often write(2) is interrupted or cut short. fd must be blocking. 0 or -errno. */
int stile__write_all(int fd, const void *bytes, size_t size);
/* Writes the pieces one behind the other. */
int stile__pieces_write(int fd, const struct iovec *pieces, size_t n);
/* Writes one gzip member that holds the pieces one behind the other, in bounded memory. 0 or -errno. */
int stile__gzip_write(int fd, const struct iovec *pieces, size_t n);

/* One gzip member in memory; *out is to be freed with free(). 0 or -ENOMEM. */
int stile__gzip_compress(const void *in, size_t size, void **out, size_t *out_size);

bool stile__is_gzip(const void *in, size_t size);
/* Unpacks all gzip members of `in`; *out is to be freed with free() and has a NUL behind its last byte.
 * -EINVAL: not gzip, damaged or cut short; -EFBIG: more than limit bytes; -ENOMEM. */
int stile__gunzip(const void *in, size_t size, size_t limit, void **out, size_t *out_size);

#endif
