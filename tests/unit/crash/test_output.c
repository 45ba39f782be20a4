/* Where a report goes: the slot's errors and duplicates, and writing to what is full, closed, replaced or gone. */
#include "profiler/agent/crash/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/stile.h"
#include "tests/unit/crash/report_area.h"
#include "tests/unit/support.h"

#define PART 4096u

static char part[PART];

static int file_make(const char *name, int flags)
{
    int fd = open(scratch_path(name), O_CREAT | O_RDWR | O_CLOEXEC | flags, 0600);
    assert_true(fd >= 0);
    return fd;
}

static size_t file_size(const char *name)
{
    struct stat st;
    assert_int_equal(stat(scratch_path(name), &st), 0);
    return (size_t)st.st_size;
}

static bool same_file(int fd, const char *name)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(scratch_path(name), &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* The highest open descriptor of a file, -1 if there is none. */
static int descriptor_of(const char *name)
{
    for (int fd = 4095; fd > 2; fd--)
        if (same_file(fd, name))
            return fd;
    return -1;
}

static double seconds_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* A report of so many parts; seconds that it took. */
static double report(unsigned parts)
{
    double begin = seconds_now();
    stile__crash_output_begin(area_region(), true);
    for (unsigned i = 0; i < parts; i++)
        stile__crash_output_write(part, sizeof part);
    stile__crash_output_end();
    return seconds_now() - begin;
}

static int kept_stderr = -1;

/* Gives descriptor 2 to the report; -1: closes it. */
static void stderr_to(int fd)
{
    if (fd < 0)
        close(2);
    else
        assert_int_equal(dup2(fd, 2), 2);
    stile__crash_output_init();
}

static int each_begin(void **state)
{
    (void)state;
    sigset_t all; /* as in the handler */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (size_t i = 0; i < sizeof part; i++)
        part[i] = (char)(i % 64 == 63 ? '\n' : 'a' + i % 26);
    area_clear();
    scratch_make();
    kept_stderr = fcntl(2, F_DUPFD_CLOEXEC, 200);
    assert_true(kept_stderr >= 0);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    stderr_to(null);
    close(null);
    return 0;
}

static int each_end(void **state)
{
    (void)state;
    assert_int_equal(stile__crash_output_swap(-1), 0);
    stderr_to(kept_stderr);
    close(kept_stderr);
    scratch_remove();
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL); /* what a test left pending kills here */
    return 0;
}

static void test_duplicates(void **state)
{
    (void)state;
    unsigned before = count_descriptors();
    int fd = file_make("a", 0);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    close(fd);
    fd = descriptor_of("a");
    assert_true(fd > 900);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    report(3);
    assert_int_equal(file_size("a"), 3 * PART);
    assert_int_equal(area_size(), 3 * PART);
    /* Replaced: the earlier one is closed, and gets nothing more. */
    int b = file_make("b", 0);
    assert_int_equal(stile__crash_output_swap(b), 0);
    close(b);
    assert_int_equal(descriptor_of("a"), -1);
    report(1);
    assert_int_equal(file_size("a"), 3 * PART);
    assert_int_equal(file_size("b"), PART);
    char *text = file_text(scratch_path("b"));
    assert_memory_equal(text, part, PART);
    free(text);
    assert_int_equal(stile__crash_output_swap(-1), 0);
    assert_int_equal(descriptor_of("b"), -1);
    assert_int_equal(stile__crash_output_swap(-1), 0);
    report(1);
    assert_int_equal(file_size("b"), PART);
    assert_int_equal(count_descriptors(), before);
}

static void test_not_open(void **state)
{
    (void)state;
    int fd = file_make("a", 0);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    close(fd);
    errno = E2BIG;
    assert_int_equal(stile_crash_output_set(777), -EBADF);
    assert_int_equal(errno, E2BIG);
    assert_int_equal(stile__crash_output_swap(-2), -EBADF);
    assert_int_equal(stile__crash_output_swap(1 << 30), -EBADF);
    report(1);
    assert_int_equal(file_size("a"), PART);
}

