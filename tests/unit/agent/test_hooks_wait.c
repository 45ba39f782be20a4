/* agent/hooks_wait.c and hooks_socket.c: our signal breaks nothing off, the program's own do, and what the calls do
 * besides waiting is as without us. */
#include "tests/unit/support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"
#include "tests/unit/agent/waits.h"

static bool really_open(void)
{
    return (stile__raw_sigmask(SIG_BLOCK, 0) & 1ull << (SIGPROF - 1)) == 0;
}

static bool shown_blocked(void)
{
    sigset_t now;
    sigemptyset(&now);
    return pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGPROF) == 1;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sends a thread signals until told to stop. */
struct pelting {
    pthread_t thread;
    uint32_t tid;
    uint64_t id; /* a tick's, or 0 for a plain SIGPROF */
    _Atomic bool over;
};

static void *pelt(void *arg)
{
    struct pelting *p = arg;
    siginfo_t tick;
    memset(&tick, 0, sizeof tick);
    tick.si_signo = SIGPROF;
    tick.si_code = SI_TIMER;
    tick.si_value.sival_ptr = (void *)(uintptr_t)p->id;
    while (!atomic_load(&p->over)) {
        if (p->id == 0)
            syscall(SYS_tgkill, getpid(), p->tid, SIGPROF);
        else
            syscall(SYS_rt_tgsigqueueinfo, getpid(), p->tid, SIGPROF, &tick);
        stile__raw_sleep_ns(1000000);
    }
    return NULL;
}

static void pelt_start(struct pelting *p, uint64_t id)
{
    sigset_t all, before;
    p->tid = stile__raw_gettid();
    p->id = id;
    atomic_store(&p->over, false);
    sigfillset(&all); /* a signal of the test's is for the thread that waits for it */
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &all, &before), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, pelt, p), 0);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

static void pelt_stop(struct pelting *p)
{
    atomic_store(&p->over, true);
    assert_int_equal(pthread_join(p->thread, NULL), 0);
}

static void test_our_signal_breaks_nothing_off(void **state)
{
    struct pelting p;
    (void)state;
    pelt_start(&p, 0);
    for (size_t i = 0; i < n_waits; i++) {
        uint64_t begin = now_ns();
        int err = waits[i].wait();
        if (err != 0 || now_ns() - begin < 59000000)
            fail_msg("%s: %s after %d us", waits[i].name, strerror(err), (int)((now_ns() - begin) / 1000));
        assert_true(really_open() && !shown_blocked());
    }
    pelt_stop(&p);
}

/* What a handler of the program's finds inside of a call. */
static volatile int handled;
static volatile bool found_open, found_shown;

static void on_alarm(int signal)
{
    struct pollfd none = {.fd = -1};
    (void)signal;
    handled++;
    found_open = really_open();
    found_shown = shown_blocked();
    poll(&none, 1, 0); /* a call within the call */
}

/* Again and again, since the first may come before the call. */
static void alarm_set(long us)
{
    struct itimerval t = {.it_value = {0, us}, .it_interval = {0, us}};
    assert_int_equal(setitimer(ITIMER_REAL, &t, NULL), 0);
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    assert_int_equal(sigaction(number, &act, NULL), 0);
}

static void test_the_programs_signals_do(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip(); /* it runs handlers when it likes */
    handle(SIGALRM, on_alarm, SA_RESTART);
    for (size_t i = 0; i < n_waits; i++) {
        found_open = true;
        alarm_set(20000);
        int err = waits[i].wait();
        alarm_set(0);
        if (err != EINTR || found_open || found_shown)
            fail_msg("%s: %s; in the handler: open %d, shown %d", waits[i].name, strerror(err), found_open,
                     found_shown);
        assert_true(really_open() && !shown_blocked() && !stile__thread.wait_blocks);
    }
    handle(SIGALRM, SIG_DFL, 0);
}

