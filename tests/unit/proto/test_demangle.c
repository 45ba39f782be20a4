/* proto/demangle.c: C++ and both kinds of Rust names, and names made to hurt. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/demangle.h"

static char text[64 * 1024];

static void test_names(void **state)
{
    static const struct {
        const char *mangled, *plain;
    } cases[] = {
        {"_ZN2ns3fooEi", "ns::foo(int)"},
        {"_Z5twiceIiET_S0_", "int twice<int>(int)"},
        {"_ZN12_GLOBAL__N_16hiddenEi", "(anonymous namespace)::hidden(int)"},
        {"_Z3foov.cold", "foo() [clone .cold]"},
        {"_ZN7mycrate3foo17h0123456789abcdefE", "mycrate::foo"},
        {"_ZN4core3ptr42drop_in_place$LT$alloc..string..String$GT$17h0a1b2c3d4e5f6789E",
         "core::ptr::drop_in_place<alloc::string::String>"},
        {"_RNvC7mycrate3bar", "mycrate::bar"},
        {"_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(stile__demangle(cases[i].mangled, text, sizeof(text)), strlen(cases[i].plain));
        assert_string_equal(text, cases[i].plain);
    }
}

static void test_left_alone(void **state)
{
    static const char *const names[] = {"main", "",    "_start", "_Zebra",  "_Z",
                                        "_R",   "_ZN", "_RNv",   "[kernel]"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(stile__demangle(names[i], text, sizeof(text)), 0);
}

static void test_bounded_output(void **state)
{
    (void)state;
    assert_int_equal(stile__demangle("_ZN2ns3fooEi", text, 12), 0);
    assert_int_equal(stile__demangle("_ZN2ns3fooEi", text, 13), 12);
    assert_int_equal(stile__demangle("_ZN2ns3fooEi", text, 0), 0);
}

/* Each substitution doubles what the one before expands to. */
static void test_exploding_name(void **state)
{
    char name[1024];
    int n;

    (void)state;
    n = snprintf(name, sizeof(name), "_Z1f1AIccE");
    for (int i = 0; i < 30; i++)
        n += snprintf(name + n, sizeof(name) - (size_t)n, "1AIS%c_S%c_E", i % 10 + '0', i % 10 + '0');
    stile__demangle(name, text, sizeof(text)); /* must come back, whatever it says */
}

static void test_long_names(void **state)
{
    const size_t lengths[] = {1000, 2000, 4000, 5000, 100000};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char *name = malloc(lengths[i] + 10), *pointers = name;

        assert_non_null(name);
        pointers = stpcpy(name, "_Z1f");
        memset(pointers, 'P', lengths[i]);
        strcpy(pointers + lengths[i], "i");
        stile__demangle(name, text, sizeof(text));
        free(name);
    }
}

static void test_long_template_is_demangled(void **state)
{
    char name[3000];
    size_t n;

    (void)state;
    n = (size_t)snprintf(name, sizeof(name), "_Z1fI");
    while (n < 2500)
        n += (size_t)snprintf(name + n, sizeof(name) - n, "8argument");
    snprintf(name + n, sizeof(name) - n, "Evv");
    assert_true(stile__demangle(name, text, sizeof(text)) > 2500);
    assert_memory_equal(text, "void f<argument, argument, ", 27);
    assert_int_equal(stile__demangle(name, text, 1000), 0); /* all or nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),          cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_bounded_output), cmocka_unit_test(test_exploding_name),
        cmocka_unit_test(test_long_names),     cmocka_unit_test(test_long_template_is_demangled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
