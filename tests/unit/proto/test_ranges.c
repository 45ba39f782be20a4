/* proto/ranges.c: against the obvious slow search. */
#include "support.h"

#include "proto/ranges.h"

static void test_nested(void **state)
{
    struct stile__ranges r = {0};
    uint32_t value;

    (void)state;
    stile__ranges_sort(&r);
    assert_false(stile__ranges_find(&r, 5, &value));
    assert_int_equal(stile__ranges_add(&r, 20, 30, 2), 0);
    assert_int_equal(stile__ranges_add(&r, 10, 100, 1), 0);
    assert_int_equal(stile__ranges_add(&r, 20, 25, 3), 0); /* starts with 2 and is inside */
    assert_int_equal(stile__ranges_add(&r, 50, 50, 9), 0); /* empty */
    stile__ranges_sort(&r);
    assert_false(stile__ranges_find(&r, 9, &value));
    assert_true(stile__ranges_find(&r, 10, &value) && value == 1);
    assert_true(stile__ranges_find(&r, 24, &value) && value == 3);
    assert_true(stile__ranges_find(&r, 25, &value) && value == 2);
    assert_true(stile__ranges_find(&r, 30, &value) && value == 1);
    assert_true(stile__ranges_find(&r, 50, &value) && value == 1);
    assert_true(stile__ranges_find(&r, 99, &value) && value == 1);
    assert_false(stile__ranges_find(&r, 100, &value));
    stile__ranges_free(&r);
}

static void test_same_as_slow(void **state)
{
    struct stile__ranges r = {0};
    uint64_t random = 7;

    (void)state;
    for (uint32_t i = 0; i < 300; i++) {
        uint64_t lo = next_number(&random) % 2000;

        assert_int_equal(stile__ranges_add(&r, lo, lo + 1 + next_number(&random) % 40, i), 0);
    }
    stile__ranges_sort(&r);
    for (uint64_t address = 0; address < 2100; address++) {
        uint64_t best = 0;
        uint32_t expected = 0, value = 0;
        int found = 0;

        for (size_t i = 0; i < r.count; i++) {
            const struct stile__range *x = &r.items[i];

            if (address < x->lo || address >= x->hi)
                continue;
            if (!found || x->lo > best || (x->lo == best && x->value > expected)) {
                best = x->lo;
                expected = x->value;
            }
            found = 1;
        }
        assert_int_equal(stile__ranges_find(&r, address, &value), found);
        if (found)
            assert_int_equal(value, expected);
    }
    stile__ranges_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_same_as_slow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