/* Those that only a signal ends: ours must not. */
static void test_waiting_for_a_signal(void **state)
{
    struct pelting p;
    sigset_t none, one;
    int number;

    (void)state;
    if (UNDER_TSAN)
        skip();
    sigemptyset(&none);
    one = none;
    sigaddset(&one, SIGALRM);
    handle(SIGALRM, on_alarm, 0);
    pelt_start(&p, 0);
    for (int i = 0; i < 5; i++) {
        handled = 0;
        alarm_set(20000);
        assert_int_equal(pause(), -1);
        assert_true(errno == EINTR && handled == 1);
        assert_int_equal(sigsuspend(&none), -1);
        assert_true(errno == EINTR && handled == 2);
        assert_int_equal(pthread_sigmask(SIG_BLOCK, &one, NULL), 0);
        assert_int_equal(sigsuspend(&none), -1);
        assert_true(errno == EINTR && handled == 3);
        assert_int_equal(sigwaitinfo(&one, NULL), SIGALRM);
        assert_int_equal(sigwait(&one, &number), 0);
        assert_true(number == SIGALRM && handled == 3);
        alarm_set(0);
        assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &one, NULL), 0);
        assert_true(really_open() && !shown_blocked());
    }
    pelt_stop(&p);
    handle(SIGALRM, SIG_DFL, 0);
}

/* Who waits for all signals is not told of ticks, and they are not lost; what somebody sends it is told of. */
static void test_waiting_for_all_signals(void **state)
{
    struct pelting p;
    sigset_t all, before;
    siginfo_t info;

    (void)state;
    if (UNDER_TSAN)
        skip();
    sigfillset(&all);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &all, &before), 0);
    uint64_t signals = atomic_load(&stile__thread.slot->signals), begin = now_ns();
    pelt_start(&p, stile__thread.id);
    assert_int_equal(sigtimedwait(&all, &info, &waits_soon), -1);
    assert_int_equal(errno, EAGAIN);
    pelt_stop(&p);
    assert_true(now_ns() - begin >= 60000000);
    assert_true(atomic_load(&stile__thread.slot->signals) >= signals + 10);

    pelt_start(&p, 0);
    assert_int_equal(sigtimedwait(&all, &info, &waits_soon), SIGPROF);
    assert_int_not_equal(info.si_code, SI_TIMER);
    assert_int_equal(sigwaitinfo(&all, NULL), SIGPROF);
    int number = 0;
    assert_int_equal(sigwait(&all, &number), 0);
    assert_int_equal(number, SIGPROF);
    pelt_stop(&p);
    assert_true(really_open() && shown_blocked());
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

static void test_select_leaves_the_time_that_remains(void **state)
{
    struct timeval t = {0, 2500000}, negative = {0, -1}, none = {0, 0};
    fd_set set;

    (void)state;
    FD_ZERO(&set);
    FD_SET(waits_fds[1], &set);
    assert_int_equal(select(waits_fds[1] + 1, NULL, &set, NULL, &t), 1);
    assert_true(t.tv_sec == 2 && t.tv_usec > 100000 && t.tv_usec <= 500000);
    assert_true(FD_ISSET(waits_fds[1], &set));
    FD_ZERO(&set);
    FD_SET(waits_fds[0], &set);
    t = (struct timeval){0, 30000};
    assert_int_equal(select(waits_fds[0] + 1, &set, NULL, NULL, &t), 0);
    assert_true(t.tv_sec == 0 && t.tv_usec == 0 && !FD_ISSET(waits_fds[0], &set));
    assert_int_equal(select(0, NULL, NULL, NULL, &none), 0);
    assert_int_equal(select(0, NULL, NULL, NULL, &negative), -1);
    assert_int_equal(errno, EINVAL);
    negative = (struct timeval){-1, 0};
    assert_int_equal(select(0, NULL, NULL, NULL, &negative), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(select(-1, NULL, NULL, NULL, &none), -1);
    assert_int_equal(errno, EINVAL);
    assert_true(really_open());
}

static void test_the_programs_mask_is_used(void **state)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    struct epoll_event e;
    sigset_t none, one;

    (void)state;
    if (UNDER_TSAN)
        skip();
    sigemptyset(&none);
    one = none;
    sigaddset(&one, SIGUSR1);
    handle(SIGUSR1, on_alarm, 0);
    for (int kind = 0; kind < 4; kind++) {
        assert_int_equal(pthread_sigmask(SIG_BLOCK, &one, NULL), 0);
        handled = 0;
        raise(SIGUSR1);
        assert_int_equal(poll(&p, 1, 5), 0); /* blocked, and stays so */
        assert_int_equal(handled, 0);
        int n = kind == 0   ? ppoll(&p, 1, &waits_soon, &none)
                : kind == 1 ? pselect(0, NULL, NULL, NULL, &waits_soon, &none)
                : kind == 2 ? epoll_pwait(waits_epoll_fd, &e, 1, 60, &none)
                            : epoll_pwait2(waits_epoll_fd, &e, 1, &waits_soon, &none);
        assert_true(n == -1 && errno == EINTR && handled == 1);
        assert_int_not_equal(stile__raw_sigmask(SIG_BLOCK, 0) & 1ull << (SIGUSR1 - 1), 0);
        assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &one, NULL), 0);
        raise(SIGUSR1);
        assert_int_equal(handled, 2);
        assert_int_equal(ppoll(&p, 1, &waits_soon, &one), 0);
        assert_true(really_open() && !shown_blocked());
    }
    handle(SIGUSR1, SIG_DFL, 0);
}

