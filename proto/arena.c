/* The arena that owns what the symbolizer returns and what the reader unpacks.
 * Context: any normal context; single-threaded. */
#include "proto/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 64 * 1024,
    ALIGNMENT = 16,
};

struct stile__arena_block {
    struct stile__arena_block *next;
    size_t size; /* bytes in data */
    _Alignas(ALIGNMENT) uint8_t data[];
};

static struct stile__arena_block *block_new(struct stile__arena *a, size_t size)
{
    struct stile__arena_block *block;

    if (a->limit && (a->total > a->limit || size > a->limit - a->total))
        return NULL;
    block = calloc(1, sizeof(*block) + size);
    if (!block)
        return NULL;
    block->size = size;
    a->total += size;
    return block;
}

void *stile__arena_alloc(struct stile__arena *a, size_t size)
{
    struct stile__arena_block *block = a->blocks;
    void *out;

    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (!block || size > block->size - a->used) {
        bool big = size > BLOCK_BYTES / 4;

        block = block_new(a, big ? size : BLOCK_BYTES);
        if (!block)
            return NULL;
        if (big && a->blocks) { /* a block of its own, behind the newest, whose rest stays in use */
            block->next = a->blocks->next;
            a->blocks->next = block;
            return block->data;
        }
        block->next = a->blocks;
        a->blocks = block;
        a->used = 0;
    }
    out = block->data + a->used;
    a->used += size;
    return out;
}

char *stile__arena_text(struct stile__arena *a, const char *text, size_t length)
{
    char *copy = stile__arena_alloc(a, length + 1);

    if (copy)
        memcpy(copy, text, length);
    return copy;
}

void stile__arena_free(struct stile__arena *a)
{
    while (a->blocks) {
        struct stile__arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
    a->used = a->total = 0;
}