static void in_limited(void *arg)
{
    (void)arg;
    int a = file_make("a", 0), b = file_make("b", 0), c;
    struct rlimit small = {24, 24};
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &small) == 0);
    CHILD_CHECK(stile__crash_output_swap(a) == 0);
    CHILD_CHECK(stile__crash_output_swap(b) == 0);
    CHILD_CHECK(stile__crash_output_swap(a) == 0);
    while ((c = dup(b)) >= 0)
        ;
    CHILD_CHECK(errno == EMFILE);
    CHILD_CHECK(stile__crash_output_swap(b) == -EMFILE);
    report(1);
    CHILD_CHECK(file_size("a") == PART && file_size("b") == 0);
    /* Never one of the standard descriptors, though they are free. */
    close(0);
    close(1);
    CHILD_CHECK(stile__crash_output_swap(b) == -EMFILE);
    small.rlim_cur = 2;
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &small) == 0);
    CHILD_CHECK(stile__crash_output_swap(b) == -EMFILE);
}

static void test_limit(void **state)
{
    (void)state;
    assert_int_equal(in_child(in_limited, NULL), 0);
}

static void test_busy(void **state)
{
    (void)state;
    int a = file_make("a", 0), b = file_make("b", 0);
    assert_int_equal(stile__crash_output_swap(a), 0);
    unsigned before = count_descriptors();
    stile__crash_output_begin(NULL, true);
    assert_int_equal(stile__crash_output_swap(b), -EBUSY);
    assert_int_equal(stile__crash_output_swap(-1), -EBUSY);
    assert_int_equal(stile__crash_output_swap(777), -EBADF);
    assert_int_equal(count_descriptors(), before);
    stile__crash_output_write(part, PART);
    stile__crash_output_end();
    assert_int_equal(file_size("a"), PART);
    assert_int_equal(stile__crash_output_swap(b), 0);
    assert_int_equal(count_descriptors(), before);
    /* A dump keeps nobody from swapping. */
    stile__crash_output_begin(NULL, false);
    assert_int_equal(stile__crash_output_swap(a), 0);
    stile__crash_output_write(part, PART);
    stile__crash_output_end();
    assert_int_equal(file_size("a") + file_size("b"), PART);
    close(a);
    close(b);
}

/* The end without a begin, as in the child of a fork, closes nothing. */
static void in_fork(void *arg)
{
    (void)arg;
    unsigned before = count_descriptors();
    stile__crash_output_end();
    CHILD_CHECK(count_descriptors() == before && fcntl(0, F_GETFD) >= 0);
    CHILD_CHECK(stile__crash_output_swap(2) == 0);
}

static void test_fork(void **state)
{
    (void)state;
    assert_int_equal(in_child(in_fork, NULL), 0);
}

static void test_replaced(void **state)
{
    (void)state;
    int fd = file_make("a", 0), foreign = file_make("foreign", 0), b = file_make("b", 0);
    for (int swaps = 0; swaps < 2; swaps++) {
        assert_int_equal(stile__crash_output_swap(fd), 0);
        int ours = descriptor_of("a");
        assert_int_equal(dup2(foreign, ours), ours);
        if (swaps == 0)
            report(2);
        assert_int_equal(stile__crash_output_swap(b), 0);
        assert_true(same_file(ours, "foreign")); /* not closed, either */
        close(ours);
        report(1);
        assert_int_equal(stile__crash_output_swap(-1), 0);
    }
    assert_int_equal(file_size("foreign"), 0);
    assert_int_equal(file_size("a"), 0);
    assert_int_equal(file_size("b"), 2 * PART);
    /* In the midst of a report. */
    assert_int_equal(stile__crash_output_swap(fd), 0);
    int ours = descriptor_of("a");
    stile__crash_output_begin(NULL, true);
    stile__crash_output_write(part, PART);
    assert_int_equal(dup2(foreign, ours), ours);
    stile__crash_output_write(part, PART);
    stile__crash_output_end();
    assert_int_equal(file_size("a"), PART);
    assert_int_equal(file_size("foreign"), 0);
    close(ours);
    close(fd);
    close(foreign);
    close(b);
}

