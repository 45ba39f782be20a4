/* collector/verify.c: two walks of one stack, and what is shown where they differ. */
#include "tests/unit/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/collector/verify.h"

static struct verify v;
static struct mapping_table mappings;

static int set_up(void **state)
{
    static const char maps[] = "7f0000000000-7f0000100000 r-xp 00000000 08:01 0 /usr/lib/one.so\n"
                               "7f0000200000-7f0000300000 r-xp 00001000 08:01 0 two\n"
                               "7f0000400000-7f0000500000 rwxp 00000000 00:00 0 \n";
    (void)state;
    memset(&v, 0, sizeof v);
    mappings_init(&mappings, 0);
    return mappings_update(&mappings, maps, sizeof maps - 1, 0);
}

static int tear_down(void **state)
{
    (void)state;
    verify_free(&v);
    mappings_free(&mappings);
    assert_int_equal(v.n_shown, 0);
    assert_int_equal(v.samples, 0);
    return 0;
}

/* Frames that count up from a first one. */
static const uint64_t *frames(uint64_t first, size_t n)
{
    static uint64_t rooms[4][64];
    static unsigned next;
    uint64_t *room = rooms[next++ % 4];
    for (size_t i = 0; i < n; i++)
        room[i] = first + i;
    return room;
}

static void test_the_same(void **state)
{
    (void)state;
    assert_true(verify_compare(&v, &mappings, frames(1, 10), 10, frames(1, 10), 10));
    assert_true(verify_compare(&v, &mappings, frames(1, 1), 1, frames(1, 1), 1));
    assert_true(verify_compare(&v, &mappings, frames(1, 0), 0, frames(1, 0), 0));
    assert_int_equal(v.samples, 3);
    assert_int_equal(v.frames, 11);
    assert_int_equal(v.differ, 0);
    assert_int_equal(v.n_shown, 0);
}

static void test_shown(void **state)
{
    uint64_t other[20];
    (void)state;
    memcpy(other, frames(0x7f0000000100, 20), sizeof other);
    other[8] = 0x7f0000200010;
    other[9] = 0x7f0000400020;
    other[10] = 0x123;
    assert_false(verify_compare(&v, &mappings, frames(0x7f0000000100, 20), 20, other, 20));
    assert_int_equal(v.samples, 1);
    assert_int_equal(v.frames, 20);
    assert_int_equal(v.differ, 1);
    assert_int_equal(v.n_shown, 1);
    assert_string_equal(
        v.shown[0], "unwind differs: after 8 frames, by rules, 20 frames, from 2: one.so+0x102 one.so+0x103 "
                    "one.so+0x104 one.so+0x105 one.so+0x106 one.so+0x107 one.so+0x108 one.so+0x109 "
                    "one.so+0x10a one.so+0x10b one.so+0x10c one.so+0x10d\n"
                    "unwind differs: after 8 frames, libunwind, 20 frames, from 2: one.so+0x102 one.so+0x103 "
                    "one.so+0x104 one.so+0x105 one.so+0x106 one.so+0x107 two+0x1010 +0x20 0x123 one.so+0x10b "
                    "one.so+0x10c one.so+0x10d");
}

/* One ends where the other goes on. */
static void test_lengths(void **state)
{
    (void)state;
    assert_false(verify_compare(&v, &mappings, frames(1, 2), 2, frames(1, 3), 3));
    assert_string_equal(v.shown[0],
                        "unwind differs: after 2 frames, by rules, 2 frames, from 0: 0x1 0x2\n"
                        "unwind differs: after 2 frames, libunwind, 3 frames, from 0: 0x1 0x2 0x3");
    assert_false(verify_compare(&v, &mappings, frames(1, 30), 30, frames(1, 20), 20));
    assert_string_equal(v.shown[1],
                        "unwind differs: after 20 frames, by rules, 30 frames, from 14: 0xf 0x10 0x11 0x12 "
                        "0x13 0x14 0x15 0x16 0x17 0x18 0x19 0x1a\n"
                        "unwind differs: after 20 frames, libunwind, 20 frames, from 14: 0xf 0x10 0x11 0x12 "
                        "0x13 0x14");
    assert_false(verify_compare(&v, &mappings, frames(1, 0), 0, frames(5, 1), 1));
    assert_string_equal(v.shown[2], "unwind differs: after 0 frames, by rules, 0 frames, from 0:\n"
                                    "unwind differs: after 0 frames, libunwind, 1 frames, from 0: 0x5");
    assert_false(verify_compare(&v, &mappings, frames(1, 1), 1, frames(2, 1), 1));
    assert_int_equal(v.differ, 4);
}

static void test_not_all_are_shown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3 * VERIFY_SHOWN; i++) {
        assert_false(verify_compare(&v, &mappings, frames(i, 3), 3, frames(1000, 3), 3));
        assert_int_equal(v.n_shown, i < VERIFY_SHOWN ? i + 1 : VERIFY_SHOWN);
    }
    assert_int_equal(v.differ, 3 * VERIFY_SHOWN);
    assert_int_equal(v.samples, 3 * VERIFY_SHOWN);
    assert_non_null(strstr(v.shown[VERIFY_SHOWN - 1], " 0xf 0x10"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_same),
        TEST(test_shown),
        TEST(test_lengths),
        TEST(test_not_all_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
