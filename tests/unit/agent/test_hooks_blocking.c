/* agent/hooks_wait.c, hooks_socket.c and hooks_process.c: what waits is told once, by the hook that was called; what may wait
 * is measured first; and what cannot is left alone. */
#include "tests/unit/support.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/agent/fake_blocking.h"

int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
ssize_t __read_chk(int fd, void *to, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *to, size_t size, size_t room, int flags);

#define MS20 20000000L
static const struct timespec brief = {0, MS20}, at_once;
static int fds[2], pair[2], epoll_fd;
static sem_t sem;
static char byte;

static struct timespec soon(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += MS20;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* A child that ends by itself, after 20 ms, without an end of ours. */
static pid_t child(void)
{
    pid_t pid = (pid_t)syscall(SYS_fork);
    if (pid == 0) {
        syscall(SYS_nanosleep, &brief, NULL);
        syscall(SYS_exit_group, 0);
    }
    return pid;
}

/* What another thread writes after 20 ms. */
static int feed(void *fd)
{
    syscall(SYS_nanosleep, &brief, NULL);
    return (int)syscall(SYS_write, (int)(intptr_t)fd, "x", 1) - 1;
}

/* The value of a call that waits for that. */
#define FED(fd, call)                                                                                        \
    ({                                                                                                       \
        thrd_t feeder;                                                                                       \
        assert_int_equal(thrd_create(&feeder, feed, (void *)(intptr_t)(fd)), thrd_success);                  \
        long got_ = (call);                                                                                  \
        thrd_detach(feeder);                                                                                 \
        got_;                                                                                                \
    })

#define CASE(name, expr)                                                                                     \
    static long do_##name(void)                                                                              \
    {                                                                                                        \
        struct timespec real = soon(CLOCK_REALTIME), mono = soon(CLOCK_MONOTONIC);                           \
        struct pollfd p = {.fd = fds[0], .events = POLLIN};                                                  \
        struct epoll_event event;                                                                            \
        struct timeval tv = {0, MS20 / 1000};                                                                \
        struct iovec v = {&byte, 1};                                                                         \
        struct msghdr message = {.msg_iov = &v, .msg_iovlen = 1};                                            \
        siginfo_t info;                                                                                      \
        sigset_t usr;                                                                                        \
        sigemptyset(&usr);                                                                                   \
        sigaddset(&usr, SIGUSR1);                                                                            \
        (void)real, (void)mono, (void)p, (void)event, (void)tv, (void)message, (void)info, (void)usr;        \
        return expr;                                                                                         \
    }
CASE(nanosleep, nanosleep(&brief, NULL))
CASE(clock_nanosleep, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &mono, NULL))
CASE(usleep, usleep(MS20 / 1000))
CASE(thrd_sleep, thrd_sleep(&brief, NULL))
CASE(sem_timedwait, sem_timedwait(&sem, &real))
CASE(sem_clockwait, sem_clockwait(&sem, CLOCK_MONOTONIC, &mono))
CASE(waitpid, waitpid(child(), NULL, 0) < 0)
CASE(wait4, wait4(child(), NULL, 0, NULL) < 0)
CASE(wait, child() != wait(NULL))
CASE(waitid, waitid(P_PID, (id_t)child(), &info, WEXITED))
CASE(poll, poll(&p, 1, 20))
CASE(ppoll, ppoll(&p, 1, &brief, NULL))
CASE(__poll_chk, __poll_chk(&p, 1, 20, sizeof p))
CASE(select, select(0, NULL, NULL, NULL, &tv))
CASE(pselect, pselect(0, NULL, NULL, NULL, &brief, NULL))
CASE(epoll_wait, epoll_wait(epoll_fd, &event, 1, 20))
CASE(epoll_pwait, epoll_pwait(epoll_fd, &event, 1, 20, NULL))
CASE(sigtimedwait, sigtimedwait(&usr, &info, &brief))
CASE(read, FED(fds[1], read(fds[0], &byte, 1)))
CASE(readv, FED(fds[1], readv(fds[0], &v, 1)))
CASE(__read_chk, FED(fds[1], __read_chk(fds[0], &byte, 1, 1)))
CASE(recv, FED(pair[1], recv(pair[0], &byte, 1, 0)))
CASE(__recv_chk, FED(pair[1], __recv_chk(pair[0], &byte, 1, 1, 0)))
CASE(recvfrom, FED(pair[1], recvfrom(pair[0], &byte, 1, 0, NULL, NULL)))
CASE(recvmsg, FED(pair[1], recvmsg(pair[0], &message, 0)))

#define SURELY(name, reason, value, err)                                                                     \
    {                                                                                                        \
#        name, do_##name, STILE__WAIT_##reason, (const void *)(name), true, value, err                       \
    }