static void pipe_fill(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    while (write(fd, part, PART) > 0)
        ;
    assert_int_equal(errno, EAGAIN);
    fcntl(fd, F_SETFL, flags);
}

/* What nobody reads is left out; the other places have all of it, and its flags are as they were. */
static double full(int fd)
{
    int flags = fcntl(fd, F_GETFL), copy = file_make("copy", O_TRUNC);
    assert_int_equal(stile__crash_output_swap(copy), 0);
    area_clear();
    int own = dup(fd);
    stderr_to(own);
    close(own);
    double took = report(40);
    assert_true(took > 1.9 && took < 60);
    assert_int_equal(file_size("copy"), 40 * PART);
    assert_int_equal(area_size(), 40 * PART);
    assert_int_equal(fcntl(fd, F_GETFL), flags);
    close(copy);
    return took;
}

static void test_full_pipe(void **state)
{
    double least = 60;
    (void)state;
    for (int flags = 0; flags <= O_NONBLOCK; flags += O_NONBLOCK) {
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC | flags), 0);
        pipe_fill(ends[1]);
        double took = full(ends[1]);
        least = took < least ? took : least;
        close(ends[0]);
        close(ends[1]);
    }
    assert_true(least < 4.5); /* not as long as one that takes something now and then */
}

static void test_full_socket(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pipe_fill(ends[1]);
    full(ends[1]);
    close(ends[0]);
    close(ends[1]);
}

static void test_full_terminal(void **state)
{
    (void)state;
    int master, slave;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    pipe_fill(slave);
    full(slave);
    close(slave);
    close(master);
}

/* Reads all there is, slowly or not. */
struct reader {
    int fd;
    atomic_uint pause_us;
    size_t part, n;
    bool wrong;
};

static void *reader_run(void *arg)
{
    struct reader *r = arg;
    char buffer[65536];
    ssize_t n;
    while ((n = read(r->fd, buffer, r->part)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            r->wrong |= buffer[i] != part[(r->n + (size_t)i) % PART];
        r->n += (size_t)n;
        usleep(atomic_load(&r->pause_us));
    }
    return NULL;
}

static void whole_through(int from, int to, unsigned parts)
{
    struct reader r = {.fd = from, .part = 65536};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reader_run, &r), 0);
    assert_int_equal(stile__crash_output_swap(to), 0);
    close(to);
    report(parts);
    assert_int_equal(stile__crash_output_swap(-1), 0); /* the reader sees the end */
    pthread_join(thread, NULL);
    assert_int_equal(r.n, parts * PART);
    assert_false(r.wrong);
    close(from);
}

static void test_monitor(void **state)
{
    (void)state;
    int ends[2];
    for (int flags = 0; flags <= O_NONBLOCK; flags += O_NONBLOCK) {
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        fcntl(ends[1], F_SETFL, flags);
        whole_through(ends[0], ends[1], 200);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        fcntl(ends[1], F_SETFL, flags);
        whole_through(ends[0], ends[1], 200);
    }
}

static void test_slow_reader(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct reader r = {.fd = ends[0], .pause_us = 200000, .part = PART};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reader_run, &r), 0);
    assert_int_equal(stile__crash_output_swap(ends[1]), 0);
    close(ends[1]);
    double took = report(200); /* of which the pipe has 16 at once, and the reader 25 in five seconds */
    assert_true(took > 4.5 && took < 60);
    atomic_store(&r.pause_us, 0);
    assert_int_equal(stile__crash_output_swap(-1), 0);
    pthread_join(thread, NULL);
    assert_in_range(r.n, 17 * PART, 199 * PART);
    assert_int_equal(area_size(), 200 * PART);
    close(ends[0]);
}

static bool signal_pending(int signal)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, signal) == 1;
}