static void *cancelled(void *way)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    struct timespec hour = {3600, 0};
    sigset_t none;
    char c;

    sigemptyset(&none);
    switch (*(int *)way) {
    case 0:
        poll(&p, 1, -1);
        break;
    case 1:
        nanosleep(&hour, NULL);
        break;
    case 2:
        select(0, NULL, NULL, NULL, NULL);
        break;
    case 3:
        sigsuspend(&none);
        break;
    case 4:
        if (read(waits_fds[0], &c, 1) != 1)
            return NULL;
        break;
    default:
        while (read(waits_timed[0], &c, 1) != 1)
            ;
    }
    return NULL;
}

static void test_cancellation(void **state)
{
    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* they take a stack that was unwound by force for one in use */
    for (int way = 0; way < 6; way++) {
        pthread_t thread;
        void *result = NULL;
        assert_int_equal(pthread_create(&thread, NULL, cancelled, &way), 0);
        stile__raw_sleep_ns(20000000);
        assert_int_equal(pthread_cancel(thread), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_ptr_equal(result, PTHREAD_CANCELED);
    }
}

static sigjmp_buf away;

static void jump(int signal)
{
    (void)signal;
    siglongjmp(away, 1);
}

static void *look(void *to)
{
    *(bool *)to = really_open() && !shown_blocked();
    return NULL;
}

/* The mask may be left as it was in the handler: the program sees that it blocks nothing, threads made then are
 * sampled, and the next wait opens our signal again. */
static void test_a_jump_out_of_a_handler(void **state)
{
    struct timespec hour = {3600, 0};
    pthread_t thread;
    bool open_there = false;
    sigset_t now;

    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* they have a view of their own of stacks that are jumped off */
    handle(SIGALRM, jump, SA_NODEFER);
    for (volatile int kept = 0; kept < 2; kept++) {
        if (sigsetjmp(away, kept) == 0) {
            alarm_set(20000);
            nanosleep(&hour, NULL);
        }
        alarm_set(0);
        assert_int_equal(really_open(), kept);
        assert_false(shown_blocked());
        assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &now), 0);
        assert_false(sigismember(&now, SIGPROF));
        assert_int_equal(pthread_create(&thread, NULL, look, &open_there), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(open_there);
        assert_int_equal(poll(NULL, 0, 1), 0);
        assert_true(really_open() && !shown_blocked());
        uint64_t signals = atomic_load(&stile__thread.slot->signals);
        for (int i = 0; i < 100 && atomic_load(&stile__thread.slot->signals) < signals + 10; i++)
            spin_ns(200000000); /* a busy machine makes one late signal of several */
        assert_true(atomic_load(&stile__thread.slot->signals) >= signals + 10);
    }
    handle(SIGALRM, SIG_DFL, 0);
}

/* What a handler executes inside a call inherits the mask that the program believes in. */
static void on_alarm_exec(int signal)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"grep -q 'SigBlk:.*4......$' /proc/self/status",
                    NULL};
    (void)signal;
    execv("/bin/sh", argv);
}