#define PERHAPS(name, reason, value, err)                                                                    \
    {                                                                                                        \
#        name, do_##name, STILE__WAIT_##reason, (const void *)(name), false, value, err                      \
    }
static const struct {
    const char *name;
    long (*call)(void);
    enum stile__wait_reason why;
    const void *hook;
    bool surely;
    long value;
    int err;
} cases[] = {
    SURELY(nanosleep, SLEEP, 0, 0),
    SURELY(clock_nanosleep, SLEEP, 0, 0),
    SURELY(usleep, SLEEP, 0, 0),
    SURELY(thrd_sleep, SLEEP, 0, 0),
    SURELY(sem_timedwait, SEMAPHORE, -1, ETIMEDOUT),
    SURELY(sem_clockwait, SEMAPHORE, -1, ETIMEDOUT),
    SURELY(waitpid, CHILD, 0, 0),
    SURELY(wait4, CHILD, 0, 0),
    SURELY(wait, CHILD, 0, 0),
    SURELY(waitid, CHILD, 0, 0),
    PERHAPS(poll, POLL, 0, 0),
    PERHAPS(ppoll, POLL, 0, 0),
    PERHAPS(__poll_chk, POLL, 0, 0),
    PERHAPS(select, SELECT, 0, 0),
    PERHAPS(pselect, SELECT, 0, 0),
    PERHAPS(epoll_wait, EPOLL, 0, 0),
    PERHAPS(epoll_pwait, EPOLL, 0, 0),
    PERHAPS(sigtimedwait, SIGNAL, -1, EAGAIN),
    PERHAPS(read, READ, 1, 0),
    PERHAPS(readv, READ, 1, 0),
    PERHAPS(__read_chk, READ, 1, 0),
    PERHAPS(recv, RECV, 1, 0),
    PERHAPS(__recv_chk, RECV, 1, 0),
    PERHAPS(recvfrom, RECV, 1, 0),
    PERHAPS(recvmsg, RECV, 1, 0),
};

static void expect(size_t i, enum told what, unsigned n)
{
    if (fake_told(what) != n || fake_told_of(what, cases[i].why, cases[i].hook) != n)
        fail_msg("%s: %d told %u times, %u as expected", cases[i].name, (int)what, fake_told(what),
                 fake_told_of(what, cases[i].why, cases[i].hook));
}

static void call(size_t i)
{
    errno = 0;
    long value = cases[i].call();
    if (value != cases[i].value || errno != cases[i].err)
        fail_msg("%s: %ld, %s", cases[i].name, value, strerror(errno));
}

static void test_waits_are_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool surely = cases[i].surely;
        fake_record(true);
        call(i);
        expect(i, BEGUN, surely ? 1 : 0);
        expect(i, ENDED, surely ? 1 : 0);
        expect(i, MEASURED, surely ? 0 : 1);
        call(i); /* now it is known to wait */
        expect(i, BEGUN, surely ? 2 : 1);
        expect(i, ENDED, surely ? 2 : 0);
        expect(i, CHECKED, surely ? 0 : 1);
        expect(i, MEASURED, surely ? 0 : 1);
        fake_record(false);
        call(i);
        for (int what = 0; what < TOLD; what++)
            assert_int_equal(fake_told((enum told)what), 0);
    }
}

/* Neither begun, though such calls are known to wait, nor measured. */
static void test_what_cannot_wait_is_left_alone(void **state)
{
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    struct epoll_event event;
    struct timeval none = {0, 0};
    (void)state;
    fake_record(true);
    call(10); /* poll: all that may wait is thought to, from now on */
    assert_int_equal(fake_told(MEASURED), 1);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(ppoll(&p, 1, &at_once, NULL), 0);
    assert_int_equal(select(0, NULL, NULL, NULL, &none), 0);
    assert_int_equal(pselect(0, NULL, NULL, NULL, &at_once, NULL), 0);
    assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
    assert_int_equal(recv(pair[0], &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(sem_post(&sem), 0);
    struct timespec real = soon(CLOCK_REALTIME);
    assert_int_equal(sem_timedwait(&sem, &real), 0);
    assert_int_equal(fake_told(BEGUN), 0);
    assert_int_equal(fake_told(MEASURED), 1);
    fake_record(false);
}

static int set_up(void **state)
{
    (void)state;
    struct epoll_event event = {.events = EPOLLIN};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return pipe(fds) | socketpair(AF_UNIX, SOCK_STREAM, 0, pair) | sem_init(&sem, 0, 0) |
           epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[0], &event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_are_told),
        cmocka_unit_test(test_what_cannot_wait_is_left_alone),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
