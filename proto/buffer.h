/* A growing run of bytes. Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_BUFFER_H
#define STILE_PROTO_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* All zero is an empty buffer. size <= capacity; data is NULL only if capacity is 0. */
struct stile__buffer {
    uint8_t *data;
    size_t size, capacity;
};

/* Makes room for `more` bytes behind size. 0 or -ENOMEM; on failure the buffer is as before. */
int stile__buffer_reserve(struct stile__buffer *b, size_t more);
int stile__buffer_append(struct stile__buffer *b, const void *bytes, size_t size);
/* Appends a base-128 varint, at most 10 bytes. */
int stile__buffer_varint_append(struct stile__buffer *b, uint64_t value);
void stile__buffer_free(struct stile__buffer *b);

/* Grows an array of `size`-byte items so that index `count` exists. 0 or -ENOMEM. */
int stile__array_grow(void *array_ptr, size_t *capacity, size_t count, size_t size);

#endif
