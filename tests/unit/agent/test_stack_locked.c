/* The lock of a stack in a session, held by the thread that ticks: it goes on, every tick is counted, and its stacks are whole
 * again afterwards. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "barriers/stack_lock.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "proto/reader.h"

#define HZ         20000u
#define STORM_NS   50000 /* between two signals of the storm */
#define SECONDS    (getenv("STILE_TEST_LONG") != NULL ? 10u : 2u)
#define STALE_CODE SI_QUEUE

static const char *name_of(struct stile__profile *p, uint64_t location_id)
{
    const Perftools__Profiles__Location *l = p->pb->location[stile__profile_location_index(p, location_id)];
    return l->n_line == 0
               ? ""
               : stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
}

struct sums {
    int64_t all, locked, whole;
};

/* Ticks by what is said of their stacks: whole ones are those of `function` that come from main. */
static struct sums sums_of(const char *path, const char *function)
{
    struct stile__profile *p;
    char err[512];
    struct sums sums = {0, 0, 0};
    if (stile__profile_read(path, &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        bool from_main = false, in_function = false;
        for (size_t k = 0; k < s->n_location_id; k++) {
            from_main |= strcmp(name_of(p, s->location_id[k]), "main") == 0;
            in_function |= strcmp(name_of(p, s->location_id[k]), function) == 0;
        }
        sums.all += s->value[0];
        sums.whole += from_main && in_function ? s->value[0] : 0;
        if (strcmp(name_of(p, s->location_id[s->n_location_id - 1]), "[stack locked]") == 0)
            sums.locked += s->value[0];
    }
    stile__profile_free(p);
    return sums;
}

static __attribute__((noinline)) void spin_afterwards(uint64_t ns)
{
    spin_ns(ns);
    __asm__ volatile("" ::: "memory");
}

/* Beside the thread's own clock: SIGPROF 20000 times a second, as from a clock that has been stopped. */
static struct storm {
    pid_t tid;
    _Atomic bool stop;
    uint64_t sent;
} storm;

static void *storm_run(void *unused)
{
    siginfo_t info = {.si_signo = SIGPROF, .si_code = STALE_CODE};
    struct timespec next;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!atomic_load(&storm.stop)) {
        if (syscall(SYS_rt_tgsigqueueinfo, getpid(), storm.tid, SIGPROF, &info) == 0)
            storm.sent++;
        next.tv_nsec += STORM_NS;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return NULL;
}

static void start(const char *name)
{
    setenv("PROFILE_BARRIERS", "all", 1);
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path(name), .hz = HZ};
    assert_int_equal(stile_profile_start(&o), 0);
    handler_install_raw(SIGPROF, stile__handle_tick);
    assert_non_null(stile__thread.slot);
}

/* On a machine that stands still for seconds nobody waits for the file any longer; it comes nevertheless. */
static void stop(const char *name)
{
    int err = stile_profile_stop();
    assert_true(err == 0 || err == -EPIPE);
    for (int i = 0; i < 6000 && access(scratch_path(name), R_OK) != 0; i++)
        usleep(10000);
}

static void test_storm(void **state)
{
    pthread_t sender;
    (void)state;
    storm.tid = gettid();
    start("storm.pb");
    struct stile__slot *slot = stile__thread.slot;
    assert_int_equal(pthread_create(&sender, NULL, storm_run, NULL), 0);
    spin_afterwards(100000000);
    /* As a holder in normal context does, but with our signal open: ticks come while it is held. */
    stile__stack_lock(&slot->stack_lock, stile__thread.tid);
    uint64_t ticks = atomic_load(&slot->ticks), lost = atomic_load(&slot->lost_ticks);
    uint64_t stale = atomic_load(&stile__thread.region->stale_signals);
    uint64_t signals = atomic_load(&slot->signals);
    struct timespec end, now;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)SECONDS;
    do {
        spin_ns(10000000);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    ticks = atomic_load(&slot->ticks) - ticks;
    lost = atomic_load(&slot->lost_ticks) - lost;
    signals = atomic_load(&slot->signals) - signals;
    stale = atomic_load(&stile__thread.region->stale_signals) - stale;
    assert_int_equal(atomic_load(&slot->stack_lock), stile__thread.tid); /* no handler has taken it */
    stile__stack_unlock(&slot->stack_lock);
    spin_afterwards(300000000);
    stop("storm.pb");
    atomic_store(&storm.stop, true);
    pthread_join(sender, NULL);
    struct sums sums = sums_of(scratch_path("storm.pb"), "spin_afterwards");
    print_message(
        "held for %u s: %lu ticks in %lu signals, %lu lost, %lu signals of the storm; in the profile "
        "%ld locked, %ld whole, %ld in all\n",
        SECONDS, ticks, signals, lost, stale, sums.locked, sums.whole, sums.all);
    assert_true(ticks > 1000 && stale > 1000);
    /* Each of them, but for what found its ring full and what falls between two looks at a counter; and the sum is brought
     * to the thread's clock on its heaviest stack, which is this one. */
    assert_true(sums.locked + (int64_t)lost + 2 >= (int64_t)ticks);
    assert_true(sums.locked <= (int64_t)(ticks + ticks / 50) + 100);
    assert_true(sums.whole > 400 * (int64_t)HZ / 1000 / 2);
}

/* A handler of the program that runs while the lock is held, and leaves by a jump. */
static sigjmp_buf back;

static void jumps_away(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static void test_left_by_a_jump(void **state)
{
    (void)state;
    start("jump.pb");
    struct stile__slot *slot = stile__thread.slot;
    assert_true(signal(SIGUSR1, jumps_away) != SIG_ERR);
    for (volatile int i = 0; i < 20; i++) {
        if (sigsetjmp(back, 1) == 0) {
            stile__stack_lock(&slot->stack_lock, stile__thread.tid);
            raise(SIGUSR1);
            fail();
        }
        assert_int_equal(atomic_load(&slot->stack_lock), stile__thread.tid);
        if (i % 2 == 0)
            spin_ns(10000000); /* ticks find it locked */
        uint64_t begun = thread_cpu_ns();
        stile__stack_lock(&slot->stack_lock, stile__thread.tid); /* as whatever of ours comes next */
        assert_true(thread_cpu_ns() - begun < 400000000);        /* at once, not after it has been given up */
        stile__stack_unlock(&slot->stack_lock);
        assert_int_equal(atomic_load(&slot->stack_lock), 0);
        spin_afterwards(10000000);
    }
    /* Left for good: a fork and the session's end take it over, too. */
    if (sigsetjmp(back, 1) == 0) {
        stile__stack_lock(&slot->stack_lock, stile__thread.tid);
        raise(SIGUSR1);
    }
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    assert_true(pid > 0);
    assert_int_equal(atomic_load(&slot->stack_lock), 0);
    spin_afterwards(200000000);
    stop("jump.pb");
    struct sums sums = sums_of(scratch_path("jump.pb"), "spin_afterwards");
    assert_true(sums.locked > 100);
    assert_true(sums.whole > 300 * (int64_t)HZ / 1000 / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_left_by_a_jump),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
