/* Open addressing with linear probing; deduplicates strings, functions and locations.
 * Context: any normal context; single-threaded. */
#include "proto/id_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stile__id_slot {
    uint64_t hash; /* 0: the slot is empty */
    uint64_t id;
};

static uint64_t nonzero(uint64_t hash)
{
    return hash ? hash : 1;
}

static struct stile__id_slot *empty_slot(struct stile__id_slot *slots, size_t capacity, uint64_t hash)
{
    size_t i = hash & (capacity - 1);

    while (slots[i].hash)
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

bool stile__id_table_find(const struct stile__id_table *t, uint64_t hash, stile__id_equal *equal,
                          const void *context, uint64_t *id)
{
    hash = nonzero(hash);
    if (!t->capacity)
        return false;
    for (size_t i = hash & (t->capacity - 1); t->slots[i].hash; i = (i + 1) & (t->capacity - 1)) {
        if (t->slots[i].hash == hash && equal(context, t->slots[i].id)) {
            *id = t->slots[i].id;
            return true;
        }
    }
    return false;
}

int stile__id_table_reserve(struct stile__id_table *t)
{
    size_t capacity = t->capacity ? t->capacity * 2 : 64;
    struct stile__id_slot *slots;

    if (t->used + 1 <= t->capacity / 4 * 3)
        return 0;
    slots = calloc(capacity, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (size_t i = 0; i < t->capacity; i++)
        if (t->slots[i].hash)
            *empty_slot(slots, capacity, t->slots[i].hash) = t->slots[i];
    free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return 0;
}

void stile__id_table_add(struct stile__id_table *t, uint64_t hash, uint64_t id)
{
    struct stile__id_slot *slot = empty_slot(t->slots, t->capacity, nonzero(hash));

    slot->hash = nonzero(hash);
    slot->id = id;
    t->used++;
}

void stile__id_table_free(struct stile__id_table *t)
{
    free(t->slots);
    memset(t, 0, sizeof(*t));
}

uint64_t stile__hash_add(uint64_t hash, uint64_t value)
{
    /* Turned first: else two equal numbers, such as a name that is its own system name, would cancel out. */
    hash = ((hash << 25 | hash >> 39) ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
}

uint64_t stile__hash_bytes(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    uint64_t hash = size;
    uint64_t word;

    for (; size >= sizeof(word); p += sizeof(word), size -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        hash = stile__hash_add(hash, word);
    }
    word = 0;
    memcpy(&word, p, size);
    return stile__hash_add(hash, word);
}
