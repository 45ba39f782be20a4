/* Growing byte runs and arrays, the storage under the builder, the symbolizer and the reader.
 * Context: any normal context; single-threaded. */
#include "proto/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int stile__buffer_reserve(struct stile__buffer *b, size_t more)
{
    size_t need, capacity;
    uint8_t *data;

    if (__builtin_add_overflow(b->size, more, &need))
        return -ENOMEM;
    if (need <= b->capacity && b->data)
        return 0;
    capacity = b->capacity ? b->capacity : 256;
    while (capacity < need)
        if (__builtin_mul_overflow(capacity, (size_t)2, &capacity))
            return -ENOMEM;
    data = realloc(b->data, capacity);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

int stile__buffer_append(struct stile__buffer *b, const void *bytes, size_t size)
{
    int err = stile__buffer_reserve(b, size);

    if (err)
        return err;
    if (size)
        memcpy(b->data + b->size, bytes, size);
    b->size += size;
    return 0;
}

int stile__buffer_varint_append(struct stile__buffer *b, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    return stile__buffer_append(b, bytes, n);
}

void stile__buffer_free(struct stile__buffer *b)
{
    free(b->data);
    memset(b, 0, sizeof(*b));
}

int stile__array_grow(void *array_ptr, size_t *capacity, size_t count, size_t size)
{
    void *array;
    size_t want = *capacity ? *capacity : 16;

    if (count < *capacity)
        return 0;
    while (want <= count)
        if (__builtin_mul_overflow(want, (size_t)2, &want))
            return -ENOMEM;
    memcpy(&array, array_ptr, sizeof(array)); /* a T ** is no void **: copy the pointer's bytes */
    array = reallocarray(array, want, size);
    if (!array)
        return -ENOMEM;
    memcpy(array_ptr, &array, sizeof(array));
    *capacity = want;
    return 0;
}
