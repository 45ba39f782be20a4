/* agent/clock.c: ticks for the CPU time of one thread, carrying what was asked for. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/threads.h"

#define ID 0x123456789abcdef0ull

static uint64_t first_due; /* CPU time at which the last clock started is due */

static _Atomic uint64_t signals, weight, strangers;
static _Atomic int thread_expected;

__attribute__((no_sanitize("thread"))) static void on_tick(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (info->si_code != SI_TIMER || (uintptr_t)info->si_value.sival_ptr != ID ||
        syscall(SYS_gettid) != thread_expected) {
        strangers++;
        return;
    }
    signals++;
    weight += 1 + (uint64_t)info->si_overrun;
}

static void fresh(int tid)
{
    signals = weight = strangers = 0;
    thread_expected = tid;
    handler_install_raw(SIGPROF, on_tick);
}

/* Two per cent would do on a quiet machine; the first expiry adds up to one period. */
static void near(uint64_t counted_ns, uint64_t cpu_ns, uint64_t period_ns)
{
    uint64_t off = counted_ns > cpu_ns ? counted_ns - cpu_ns : cpu_ns - counted_ns;
    if (off > cpu_ns / 20 + 2 * period_ns)
        fail_msg("%llu ns counted for %llu ns of CPU time", (unsigned long long)counted_ns,
                 (unsigned long long)cpu_ns);
}

/* Spins until a tick has just been taken: what is due by then has been delivered. Two seconds at most. */
static void spin_to_tick(void)
{
    for (uint64_t before = weight, end = thread_cpu_ns() + 2000000000;
         weight == before && thread_cpu_ns() < end;)
        ;
}

static void own_thread(uint64_t period_ns)
{
    fresh(gettid());
    uint64_t from = thread_cpu_ns();
    int timer = stile__clock_start((uint32_t)gettid(), true, SIGPROF, ID, period_ns, &first_due);
    assert_true(timer >= 0);
    spin_ns(1000000000);
    spin_to_tick();
    stile__clock_stop(timer);
    uint64_t used = thread_cpu_ns() - from;
    assert_int_equal(strangers, 0);
    near(weight * period_ns, used, period_ns);
}

static void test_below_the_tick_rate(void **state)
{
    (void)state;
    own_thread(20000000); /* below every kernel's tick rate: overruns only where the machine stood still */
    assert_true(signals >= 5 && signals <= weight);
}

static void test_overruns_make_up_for_the_tick(void **state)
{
    (void)state;
    own_thread(200000);
    assert_true(signals <= weight);
}

static _Atomic int other_tid, other_go;
static uint64_t other_used;

static void *other_thread(void *unused)
{
    (void)unused;
    atomic_store(&other_tid, gettid());
    while (!atomic_load(&other_go))
        usleep(1000);
    uint64_t from = thread_cpu_ns();
    spin_ns(500000000);
    spin_to_tick();
    other_used = thread_cpu_ns() - from;
    return NULL;
}

static void test_another_thread(void **state)
{
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    while (atomic_load(&other_tid) == 0)
        usleep(1000);
    fresh(other_tid);
    int timer = stile__clock_start((uint32_t)other_tid, false, SIGPROF, ID, 10000000, &first_due);
    atomic_store(&other_go, 1);
    spin_ns(100000000); /* our own time is not counted */
    pthread_join(thread, NULL);
    stile__clock_stop(timer);
    assert_true(timer >= 0);
    assert_int_equal(strangers, 0);
    near(weight * 10000000, other_used, 10000000);
}

static void test_stop(void **state)
{
    (void)state;
    fresh(gettid());
    int timer = stile__clock_start((uint32_t)gettid(), true, SIGPROF, ID, 5000000, &first_due);
    spin_ns(50000000);
    stile__clock_stop(timer);
    uint64_t before = signals;
    spin_ns(100000000);
    assert_true(before > 0);
    assert_true(signals <= before + 1); /* one may have been on its way */
}

static void test_first_expiry_is_spread(void **state)
{
    const uint64_t period = 1000000000;
    uint64_t least = UINT64_MAX, most = 0;

    (void)state;
    for (int i = 0; i < 200; i++) {
        struct itimerspec left;
        int timer = stile__clock_start((uint32_t)gettid(), true, SIGPROF, ID, period, &first_due);
        assert_true(timer >= 0);
        assert_int_equal(syscall(SYS_timer_gettime, timer, &left), 0);
        stile__clock_stop(timer);
        uint64_t first = (uint64_t)left.it_value.tv_sec * 1000000000u + (uint64_t)left.it_value.tv_nsec;
        assert_int_equal(left.it_interval.tv_sec, 1);
        assert_int_equal(left.it_interval.tv_nsec, 0);
        assert_true(first > 0 && first <= period);
        least = first < least ? first : least;
        most = first > most ? first : most;
    }
    assert_true(least < period / 4 && most > period / 4 * 3);
}

static void test_no_such_thread(void **state)
{
    (void)state;
    assert_true(stile__clock_start(0x3ffffff0, false, SIGPROF, ID, 1000000, &first_due) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_below_the_tick_rate),    cmocka_unit_test(test_overruns_make_up_for_the_tick),
        cmocka_unit_test(test_another_thread),         cmocka_unit_test(test_stop),
        cmocka_unit_test(test_first_expiry_is_spread), cmocka_unit_test(test_no_such_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
