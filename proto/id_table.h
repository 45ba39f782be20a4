/* A hash table from a caller's key to a number. It stores hashes and numbers only: the caller keeps the keys and
 * says whether number `id` has the key that is looked for. Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_ID_TABLE_H
#define STILE_PROTO_ID_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is an empty table. capacity is 0 or a power of two, at most three quarters of it used. */
struct stile__id_table {
    struct stile__id_slot *slots;
    size_t capacity, used;
};

typedef bool stile__id_equal(const void *context, uint64_t id);

/* Whether an entry of this hash satisfies `equal`; then *id is its number. */
bool stile__id_table_find(const struct stile__id_table *t, uint64_t hash, stile__id_equal *equal,
                          const void *context, uint64_t *id);
/* Makes sure that one more entry can be added without allocating. 0 or -ENOMEM. */
int stile__id_table_reserve(struct stile__id_table *t);
/* Adds an entry that is not there yet; a stile__id_table_reserve must have succeeded since the last one. */
void stile__id_table_add(struct stile__id_table *t, uint64_t hash, uint64_t id);
void stile__id_table_free(struct stile__id_table *t);

uint64_t stile__hash_bytes(const void *bytes, size_t size);
/* Mixes value into hash. */
uint64_t stile__hash_add(uint64_t hash, uint64_t value);

#endif
