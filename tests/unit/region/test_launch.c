/* region/launch.c: the collector starts, and the caller does not notice. */
#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/region/launch.h"

static volatile sig_atomic_t children_heard;

static void on_child(int signal)
{
    (void)signal;
    children_heard++;
}

static void on_term(int signal)
{
    (void)signal;
}

struct before {
    unsigned descriptors, maps;
    sigset_t mask;
    struct rlimit files;
};

/* A caller with much that the collector must not inherit. */
static void prepare(struct before *b)
{
    static char environment[][64] = {"LD_PRELOAD=/nonexistent/x.so", "PROFILE=x.pb.gz", "PROFILE_HZ=99",
                                     "LD_LIBRARY_PATH=/nonexistent"};
    sigset_t block;
    for (size_t i = 0; i < sizeof environment / sizeof *environment; i++)
        assert_int_equal(putenv(environment[i]), 0);
    setenv("TMPDIR", scratch_path("."), 1);
    signal(SIGCHLD, on_child);
    signal(SIGTERM, on_term);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigaddset(&block, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &block, NULL);
    assert_true(open("/dev/zero", O_RDONLY) >= 0); /* NOLINT: inherited on purpose */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &b->files), 0);
    struct rlimit few = {200, b->files.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    sigprocmask(SIG_BLOCK, NULL, &b->mask);
    b->descriptors = count_descriptors();
    b->maps = count_map_lines();
    children_heard = 0;
    errno = 1234;
}

static void unchanged(const struct before *b)
{
    sigset_t mask;
    assert_int_equal(errno, 1234);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    assert_memory_equal(&mask, &b->mask, 8); /* the kernel has 64 of them */
    ;
    assert_int_equal(count_descriptors(), b->descriptors);
    if (!UNDER_TSAN) /* its shadow of the children's stacks stays */
        assert_int_equal(count_map_lines(), b->maps);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(children_heard, 0);
}

static void has_line(const char *text, const char *line)
{
    char with_newline[4200];
    snprintf(with_newline, sizeof with_newline, "\n%s\n", line);
    if (strstr(text, with_newline) == NULL)
        fail_msg("the witness did not see \"%s\":\n%s", line, text);
}

static void has_not(const char *text, const char *what)
{
    if (strstr(text, what) != NULL)
        fail_msg("the witness saw \"%s\":\n%s", what, text);
}

static void witness_check(const char *text, pid_t pid)
{
    int ids[4];
    const char *at = strstr(text, "\nids ");

    assert_non_null(at);
    assert_int_equal(sscanf(at, "\nids %d %d %d %d", &ids[0], &ids[1], &ids[2], &ids[3]), 4);
    assert_int_equal(ids[0], pid);
    assert_int_not_equal(ids[1], getpid());
    assert_int_equal(ids[2], pid);
    assert_int_equal(ids[3], pid);
    assert_int_equal(strncmp(text, "argv stile collect\n", 19), 0);
    has_line(text, "cwd /");
    has_line(text, "fd 0 /dev/null");
    has_line(text, "fd 1 /dev/null");
    has_line(text, "fd 2 /dev/null");
    has_line(text, "fd 3 socket");
    has_not(text, "\nfd 4");
    has_not(text, "\nfd 5");
    has_not(text, "/dev/z");
    has_line(text, "SigBlk:\t0000000000000000");
    has_line(text, "SigIgn:\t0000000000000000");
    has_line(text, "SigCgt:\t0000000000000000");
    has_line(text, "files 1");
    has_line(text, "nice 0");
    has_not(text, "LD_");
    has_not(text, "PROFILE");
    assert_non_null(strstr(text, "\nenv TMPDIR="));
    assert_non_null(strstr(text, "\nenv PATH="));
}

/* A process that ends lets go of its memory, for which its parent waits, a moment before its descriptors. */
static int connect_after_end(const char *name)
{
    int fd = -1;
    for (int i = 0; i < 3000 && (fd = stile__launch_connect(name)) >= 0; i++) {
        close(fd);
        usleep(10000);
    }
    return fd;
}

static void test_collector_starts(void **state)
{
    struct stile__launch launch = {.program = test_setting("STILE_TEST_WITNESS")};
    struct before before;

    (void)state;
    prepare(&before);
    int err = stile__launch_collector(&launch);
    unchanged(&before);
    assert_int_equal(err, 0);
    assert_true(launch.pid > 0);
    assert_true(file_awaited(scratch_path("witness")));
    char *text = file_text(scratch_path("witness"));
    witness_check(text, launch.pid);
    free(text);

    /* Its address is there, the descriptor is ours alone, and once it has gone nobody answers. */
    int fd = stile__launch_connect(launch.name);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    file_write(scratch_path("go"), "", 0);
    assert_int_equal(connect_after_end(launch.name), -ECONNREFUSED);
    assert_int_equal(children_heard, 0);
}

static void failure(const char *program, int expected)
{
    struct stile__launch launch = {.program = program};
    struct before before;

    prepare(&before);
    int err = stile__launch_collector(&launch);
    unchanged(&before);
    assert_int_equal(err, expected);
    assert_int_equal(connect_after_end(launch.name), -ECONNREFUSED);
}

static void test_program_that_cannot_run(void **state)
{
    (void)state;
    failure(scratch_path("no-such-program"), -ENOENT);
    file_write(scratch_path("text"), "words", 5);
    failure(scratch_path("text"), -EACCES);
}

static void test_nobody_listens(void **state)
{
    unsigned descriptors = count_descriptors();
    (void)state;
    assert_int_equal(stile__launch_connect("stile-0123456789abcdef0123456789abcdef"), -ECONNREFUSED);
    assert_int_equal(count_descriptors(), descriptors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collector_starts),
        cmocka_unit_test(test_program_that_cannot_run),
        cmocka_unit_test(test_nobody_listens),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
