/* proto/measure.c: numbers as pprof writes them. */
#include "support.h"

#include "proto/measure.h"

static void check(const char *unit, uint64_t smallest, uint64_t largest, int64_t value, const char *expected)
{
    struct stile__measure m = stile__measure_choose(unit, smallest, largest);
    char text[STILE__MEASURE_TEXT];

    assert_string_equal(stile__measure_print(&m, value, text), expected);
}

static void test_values(void **state)
{
    (void)state;
    check("nanoseconds", 10000000, 800000000, 800000000, "800ms");
    check("nanoseconds", 10000000, 1500000000, 1500000000, "1.50s");
    check("nanoseconds", 10000000, 1500000000, 10000000, "0.01s");
    check("nanoseconds", 10000000, 1500000000, 0, "0");
    check("nanoseconds", 900, 900, 900, "900ns");
    check("milliseconds", 2500, 2500, 2500, "2.50s");
    check("bytes", 524288, 3851000, 1212692, "1184.27kB");
    check("count", 1, 100, 42, "42");
    check("widgets", 1, 100, 42, "42widgets");
    check("count", 1, 1, INT64_MIN, "-9223372036854775808");
    assert_true(stile__magnitude(INT64_MIN) == (uint64_t)1 << 63);
}

static void test_percentages(void **state)
{
    static const struct {
        int64_t value;
        uint64_t total;
        const char *text;
    } cases[] = {
        {1, 1, "  100%"},  {0, 0, "    0%"},    {0, 5, "    0%"},        {1, 3, "33.33%"},
        {1, 20, " 5.00%"}, {3, 1000, "  0.3%"}, {9996, 10000, "  100%"}, {-1, 4, "25.00%"},
    };
    char text[STILE__MEASURE_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(stile__percentage_print(cases[i].value, cases[i].total, text), cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_percentages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
