/* proto/id_table.c: each key finds its number, and hashes tell the keys apart that profiles have. */
#include "support.h"

#include <stdlib.h>

#include "proto/id_table.h"

#define KEYS 20000u

static const uint64_t *keys; /* by number */

static bool key_equal(const void *context, uint64_t id)
{
    return keys[id] == *(const uint64_t *)context;
}

static void test_find(void **state)
{
    static uint64_t all[KEYS];
    struct stile__id_table t = {0};
    uint64_t random = 1, id, absent = 1;

    (void)state;
    keys = all;
    assert_false(stile__id_table_find(&t, 0, key_equal, &absent, &id));
    for (size_t i = 0; i < KEYS; i++) {
        all[i] = next_number(&random) & ~1ull; /* `absent` is none of them */
        assert_int_equal(stile__id_table_reserve(&t), 0);
        stile__id_table_add(&t, stile__hash_add(0, all[i] % 1000), i); /* many have the same hash */
    }
    for (size_t i = 0; i < KEYS; i++) {
        assert_true(stile__id_table_find(&t, stile__hash_add(0, all[i] % 1000), key_equal, &all[i], &id));
        assert_int_equal(all[id], all[i]);
    }
    assert_false(stile__id_table_find(&t, stile__hash_add(0, 1), key_equal, &absent, &id));
    stile__id_table_free(&t);
}

static int hash_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* A function of C has one name twice, a place one number in two roles, and both are small numbers. */
static void test_pairs(void **state)
{
    static uint64_t hashes[2 * KEYS];

    (void)state;
    for (uint64_t i = 0; i < KEYS; i++) {
        hashes[2 * i] = stile__hash_add(i, i);
        hashes[2 * i + 1] = stile__hash_add(i, i + KEYS);
    }
    qsort(hashes, 2 * KEYS, sizeof *hashes, hash_order);
    for (size_t i = 1; i < 2 * KEYS; i++)
        assert_int_not_equal(hashes[i - 1], hashes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
