/* agent/clock.c and clock_perf.c: ticks for the CPU time of one thread, carrying what was asked for; who gets which
 * clock; and what a thread leaves to the next one. */
#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/clock.h"
#include "profiler/agent/region_make.h"

#define ID    0x1234567800000000ull /* of slot 0 */
#define OTHER (ID | 1)

static struct stile__session session;
static struct stile__region *region;
static int region_fd;

static _Atomic uint64_t signals, weight, perf_signals, strangers;
static _Atomic int thread_expected;

static int tid_now(void)
{
    return (int)syscall(SYS_gettid);
}

__attribute__((no_sanitize("thread"))) static void on_tick(int signal, siginfo_t *info, void *context)
{
    uint64_t id = (uintptr_t)info->si_value.sival_ptr;
    (void)signal;
    (void)context;
    if (tid_now() != thread_expected) {
        strangers++;
    } else if (info->si_code == POLL_IN && info->si_fd == session.clocks[0].perf_fd) {
        perf_signals++;
    } else if (info->si_code == SI_TIMER && (id == ID || id == OTHER || id == STILE__PROCESS_TICK)) {
        signals++;
        weight += 1 + (uint64_t)info->si_overrun;
    } else {
        strangers++;
    }
}

static void fresh(int tid)
{
    signals = weight = perf_signals = strangers = 0;
    thread_expected = tid;
    handler_install_raw(SIGPROF, on_tick);
}

/* A session with a region and no thread in it. */
static void begin(uint64_t period_ns, bool use_perf, bool may_perf)
{
    int error;
    assert_int_equal(stile__region_make(&region, &region_fd, 100, false, false), 0);
    memset(&session, 0, sizeof session);
    stile__session_size_set(&session, region->size);
    session.period_ns = period_ns;
    session.signal = SIGPROF;
    assert_int_equal(stile__clocks_open(&session, may_perf, &error), 0);
    assert_int_equal(error, 0);
    assert_true(session.tick_ns >= 1000000 && session.tick_ns <= 10000000);
    session.use_perf = use_perf;
}

static void end(void)
{
    stile__clocks_close(&session);
    stile__region_unmake(region);
    close(region_fd);
}

/* Populates slot i and starts its clock, with all of the thread's time from now on to be accounted for. */
static enum stile__clock_kind start_in(uint32_t i, uint32_t tid, bool own)
{
    struct stile__slot *slot = stile__region_slot(region, i);
    slot->base_cpu_ns = stile__clock_read(tid, own);
    stile__clock_start(&session, region, i, tid, own, ID | i);
    assert_int_equal(slot->clock_kind, session.clocks[i].kind);
    return slot->clock_kind;
}

static enum stile__clock_kind start(void)
{
    return start_in(0, (uint32_t)tid_now(), true);
}

static void stop(void)
{
    stile__clock_stop(&session.clocks[0]);
    stile__clock_stop(&session.clocks[0]); /* once more does nothing */
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
    for (uint64_t before = weight, last = thread_cpu_ns() + 2000000000;
         weight == before && thread_cpu_ns() < last;)
        ;
}

static void own_thread(uint64_t period_ns)
{
    begin(period_ns, false, false);
    fresh(tid_now());
    uint64_t from = thread_cpu_ns();
    assert_int_equal(start(), STILE__CLOCK_TIMER);
    spin_ns(1000000000);
    spin_to_tick();
    stop();
    uint64_t used = thread_cpu_ns() - from;
    assert_int_equal(strangers, 0);
    near(weight * period_ns, used, period_ns);
    end();
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
    atomic_store(&other_tid, tid_now());
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
    begin(10000000, false, false);
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    while (atomic_load(&other_tid) == 0)
        usleep(1000);
    fresh(other_tid);
    assert_int_equal(start_in(0, (uint32_t)other_tid, false), STILE__CLOCK_TIMER);
    atomic_store(&other_go, 1);
    spin_ns(100000000); /* our own time is not counted */
    pthread_join(thread, NULL);
    stop();
    assert_int_equal(strangers, 0);
    near(weight * 10000000, other_used, 10000000);
    end();
}

static void test_stop(void **state)
{
    (void)state;
    begin(5000000, false, false);
    fresh(tid_now());
    start();
    spin_ns(50000000);
    stop();
    uint64_t before = signals;
    spin_ns(100000000);
    assert_true(before > 0);
    assert_true(signals <= before + 1); /* one may have been on its way */
    end();
}

