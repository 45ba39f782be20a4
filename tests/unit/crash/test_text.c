/* Text of reports, and the parts it is handed on in. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/agent/crash/text.h"

static char got[65536];
static size_t n_got, parts[64], n_parts;

static void sink(const char *bytes, size_t n)
{
    assert_in_range(n, 1, STILE__TEXT_PART);
    assert_true(n_got + n < sizeof got);
    memcpy(got + n_got, bytes, n);
    n_got += n;
    parts[n_parts++ % 64] = n;
}

static struct stile__text t;

static int set_up(void **state)
{
    (void)state;
    t.sink = sink;
    t.n = n_got = n_parts = 0;
    return 0;
}

static void is(const char *expected)
{
    stile__text_flush(&t);
    got[n_got] = '\0';
    assert_string_equal(got, expected);
    n_got = 0;
}

static void test_numbers(void **state)
{
    (void)state;
    stile__text_decimal(&t, 0);
    is("0");
    stile__text_decimal(&t, UINT64_MAX);
    is("18446744073709551615");
    stile__text_signed(&t, INT64_MIN);
    is("-9223372036854775808");
    stile__text_signed(&t, INT64_MAX);
    is("9223372036854775807");
    stile__text_signed(&t, -1);
    is("-1");
    stile__text_hex(&t, 0, 1);
    is("0x0");
    stile__text_hex(&t, UINT64_MAX, 1);
    is("0xffffffffffffffff");
    stile__text_hex(&t, 0xabc, 8);
    is("0x00000abc");
    stile__text_hex(&t, 0xabcdef012, 4);
    is("0xabcdef012");
    stile__text_octets(&t, (const uint8_t *)"\0\x7f\xff", 3);
    is("007fff");
}

/* Nothing of somebody else's text ends a line. */
static void test_foreign(void **state)
{
    (void)state;
    stile__text_foreign(&t, "a\nb\tc\033d\177e\rf\xc3\xa4", 100);
    is("a?b?c?d?e?f\xc3\xa4");
    stile__text_foreign(&t, "12345678", 5);
    is("12345");
    stile__text_foreign(&t, "12345678", 0);
    is("");
    stile__text(&t, "a\nb");
    is("a\nb");
}

static void test_parts(void **state)
{
    char big[3 * STILE__TEXT_PART + 100];
    (void)state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)('a' + i % 23);
    stile__text_bytes(&t, big, STILE__TEXT_PART);
    assert_int_equal(n_parts, 0);
    stile__text_bytes(&t, "x", 1);
    assert_int_equal(n_parts, 1);
    assert_int_equal(parts[0], STILE__TEXT_PART);
    stile__text_flush(&t);
    assert_int_equal(n_parts, 2);
    assert_int_equal(parts[1], 1);
    stile__text_flush(&t);
    assert_int_equal(n_parts, 2);
    n_got = 0;
    stile__text_bytes(&t, big, sizeof big);
    stile__text_flush(&t);
    assert_int_equal(n_parts, 6);
    assert_int_equal(n_got, sizeof big);
    assert_memory_equal(got, big, sizeof big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_numbers, set_up),
        cmocka_unit_test_setup(test_foreign, set_up),
        cmocka_unit_test_setup(test_parts, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
