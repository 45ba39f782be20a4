/* agent/options.c: what the environment may say, and what is somebody else's. */
#include "tests/unit/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/agent/log.h"
#include "profiler/agent/options.h"
#include "profiler/region/layout.h"

static struct stile__options o;

static int fresh(void **state)
{
    (void)state;
    memset(&o, 0, sizeof o);
    unsetenv("PROFILE");
    unsetenv("PROFILE_HZ");
    unsetenv("PROFILE_COLLECTOR");
    unsetenv("PROFILE_SIGNAL");
    unsetenv("PROFILE_TOGGLE");
    unsetenv("PROFILE_INTERVAL");
    unsetenv("PROFILE_DEPTH");
    unsetenv("PROFILE_DEBUG");
    unsetenv("PROFILE_BARRIERS");
    unsetenv("STILE_ROOT");
    return 0;
}

/* Reads the environment; what it says about it goes to *said, to be freed. */
static int read_options(char **said)
{
    stderr_begin();
    stile__log_init();
    int result = stile__options_read(&o);
    *said = stderr_end();
    return result;
}

static void silently(int expected)
{
    char *said;
    int result = read_options(&said);
    assert_string_equal(said, "");
    assert_int_equal(result, expected);
    free(said);
}

/* One line that names the variable, and no profile. */
static void complains(const char *name)
{
    char *said;
    assert_int_equal(read_options(&said), -EINVAL);
    assert_int_equal(strncmp(said, "stile: ", 7), 0);
    assert_non_null(strstr(said, name));
    char *newline = strchr(said, '\n');
    assert_non_null(newline);
    assert_string_equal(newline, "\n");
    free(said);
}

static void test_other_peoples_profile(void **state)
{
    static const char *const values[] = {
        "", "release", "debug", ".pb.gz", ".pb", "pb.gz", "x.pb.gzip", "x.gz", "/nonexistent/directory"};
    (void)state;
    silently(0);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        setenv("PROFILE", values[i], 1);
        setenv("PROFILE_HZ", "nonsense", 1); /* not even looked at */
        silently(0);
    }
}

static void test_profiles(void **state)
{
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    silently(1);
    assert_string_equal(o.profile, "x.pb.gz");
    assert_int_equal(o.hz, 100);
    assert_int_equal(o.signal, SIGPROF);
    assert_int_equal(o.toggle, 0);
    assert_int_equal(o.interval_ns, 0);
    assert_string_equal(o.collector, "");
    assert_string_equal(o.root, "");
    setenv("PROFILE", "/a/%p.pb", 1);
    setenv("PROFILE_COLLECTOR", "/b/stile", 1);
    setenv("STILE_ROOT", "stile-0@7", 1);
    silently(1);
    assert_string_equal(o.profile, "/a/%p.pb");
    assert_string_equal(o.collector, "/b/stile");
    assert_string_equal(o.root, "stile-0@7");
}

static void test_directory(void **state)
{
    char expected[4200];
    (void)state;
    const char *dir = scratch_path(".");
    setenv("PROFILE", dir, 1);
    silently(1);
    snprintf(expected, sizeof expected, "%s/%%e.%%p.pb.gz", dir);
    assert_string_equal(o.profile, expected);
}