static void exec_in_handler(void *unused)
{
    struct timespec hour = {3600, 0};
    (void)unused;
    handle(SIGALRM, on_alarm_exec, 0);
    alarm_set(20000);
    nanosleep(&hour, NULL);
}

static void test_exec_in_a_handler(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip();
    int status = in_child(exec_in_handler, NULL);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1); /* SIGPROF, 1 << 26, is not among the blocked */
}

/* Really blocked, and not by us: it stays so. */
static void test_the_mask_is_left_as_found(void **state)
{
    sigset_t none;
    (void)state;
    sigemptyset(&none);
    uint64_t before = stile__raw_sigmask(SIG_BLOCK, 1ull << (SIGPROF - 1));
    assert_int_equal(poll(NULL, 0, 1), 0);
    assert_false(really_open());
    assert_int_equal(usleep(1000), 0);
    assert_false(really_open());
    assert_int_equal(ppoll(NULL, 0, &(struct timespec){0, 1000}, &none), 0);
    assert_false(really_open());
    stile__raw_sigmask(SIG_SETMASK, before);
}

static void test_errors_are_kept(void **state)
{
    struct timespec bad = {0, -1}, past = {0, 0};
    (void)state;
    assert_int_equal(nanosleep(&bad, NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL), EINVAL);
    assert_int_equal(sem_timedwait(&waits_sem, &bad), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(sem_timedwait(&waits_sem, &past), -1);
    assert_int_equal(errno, ETIMEDOUT);
    assert_int_equal(sem_post(&waits_sem), 0);
    assert_int_equal(sem_timedwait(&waits_sem, &bad), -1);
    assert_int_equal(errno, EINVAL);
    errno = 1234;
    assert_int_equal(sem_timedwait(&waits_sem, &past), 0);
    assert_int_equal(poll(NULL, 0, 0), 0);
    assert_int_equal(errno, 1234);
    assert_int_equal(epoll_wait(-1, &(struct epoll_event){0}, 1, 0), -1);
    assert_int_equal(errno, EBADF);
    assert_true(really_open());
}

/* An accepted socket has the timeouts of the one that it was accepted on. */
static void test_accepted_sockets(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    struct timeval t = {0, 60000};
    struct pelting p;
    char c;

    (void)state;
    int on = socket(AF_INET, SOCK_STREAM, 0), from = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(on, (struct sockaddr *)&address, size), 0); /* at any port */
    assert_int_equal(listen(on, 1), 0);
    assert_int_equal(getsockname(on, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(setsockopt(on, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
    assert_int_equal(connect(from, (struct sockaddr *)&address, size), 0);
    int fd = accept(on, NULL, NULL);
    assert_true(fd >= 0);
    pelt_start(&p, 0);
    if (recv(fd, &c, 1, 0) >= 0 || errno == EINTR)
        fail_msg("accepted: %s", strerror(errno));
    pelt_stop(&p);
    close(fd);
    close(from);
    close(on);
}

static int set_up(void **state)
{
    (void)state;
    scratch_make();
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("x.pb"), .hz = 200};
    int err = stile_profile_start(&o);
    if (err == 0) /* whatever this kernel does */
        atomic_store(&stile__session->breaks_waits, true);
    handler_install_raw(SIGPROF, stile__handle_tick);
    return err | waits_make();
}

static int tear_down(void **state)
{
    (void)state;
    waits_remove();
    int err = stile_profile_stop();
    scratch_remove();
    return err;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_our_signal_breaks_nothing_off),
        cmocka_unit_test(test_the_programs_signals_do),
        cmocka_unit_test(test_waiting_for_a_signal),
        cmocka_unit_test(test_waiting_for_all_signals),
        cmocka_unit_test(test_select_leaves_the_time_that_remains),
        cmocka_unit_test(test_the_programs_mask_is_used),
        cmocka_unit_test(test_cancellation),
        cmocka_unit_test(test_a_jump_out_of_a_handler),
        cmocka_unit_test(test_exec_in_a_handler),
        cmocka_unit_test(test_the_mask_is_left_as_found),
        cmocka_unit_test(test_errors_are_kept),
        cmocka_unit_test(test_accepted_sockets),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
