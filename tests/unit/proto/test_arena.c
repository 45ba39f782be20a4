/* proto/arena.c and buffer.c: memory that is aligned, zeroed, apart and bounded. */
#include "support.h"

#include <errno.h>
#include <string.h>

#include "proto/arena.h"
#include "proto/buffer.h"

static void test_pieces(void **state)
{
    struct stile__arena a = {0};
    uint8_t *pieces[3000];
    size_t sizes[3000];
    uint64_t random = 1;

    (void)state;
    for (size_t i = 0; i < 3000; i++) {
        sizes[i] = i % 100 ? next_number(&random) % 300 : next_number(&random) % 200000;
        pieces[i] = stile__arena_alloc(&a, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)(i % 251 + 1), sizes[i]);
    }
    for (size_t i = 0; i < 3000; i++) /* nobody wrote over anybody else's */
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(pieces[i][k], i % 251 + 1);
    stile__arena_free(&a);
}

static void test_limit(void **state)
{
    struct stile__arena a = {.limit = 1 << 20};
    size_t total = 0;

    (void)state;
    assert_null(stile__arena_alloc(&a, (1 << 20) + 1));
    assert_null(stile__arena_alloc(&a, SIZE_MAX - 4));
    while (stile__arena_alloc(&a, 1000))
        total += 1000;
    assert_in_range(total, 900000, 1 << 20);
    stile__arena_free(&a);
}

static void test_buffer(void **state)
{
    struct stile__buffer b = {0};

    (void)state;
    assert_int_equal(stile__buffer_varint_append(&b, 0), 0);
    assert_int_equal(stile__buffer_varint_append(&b, 300), 0);
    assert_int_equal(stile__buffer_varint_append(&b, UINT64_MAX), 0);
    assert_int_equal(b.size, 1 + 2 + 10);
    assert_memory_equal(b.data, "\x00\xac\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13);
    assert_int_equal(stile__buffer_reserve(&b, SIZE_MAX - 5), -ENOMEM);
    assert_int_equal(stile__buffer_append(&b, "x", 1), 0); /* as before */
    assert_int_equal(b.size, 14);
    stile__buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
