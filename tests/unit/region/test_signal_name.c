/* region/signal_name.c: every way to name a signal, every text that names none, and those that are not ours to take. */
#include "tests/unit/support.h"

#include <errno.h>
#include <string.h>

#include "profiler/region/signal_name.h"

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(stile__signal_parse("SIGUSR1"), SIGUSR1);
    assert_int_equal(stile__signal_parse("USR2"), SIGUSR2);
    assert_int_equal(stile__signal_parse("SIGPROF"), SIGPROF);
    assert_int_equal(stile__signal_parse("27"), SIGPROF);
    assert_int_equal(stile__signal_parse("KILL"), SIGKILL);
    assert_int_equal(stile__signal_parse("RTMIN"), SIGRTMIN);
    assert_int_equal(stile__signal_parse("SIGRTMIN+3"), SIGRTMIN + 3);
    assert_int_equal(stile__signal_parse("RTMAX-1"), SIGRTMAX - 1);
    assert_int_equal(stile__signal_parse("SIGRTMAX"), SIGRTMAX);
    assert_int_equal(stile__signal_parse("32"), 32);
}

static void test_what_names_none(void **state)
{
    static const char *const texts[] = {"",
                                        "0",
                                        "-1",
                                        "+5",
                                        "65",
                                        "10x",
                                        " 10",
                                        "SIG",
                                        "SIGSIG",
                                        "usr1",
                                        "SIGUSR3",
                                        "USR",
                                        "SIGUSR1 ",
                                        "RTMIN+",
                                        "RTMIN+31",
                                        "RTMIN-1",
                                        "RTMAX+1",
                                        "RTMAX-31",
                                        "RTMIN3",
                                        "SIGRT",
                                        "RTMIN+x",
                                        "0x0a",
                                        "99999999999999999999",
                                        "SIG10"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (stile__signal_parse(texts[i]) != -EINVAL)
            fail_msg("\"%s\" is taken for signal %d", texts[i], stile__signal_parse(texts[i]));
}

static void test_allowed(void **state)
{
    static const int refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,  SIGILL,  SIGFPE,  SIGTRAP, SIGABRT,
                                  SIGSYS,  SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, 32,      33,
                                  SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE, SIGALRM};
    (void)state;
    for (int n = -70; n < 200; n++) {
        bool expected = n >= 1 && n <= 64;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            expected = expected && n != refused[i];
        if (stile__signal_allowed(n) != expected)
            fail_msg("signal %d", n);
    }
}

static void test_every_name_is_read_again(void **state)
{
    char name[STILE__SIGNAL_NAME_MAX];
    (void)state;
    for (int n = 1; n <= SIGRTMAX; n++)
        if (n < 32 || n >= SIGRTMIN)
            assert_int_equal(stile__signal_parse(stile__signal_name(n, name, sizeof name)), n);
    assert_string_equal(stile__signal_name(SIGUSR1, name, sizeof name), "SIGUSR1");
    assert_string_equal(stile__signal_name(SIGRTMIN + 3, name, sizeof name), "SIGRTMIN+3");
    assert_string_equal(stile__signal_name(0, name, sizeof name), "signal 0");
    assert_string_equal(stile__signal_name(-5, name, sizeof name), "signal -5");
    assert_string_equal(stile__signal_name(1000, name, sizeof name), "signal 1000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_names_none),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_every_name_is_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