static void test_first_expiry_is_spread(void **state)
{
    const uint64_t period = 1000000000;
    uint64_t least = UINT64_MAX, most = 0;

    (void)state;
    begin(period, false, false);
    fresh(tid_now());
    for (int i = 0; i < 200; i++) {
        struct itimerspec left;
        assert_int_equal(start(), STILE__CLOCK_TIMER);
        assert_int_equal(syscall(SYS_timer_gettime, session.clocks[0].timer_id, &left), 0);
        stop();
        struct stile__slot *slot = stile__region_slot(region, 0);
        uint64_t first = slot->first_due_ns - slot->base_cpu_ns;
        assert_int_equal(left.it_interval.tv_sec, 1);
        assert_int_equal(left.it_interval.tv_nsec, 0);
        assert_true(first > 0 && first <= period);
        least = first < least ? first : least;
        most = first > most ? first : most;
    }
    assert_true(least < period / 4 && most > period / 4 * 3);
    end();
}

static void test_no_such_thread(void **state)
{
    (void)state;
    begin(1000000, false, false);
    start_in(0, 0x3ffffff0, false);
    assert_true(session.clocks[0].kind == STILE__CLOCK_PROCESS ||
                session.clocks[0].kind == STILE__CLOCK_NONE);
    assert_int_equal(atomic_load(&region->timer_error), EINVAL);
    end();
}

/* --- perf */

static bool perf_is_there(void)
{
    begin(100000, true, true);
    fresh(tid_now());
    bool there = start() == STILE__CLOCK_PERF;
    stop();
    end();
    return there;
}

static void test_perf_beyond_the_tick_rate(void **state)
{
    const uint64_t period = 250000;
    (void)state;
    if (!perf_is_there())
        skip(); /* kernel.perf_event_paranoid, a container: the ladder's other tests still hold */
    unsigned descriptors = count_descriptors(), maps = count_map_lines();
    begin(period, true, true);
    fresh(tid_now());
    assert_int_equal(start(), STILE__CLOCK_PERF);
    assert_int_equal(count_descriptors(), descriptors + 1); /* the region's */
    uint64_t from = thread_cpu_ns();
    spin_ns(1000000000);
    uint64_t used = thread_cpu_ns() - from;
    stop();
    assert_int_equal(strangers, 0);
    assert_true(signals > 0); /* the timer beside it */
    assert_true(signals <= used / session.tick_ns + 2);
    /* One each period of user time, and not four a tick: what is missing was in the kernel or taken from the machine. */
    assert_true(perf_signals > used / period / 2);
    uint64_t before = perf_signals;
    spin_ns(50000000);
    assert_true(perf_signals <= before + 1);
    end();
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(count_map_lines(), maps);
}

static void test_perf_survives_the_end_of_all_descriptors(void **state)
{
    (void)state;
    if (!perf_is_there())
        skip();
    begin(1000000, true, true);
    fresh(tid_now());
    assert_int_equal(start(), STILE__CLOCK_PERF);
    int opened = dup(1); /* takes the number that the event's descriptor had */
    assert_int_equal(opened, session.clocks[0].perf_fd);
    spin_ns(100000000);
    assert_true(perf_signals > 0);
    stop();
    assert_int_equal(fcntl(opened, F_GETFD), 0); /* still there: it is not ours to close */
    close(opened);
    end();
}

static void test_no_descriptor_to_be_had(void **state)
{
    struct rlimit limit, none;
    (void)state;
    begin(1000000, true, true);
    fresh(tid_now());
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum stile__clock_kind kind = start();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(kind, STILE__CLOCK_TIMER);
    assert_int_equal(atomic_load(&region->perf_error), EMFILE);
    spin_ns(100000000);
    spin_to_tick();
    assert_true(weight >= 50);
    stop();
    end();
}

/* --- Timers run out */

static void without_timers(void *perf)
{
    struct rlimit none = {0, 0};
    bool with_perf = *(bool *)perf;
    begin(1000000, false, with_perf);
    fresh(tid_now());
    CHILD_CHECK(session.process_timer >= 0);
    CHILD_CHECK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
    enum stile__clock_kind kind = start();
    CHILD_CHECK(kind == (with_perf ? STILE__CLOCK_PERF_ALONE : STILE__CLOCK_PROCESS));
    CHILD_CHECK(atomic_load(&region->timer_error) == EAGAIN);
    spin_ns(200000000);
    CHILD_CHECK(strangers == 0);
    CHILD_CHECK(with_perf ? perf_signals > 50 : weight > 100);
    stop();
    end();
}

