/* proto/strings.c: every text once, and only UTF-8. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#include "proto/strings.h"

static int64_t intern(struct stile__strings *s, const char *text)
{
    int64_t index = -1;

    assert_int_equal(stile__strings_intern(s, text, &index), 0);
    return index;
}

static void test_numbers(void **state)
{
    struct stile__strings s = {0};
    char text[32];

    (void)state;
    assert_int_equal(stile__strings_init(&s), 0);
    assert_int_equal(intern(&s, ""), 0);
    assert_int_equal(intern(&s, NULL), 0);
    for (int round = 0; round < 2; round++)
        for (int i = 1; i <= 5000; i++) {
            snprintf(text, sizeof(text), "text %d", i);
            assert_int_equal(intern(&s, text), i);
        }
    assert_int_equal(s.count, 5001);
    stile__strings_free(&s);
}

static void test_only_utf8(void **state)
{
    static const struct {
        const char *in, *same_as;
    } cases[] = {
        {"na\xc3\xafve", "na\xc3\xafve"},                         /* fine as it is */
        {"\xf0\x9f\x90\x91", "\xf0\x9f\x90\x91"},                 /* four bytes */
        {"a\xff z", "a\xef\xbf\xbd z"},                           /* never a byte of UTF-8 */
        {"\xc3", "\xef\xbf\xbd"},                                 /* cut off at the end */
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
    };
    struct stile__strings s = {0};

    (void)state;
    assert_int_equal(stile__strings_init(&s), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t index = intern(&s, cases[i].in);

        assert_int_equal(intern(&s, cases[i].same_as), index);
        assert_non_null(memmem(s.wire.data, s.wire.size, cases[i].same_as, strlen(cases[i].same_as)));
    }
    stile__strings_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_only_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