static void test_frequencies(void **state)
{
    static const char *const good[] = {"1", "99", "20000"};
    static const char *const bad[] = {
        "",          "0", "-1", "20001", "100x", "x", "1.5", "0x10", "100 ", "1e3", "99999999999999999999",
        "4294967396"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("PROFILE_HZ", good[i], 1);
        silently(1);
        assert_int_equal(o.hz, atoi(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_HZ", bad[i], 1);
        complains("PROFILE_HZ=");
    }
}

static void test_signals(void **state)
{
    static const char *const bad[] = {"",        "SIGNAL",  "0",       "-1", "KILL",
                                      "SIGSTOP", "SIGSEGV", "SIGCHLD", "33", "65"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    setenv("PROFILE_SIGNAL", "USR1", 1);
    setenv("PROFILE_TOGGLE", "12", 1);
    silently(1);
    assert_int_equal(o.signal, SIGUSR1);
    assert_int_equal(o.toggle, SIGUSR2);
    setenv("PROFILE_TOGGLE", "SIGUSR1", 1);
    complains("PROFILE_TOGGLE and PROFILE_SIGNAL");
    unsetenv("PROFILE_SIGNAL");
    silently(1);
    setenv("PROFILE_TOGGLE", "27", 1); /* the default signal */
    complains("PROFILE_TOGGLE and PROFILE_SIGNAL");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_TOGGLE", bad[i], 1);
        unsetenv("PROFILE_SIGNAL");
        complains("PROFILE_TOGGLE=");
        setenv("PROFILE_SIGNAL", bad[i], 1);
        complains("PROFILE_SIGNAL=");
    }
}

static void test_intervals(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"60", 60000000000u},        {"60s", 60000000000u},          {"100ms", 100000000u},
        {"1m", 60000000000u},        {"1h", 3600000000000u},         {"1", 1000000000u},
        {"720h", 2592000000000000u}, {"2592000", 2592000000000000u}, {"2592000000ms", 2592000000000000u}};
    static const char *const bad[] = {"",
                                      "0",
                                      "0h",
                                      "99ms",
                                      "-1",
                                      "+1",
                                      "1d",
                                      "s",
                                      "ms",
                                      " 1",
                                      "1 ",
                                      "1.5s",
                                      "1e3",
                                      "0x10",
                                      "721h",
                                      "1sm",
                                      "1S",
                                      "2592001",
                                      "18446744073709551616",
                                      "18446744073709551617ms",
                                      "5124095577h"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("PROFILE_INTERVAL", good[i].text, 1);
        silently(1);
        assert_int_equal(o.interval_ns, good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_INTERVAL", bad[i], 1);
        complains("PROFILE_INTERVAL=");
    }
}

static void test_depths(void **state)
{
    static const char *const good[] = {"1", "2", "1000", "16777216"};
    static const char *const bad[] = {"",    "0",    "-1",  "16777217",   "1k",
                                      "1.5", "0x10", "10 ", "4294967297", "99999999999999999999"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    silently(1);
    assert_int_equal(o.depth, STILE__DEPTH_MAX);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("PROFILE_DEPTH", good[i], 1);
        silently(1);
        assert_int_equal(o.depth, atoi(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_DEPTH", bad[i], 1);
        complains("PROFILE_DEPTH=");
        assert_int_equal(stile__options_surroundings(&o), -EINVAL); /* without PROFILE, too */
    }
}

static void test_debugging(void **state)
{
    static const struct {
        const char *text;
        uint32_t bits;
    } good[] = {{"", 0},
                {"verifyunwind=0", 0},
                {"verifyunwind=1", STILE__DEBUG_VERIFY},
                {"verifyunwind=2", STILE__DEBUG_VERIFY | STILE__DEBUG_VERIFY_ALL},
                {"walktime=0", 0},
                {"walktime=1", STILE__DEBUG_WALK_TIME},
                {"walktime=1,verifyunwind=0", STILE__DEBUG_WALK_TIME},
                {"verifyunwind=1,walktime=1", STILE__DEBUG_VERIFY | STILE__DEBUG_WALK_TIME}};
    static const char *const bad[] = {"1",
                                      ",",
                                      "verifyunwind",
                                      "verifyunwind=",
                                      "verifyunwind=3",
                                      "verifyunwind=10",
                                      "VerifyUnwind=1",
                                      "walktime=2",
                                      "walktime=1 ",
                                      "walktime=1;verifyunwind=1",
                                      "walktime=1,,verifyunwind=1",
                                      ",walktime=1",
                                      "walktime=1,nonsense",
                                      "nonsense,walktime=1"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    o.debug = 77;
    silently(1);
    assert_int_equal(o.debug, 0);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("PROFILE_DEBUG", good[i].text, 1);
        silently(1);
        assert_int_equal(o.debug, good[i].bits);
        assert_int_equal(stile__options_surroundings(&o), 0);
        assert_int_equal(o.debug, good[i].bits);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_DEBUG", bad[i], 1);
        complains("PROFILE_DEBUG=");
    }
}

static void test_barriers(void **state)
{
    static const struct {
        const char *text;
        enum stile__barriers_wish wish;
    } good[] = {{"off", STILE__BARRIERS_OFF},
                {"auto", STILE__BARRIERS_AUTO},
                {"on", STILE__BARRIERS_ON},
                {"all", STILE__BARRIERS_ALL}};
    static const char *const bad[] = {"", "1", "0", "ON", "on ", "on,all", "none", "allx", "of"};
    (void)state;
    setenv("PROFILE", "x.pb.gz", 1);
    o.barriers = STILE__BARRIERS_ALL;
    silently(1);
    assert_int_equal(o.barriers, STILE__BARRIERS_AUTO);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("PROFILE_BARRIERS", good[i].text, 1);
        silently(1);
        assert_int_equal(o.barriers, good[i].wish);
        o.barriers = STILE__BARRIERS_WISHES;
        assert_int_equal(stile__options_surroundings(&o), 0); /* without PROFILE, too */
        assert_int_equal(o.barriers, good[i].wish);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("PROFILE_BARRIERS", bad[i], 1);
        complains("PROFILE_BARRIERS=");
        assert_int_equal(stile__options_surroundings(&o), -EINVAL);
    }
}

static void test_too_long(void **state)
{
    static char name[PATH_MAX + 64];
    (void)state;
    memset(name, 'a', sizeof name - 1);
    strcpy(name + PATH_MAX - 3, ".pb"); /* PATH_MAX bytes and a NUL */
    setenv("PROFILE", name, 1);
    complains("PROFILE ");
    strcpy(name + PATH_MAX - 4, ".pb");
    setenv("PROFILE", name, 1);
    silently(1);
    assert_string_equal(o.profile, name);

    strcpy(name + PATH_MAX, "a");
    setenv("PROFILE", "x.pb", 1);
    setenv("PROFILE_COLLECTOR", name, 1);
    name[PATH_MAX - 4] = 'a';
    name[PATH_MAX - 1] = 'a';
    setenv("PROFILE_COLLECTOR", name, 1);
    complains("PROFILE_COLLECTOR");
    unsetenv("PROFILE_COLLECTOR");
    name[sizeof o.root] = '\0'; /* a root that no ancestor of ours has written */
    setenv("STILE_ROOT", name, 1);
    silently(1);
    assert_string_equal(o.root, "");
}

static void test_profile_set(void **state)
{
    (void)state;
    assert_true(stile__options_is_profile("x.pb"));
    assert_true(stile__options_is_profile("a/b.pb.gz"));
    assert_false(stile__options_is_profile(".pb"));
    assert_false(stile__options_is_profile("x.txt"));
    assert_int_equal(stile__options_profile_set(&o, "x.txt"), -EINVAL);
    assert_int_equal(stile__options_profile_set(&o, "/nonexistent"), -EINVAL);
    assert_int_equal(stile__options_profile_set(&o, "x.pb"), 0);
    assert_string_equal(o.profile, "x.pb");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_other_peoples_profile, fresh),
        cmocka_unit_test_setup(test_profiles, fresh),
        cmocka_unit_test_setup(test_directory, fresh),
        cmocka_unit_test_setup(test_frequencies, fresh),
        cmocka_unit_test_setup(test_signals, fresh),
        cmocka_unit_test_setup(test_intervals, fresh),
        cmocka_unit_test_setup(test_depths, fresh),
        cmocka_unit_test_setup(test_debugging, fresh),
        cmocka_unit_test_setup(test_barriers, fresh),
        cmocka_unit_test_setup(test_too_long, fresh),
        cmocka_unit_test_setup(test_profile_set, fresh),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
