/* agent/session.c and api.c: starting, stopping, what is refused, and what a fork does. */
#include "tests/unit/support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/agent/session.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "proto/reader.h"

static int start(const char *name)
{
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path(name), .hz = 100};
    int err = stile_profile_start(&o);
    if (UNDER_TSAN && err == 0) /* it would keep our signals back */
        handler_install_raw(SIGPROF, stile__handle_tick);
    return err;
}

/* The ticks that a profile has. */
static uint64_t ticks_of(const char *path)
{
    struct stile__profile *p;
    char err[512];
    uint64_t ticks = 0;

    if (stile__profile_read(path, &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    for (size_t i = 0; i < p->pb->n_sample; i++)
        ticks += (uint64_t)p->pb->sample[i]->value[0];
    stile__profile_free(p);
    return ticks;
}

static void on_prof(int signal)
{
    (void)signal;
}

static void program_has_sigprof(void *unused)
{
    (void)unused;
    CHILD_CHECK(signal(SIGPROF, on_prof) == SIG_DFL);
    CHILD_CHECK(start("busy.pb") == -EBUSY);
    CHILD_CHECK(signal(SIGPROF, SIG_IGN) == on_prof);
    CHILD_CHECK(stile_profile_stop() == -ESRCH);
    CHILD_CHECK(access(scratch_path("busy.pb"), F_OK) != 0);
}

/* First of all tests: the handler is installed once in a process. */
static void test_sigprof_is_the_programs(void **state)
{
    (void)state;
    assert_int_equal(in_child(program_has_sigprof, NULL), 0);
}

static void test_nothing_to_stop(void **state)
{
    (void)state;
    errno = 1234;
    assert_int_equal(stile_profile_stop(), -ESRCH);
    assert_int_equal(stile_profile_flush(), -ESRCH);
    assert_int_equal(errno, 1234);
    assert_string_equal(stile_version(), STILE_VERSION);
}

static void test_bad_options(void **state)
{
    struct {
        struct stile_profile_options o;
        char later[16];
    } big = {.o = {.size = sizeof big, .path = scratch_path("big.pb")}};
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("x.pb")};
    struct stile_profile_options none = {0};

    (void)state;
    errno = 1234;
    assert_int_equal(stile_profile_start(NULL), -EINVAL);
    assert_int_equal(stile_profile_start(&none), -EINVAL);
    none.size = sizeof none.size - 1;
    assert_int_equal(stile_profile_start(&none), -EINVAL);
    none.size = sizeof none;
    assert_int_equal(stile_profile_start(&none), -EINVAL); /* no path */
    o.hz = 20001;
    assert_int_equal(stile_profile_start(&o), -EINVAL);
    o.hz = 0;
    o.path = scratch_path("x.txt");
    assert_int_equal(stile_profile_start(&o), -EINVAL);
    o.path = "";
    assert_int_equal(stile_profile_start(&o), -EINVAL);
    big.later[15] = 1;
    assert_int_equal(stile_profile_start(&big.o), -EINVAL);
    assert_int_equal(errno, 1234);
    assert_int_equal(stile_profile_stop(), -ESRCH);
}

static void test_options_of_a_later_version(void **state)
{
    struct {
        struct stile_profile_options o;
        char later[16];
    } big = {.o = {.size = sizeof big, .path = scratch_path("big.pb")}};
    (void)state;
    assert_int_equal(stile_profile_start(&big.o), 0);
    assert_int_equal(stile_profile_stop(), 0);
    assert_true(ticks_of(scratch_path("big.pb")) <= 3); /* starting and stopping count, too */
}

static void refused(const char *name, int expected)
{
    int err = start(name);
    int stopped = stile_profile_stop(); /* so that the next test can start */
    assert_int_equal(err, expected);
    assert_int_equal(stopped, -ESRCH);
}

static void test_targets_that_cannot_be(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path("dir.pb"), 0700), 0);
    assert_int_equal(symlink("nowhere", scratch_path("link.pb")), 0);
    refused("dir.pb", -EISDIR);
    refused("missing/x.pb", -ENOENT);
    refused("link.pb", -ELOOP);
}

/* The same when the collector of an earlier session is still there. */
static void test_such_targets_after_a_session(void **state)
{
    (void)state;
    assert_int_equal(start("first.pb"), 0);
    assert_int_equal(stile_profile_stop(), 0);
    refused("dir.pb", -EISDIR);
}

static void test_start_and_stop(void **state)
{
    (void)state;
    errno = 1234;
    assert_int_equal(start("one.pb.gz"), 0);
    assert_int_equal(start("two.pb.gz"), -EALREADY);
    spin_ns(300000000);
    assert_int_equal(stile_profile_flush(), 0);
    uint64_t flushed = ticks_of(scratch_path("one.pb.gz"));
    spin_ns(300000000);
    assert_int_equal(stile_profile_stop(), 0);
    uint64_t all = ticks_of(scratch_path("one.pb.gz"));
    assert_int_equal(errno, 1234);
    assert_int_equal(access(scratch_path("two.pb.gz"), F_OK), -1);
    assert_int_equal(stile_profile_stop(), -ESRCH);
    assert_true(flushed >= 20 && all >= flushed + 20 && all <= 200);
}

static void test_leaks_nothing(void **state)
{
    unsigned descriptors = 0, maps = 0, threads = 0;
    (void)state;
    for (int i = 0; i < 22; i++) {
        assert_int_equal(start("again.pb"), 0);
        spin_ns(10000000);
        assert_int_equal(stile_profile_stop(), 0);
        if (i == 1) {
            descriptors = count_descriptors();
            maps = count_map_lines();
            threads = count_threads();
        }
    }
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(count_threads(), threads);
    if (!UNDER_SANITIZER)
        assert_int_equal(count_map_lines(), maps);
}

static void forked(void *unused)
{
    (void)unused;
    CHILD_CHECK(stile__session != NULL && atomic_load(&stile__session->region) != NULL);
    if (UNDER_TSAN)
        handler_install_raw(SIGPROF, stile__handle_tick);
    spin_ns(300000000);
}

static void test_fork(void **state)
{
    char name[64];
    int status;

    (void)state;
    assert_int_equal(start("tree.pb.gz"), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        forked(NULL);
        _exit(3);
    }
    assert_int_equal(waitpid(-1, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    spin_ns(200000000);
    assert_int_equal(stile_profile_stop(), 0);
    snprintf(name, sizeof name, "tree.%d.pb.gz", (int)pid);
    assert_true(file_awaited(scratch_path(name)));
    assert_true(ticks_of(scratch_path(name)) >= 20);
    uint64_t own = ticks_of(scratch_path("tree.pb.gz"));
    assert_true(own >= 15 && own <= 45); /* the child's time is the child's */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sigprof_is_the_programs),
        cmocka_unit_test(test_nothing_to_stop),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_targets_that_cannot_be),
        cmocka_unit_test(test_options_of_a_later_version),
        cmocka_unit_test(test_such_targets_after_a_session),
        cmocka_unit_test(test_start_and_stop),
        cmocka_unit_test(test_leaks_nothing),
        cmocka_unit_test(test_fork),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