static void test_reader_gone(void **state)
{
    (void)state;
    int ends[2], copy = file_make("copy", 0);
    for (int sockets = 0; sockets < 2; sockets++) {
        if (sockets)
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        else
            assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        close(ends[0]);
        stderr_to(ends[1]);
        close(ends[1]);
        assert_int_equal(stile__crash_output_swap(copy), 0);
        assert_true(report(3) < 60);
        assert_false(signal_pending(SIGPIPE));
    }
    assert_int_equal(file_size("copy"), 6 * PART);
    /* One that waited before stays. */
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    stderr_to(ends[1]);
    close(ends[1]);
    raise(SIGPIPE);
    report(1);
    assert_true(signal_pending(SIGPIPE));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    assert_int_equal(sigtimedwait(&set, NULL, &(struct timespec){0}), SIGPIPE);
    close(copy);
}

static void in_small_file(void *arg)
{
    (void)arg;
    int fd = file_make("small", 0), end[2];
    char byte;
    CHILD_CHECK(pipe(end) == 0);
    stderr_to(end[1]);
    struct rlimit limit = {PART + 100, RLIM_INFINITY};
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD_CHECK(stile__crash_output_swap(fd) == 0);
    report(3);
    CHILD_CHECK(file_size("small") == PART + 100);
    CHILD_CHECK(!signal_pending(SIGXFSZ));
    for (unsigned i = 0; i < 3 * PART; i++)
        CHILD_CHECK(read(end[0], &byte, 1) == 1 && byte == part[i % PART]);
}

static void test_small_file(void **state)
{
    (void)state;
    assert_int_equal(in_child(in_small_file, NULL), 0);
}

static void test_no_room(void **state)
{
    (void)state;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC), copy = file_make("copy", 0);
    assert_true(fd >= 0);
    stderr_to(fd);
    assert_int_equal(stile__crash_output_swap(copy), 0);
    assert_true(report(4) < 60);
    assert_int_equal(file_size("copy"), 4 * PART);
    stderr_to(copy); /* the other way round, and an output that cannot be written at all */
    assert_int_equal(stile__crash_output_swap(fd), 0);
    report(1);
    close(fd);
    fd = open(scratch_path("copy"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    report(1);
    assert_int_equal(file_size("copy"), 6 * PART);
    close(fd);
    close(copy);
}

static void test_closed_stderr(void **state)
{
    (void)state;
    int copy = file_make("copy", 0);
    stderr_to(-1);
    assert_int_equal(stile__crash_output_swap(copy), 0);
    report(2);
    stderr_to(kept_stderr);
    assert_int_equal(file_size("copy"), 2 * PART);
    close(copy);
}

static void test_same_file(void **state)
{
    (void)state;
    int fd = file_make("both", 0), other = file_make("both", 0);
    stderr_to(fd);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    report(2);
    assert_int_equal(file_size("both"), 2 * PART);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 2 * PART); /* as any write leaves it */
    assert_int_equal(stile__crash_output_swap(other), 0);
    report(1);
    assert_int_equal(file_size("both"), 3 * PART);
    /* What standard error does not take the crash output does. */
    close(other);
    other = open(scratch_path("both"), O_RDONLY | O_CLOEXEC);
    stderr_to(other);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    report(1);
    assert_int_equal(file_size("both"), 4 * PART);
    close(fd);
    close(other);
}

static void test_write_back(void **state)
{
    (void)state;
    int copy = file_make("copy", 0);
    assert_int_equal(stile__crash_output_swap(copy), 0);
    stile__crash_output_begin(area_region(), true);
    stile__crash_output_write(part, 10);
    stile__crash_output_write_back(part, 20);
    stile__crash_output_end();
    assert_int_equal(area_size(), 10);
    assert_int_equal(file_size("copy"), 30);
    close(copy);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, each_begin, each_end)

int main(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    const struct CMUnitTest tests[] = {
        EACH(test_fork), /* first: before anything has begun */
        EACH(test_duplicates), EACH(test_not_open),      EACH(test_limit),       EACH(test_busy),
        EACH(test_replaced),   EACH(test_full_pipe),     EACH(test_full_socket), EACH(test_full_terminal),
        EACH(test_monitor),    EACH(test_slow_reader),   EACH(test_reader_gone), EACH(test_small_file),
        EACH(test_no_room),    EACH(test_closed_stderr), EACH(test_same_file),   EACH(test_write_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