static void test_no_timer_to_be_had(void **state)
{
    bool perf = false;
    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* the objects of a forked child */
    assert_int_equal(in_child(without_timers, &perf), 0);
    perf = perf_is_there();
    if (perf)
        assert_int_equal(in_child(without_timers, &perf), 0);
}

static void without_anything(void *unused)
{
    struct rlimit none = {0, 0};
    (void)unused;
    CHILD_CHECK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
    begin(1000000, false, false);
    CHILD_CHECK(session.process_timer == -EAGAIN);
    CHILD_CHECK(start() == STILE__CLOCK_NONE);
    CHILD_CHECK(atomic_load(&region->clocks[STILE__CLOCK_NONE]) == 1);
    stop();
    end();
}

static void test_no_clock_at_all(void **state)
{
    (void)state;
    if (UNDER_SANITIZER)
        skip();
    assert_int_equal(in_child(without_anything, NULL), 0);
}

/* --- Short threads add up */

/* Lives one after the other, each as the agent would account for it; returns the ticks that were due. */
static uint64_t lives(unsigned n, uint64_t least_ns, uint64_t most_ns, uint64_t *all_ns, unsigned *positions)
{
    struct stile__slot *slot = stile__region_slot(region, 0);
    uint64_t numbers = 7, ticks = 0;
    *all_ns = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t life = least_ns + next_number(&numbers) % (most_ns - least_ns + 1);
        atomic_store(&slot->ticks, 0);
        start();
        slot->first_due_ns -= slot->base_cpu_ns; /* as if its clock had begun at zero */
        slot->base_cpu_ns = 0;
        int64_t due = stile__clock_missed(slot, life, session.period_ns);
        assert_true(due >= 0);
        if (due > 0)
            positions[slot->first_due_ns * 10 / (life + 1)]++;
        atomic_store(&slot->ticks, (uint64_t)due);
        stop();
        stile__clock_carry(&session, slot, &session.clocks[0], life);
        *all_ns += life;
        ticks += (uint64_t)due;
    }
    return ticks;
}

static void test_short_threads_add_up(void **state)
{
    const uint64_t period = 10000000;
    unsigned positions[10] = {0}, least = UINT32_MAX, most = 0;
    uint64_t all;

    (void)state;
    begin(period, false, false);
    fresh(tid_now());
    uint64_t ticks = lives(10000, 900000, 1100000, &all, positions);
    /* Not within the spread of as many independent chances, 300 ms, but within a period. */
    assert_true(ticks * period < all + period && ticks * period > all - period);
    for (int i = 0; i < 10; i++) {
        least = positions[i] < least ? positions[i] : least;
        most = positions[i] > most ? positions[i] : most;
    }
    assert_true(least > 60 && most < 140); /* 100 each, 10 apart: anywhere in a life is as likely */
    end();
}

static void test_long_threads_hand_on_what_they_were_given(void **state)
{
    struct stile__slot *slot;
    (void)state;
    begin(1000000, false, false);
    fresh(tid_now());
    atomic_store(&session.carry[5], 250000);
    slot = stile__region_slot(region, 0);
    start();
    assert_int_equal(session.clocks[0].carry_ns, 250000);
    assert_int_equal(atomic_load(&session.carry[5]), 0);
    assert_true(slot->first_due_ns - slot->base_cpu_ns > 250000); /* that much is paid for */
    stop();
    atomic_store(&slot->ticks, 3);
    stile__clock_carry(&session, slot, &session.clocks[0], slot->base_cpu_ns + 16000000);
    assert_int_equal(atomic_load(&session.carry[0]), 250000);
    start();
    stop();
    atomic_store(&slot->ticks, 3);
    stile__clock_carry(&session, slot, &session.clocks[0], slot->base_cpu_ns + 3500000);
    assert_int_equal(atomic_load(&session.carry[0]), -250000);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_below_the_tick_rate),
        cmocka_unit_test(test_overruns_make_up_for_the_tick),
        cmocka_unit_test(test_another_thread),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_first_expiry_is_spread),
        cmocka_unit_test(test_no_such_thread),
        cmocka_unit_test(test_perf_beyond_the_tick_rate),
        cmocka_unit_test(test_perf_survives_the_end_of_all_descriptors),
        cmocka_unit_test(test_no_descriptor_to_be_had),
        cmocka_unit_test(test_no_timer_to_be_had),
        cmocka_unit_test(test_no_clock_at_all),
        cmocka_unit_test(test_short_threads_add_up),
        cmocka_unit_test(test_long_threads_hand_on_what_they_were_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
