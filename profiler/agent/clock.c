/* The clocks of threads. Normal context. Raw system calls for timers, since libc's timer_t is not the kernel's.
 *
 * The ladder, for each thread:
 *   perf and a timer    above the kernel's tick rate, or when asked for. perf ticks in user mode only; the timer, at
 *                       the kernel's tick, takes what is due beyond that: time in the kernel.
 *   a timer             at or below the tick rate, or where perf is not to be had. Beyond the tick rate the kernel
 *                       counts overruns, so the weight is right and the places are fewer.
 *   perf alone          where there is no timer (RLIMIT_SIGPENDING).
 *   the process's timer one for all that have neither; made when the session starts, for then there may still be one.
 *   none                its time is told at the end.
 * (A process-wide setitimer would need no resource at all, but it survives exec, and kills what has no handler.) */
#include "profiler/agent/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>

#include "profiler/agent/clock_perf.h"
#include "profiler/region/raw_syscall.h"

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* Uniform in (0, range]. */
static uint64_t random_below(uint64_t range)
{
    uint64_t random = 0;
    if (stile__raw_syscall(SYS_getrandom, (long)&random, sizeof random, GRND_NONBLOCK, 0) != sizeof random) {
        random = stile__clock_now(CLOCK_MONOTONIC) *
                 0x9e3779b97f4a7c15ull; /* golden-ratio multiplicative hash, Knuth 6.4 */
        random ^= random >> 32;
    }
    return random % range + 1;
}

/* Stratified sampling over threads. Laid end to end, the CPU times of short threads make one long line, cut in periods;
 * each period has one tick, at a random place in it. A thread that ends in the middle of a period leaves behind by how
 * much its ticks exceed its time: positive if the period's tick is taken (and the rest of it is paid for), else
 * negative (that much went by without). The next thread goes on from there. So ten thousand threads of a tenth of a
 * period add up to a thousand ticks, not to a thousand give or take thirty; and each place is as likely as before. */
static int64_t carry_take(struct stile__session *s)
{
    for (unsigned i = 0; i < STILE__CARRIES; i++) {
        if (atomic_load_explicit(&s->carry[i], memory_order_relaxed) == 0)
            continue;
        int64_t carry = atomic_exchange_explicit(&s->carry[i], 0, memory_order_relaxed);
        if (carry != 0)
            return carry;
    }
    return 0;
}

static void carry_leave(struct stile__session *s, int64_t carry)
{
    for (unsigned i = 0; i < STILE__CARRIES && carry != 0; i++) {
        int64_t none = 0;
        if (atomic_compare_exchange_strong_explicit(&s->carry[i], &none, carry, memory_order_relaxed,
                                                    memory_order_relaxed))
            return;
    }
}

/* When the first tick is due. With a fixed first expiry, threads shorter than a period would never be seen. */
static uint64_t first_expiry(int64_t carry, uint64_t period_ns)
{
    int64_t period = (int64_t)period_ns;
    if (carry > 0)
        return (uint64_t)carry + random_below(period_ns);
    return carry > -period ? random_below((uint64_t)(period + carry)) : 1;
}

void stile__clock_carry(struct stile__session *s, const struct stile__slot *slot,
                        const struct stile__clock *c, uint64_t cpu_ns)
{
    int64_t used = (int64_t)(cpu_ns - slot->base_cpu_ns);
    int64_t period = (int64_t)s->period_ns;
    int64_t taken = (int64_t)atomic_load_explicit(&slot->ticks, memory_order_relaxed) * period;
    /* The collector brings a long thread to its own clock, so that it hands on what it was given. */
    int64_t carry = used >= period * STILE__EXACT_PERIODS ? c->carry_ns : c->carry_ns + taken - used;
    if (carry > -period && carry < period)
        carry_leave(s, carry);
}

static int timer_make(int clock, const struct sigevent *event)
{
    int timer_id = -1;
    long err = stile__raw_syscall(SYS_timer_create, clock, (long)event, (long)&timer_id, 0);
    return err != 0 ? (int)err : timer_id;
}

static long timer_arm(int timer_id, int flags, uint64_t first_ns, uint64_t period_ns)
{
    struct itimerspec spec = {.it_value = timespec_of(first_ns), .it_interval = timespec_of(period_ns)};
    return stile__raw_syscall(SYS_timer_settime, timer_id, flags, (long)&spec, 0);
}

static void timer_delete_raw(int timer_id)
{
    stile__raw_syscall(SYS_timer_delete, timer_id, 0, 0, 0);
}

static int thread_timer_make(uint32_t tid, bool own, int signal, uint64_t id)
{
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = (void *)(uintptr_t)id;
    event._sigev_un._tid = (pid_t)tid;
    return timer_make(own ? CLOCK_THREAD_CPUTIME_ID : stile__clock_of_thread(tid), &event);
}

/* Whether the kernel is so new that it runs CPU timers on the way out to the program, never in the middle of a call
 * (CONFIG_POSIX_CPU_TIMERS_TASK_WORK, which x86-64 has had since 5.10). */
static bool timers_wait_for_the_way_out(void)
{
    struct utsname name;
    unsigned major = 0, minor = 0;
    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
           (major > 5 || (major == 5 && minor >= 10));
}

int stile__clocks_open(struct stile__session *s, bool perf, int *perf_error)
{
    struct sigevent event;
    struct timespec tick;

    /* What the kernel counts coarse time by is its tick. */
    s->tick_ns = clock_getres(CLOCK_MONOTONIC_COARSE, &tick) == 0 && tick.tv_nsec != 0
                     ? (uint64_t)tick.tv_nsec
                     : 10000000;
    *perf_error = perf ? stile__clock_perf_check((unsigned)(1000000000u / s->period_ns), s->signal) : 0;
    s->may_perf = perf && *perf_error == 0;
    void *clocks = mmap(NULL, s->size.slot_max * sizeof *s->clocks, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (clocks == MAP_FAILED)
        return -errno;
    madvise(clocks, s->size.slot_max * sizeof *s->clocks, MADV_DONTFORK);
    s->clocks = clocks;
    for (unsigned i = 0; i < STILE__CARRIES; i++)
        atomic_store_explicit(&s->carry[i], 0, memory_order_relaxed);
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = s->signal;
    event.sigev_value.sival_ptr = (void *)(uintptr_t)STILE__PROCESS_TICK;
    s->process_timer = timer_make(CLOCK_PROCESS_CPUTIME_ID, &event);
    atomic_store_explicit(&s->breaks_waits, !timers_wait_for_the_way_out(), memory_order_relaxed);
    atomic_store_explicit(&s->process_timer_runs, false, memory_order_relaxed);
    return 0;
}

void stile__clock_process_stop(struct stile__session *s)
{
    if (s->process_timer >= 0)
        timer_delete_raw(s->process_timer);
    s->process_timer = -1;
}

void stile__clocks_close(struct stile__session *s)
{
    stile__clock_process_stop(s);
    munmap(s->clocks, s->size.slot_max * sizeof *s->clocks);
    s->clocks = NULL;
}

/* The last rung. The signal goes to whichever thread uses the processor. */
static int process_timer_start(struct stile__session *s)
{
    if (s->process_timer < 0)
        return s->process_timer;
    if (atomic_exchange_explicit(&s->process_timer_runs, true, memory_order_relaxed))
        return 0;
    atomic_store_explicit(&s->breaks_waits, true, memory_order_relaxed); /* it may be sent to whoever waits */
    return (int)timer_arm(s->process_timer, 0, random_below(s->period_ns), s->period_ns);
}

static void first_only(_Atomic int32_t *error, int value)
{
    int32_t none = 0;
    atomic_compare_exchange_strong_explicit(error, &none, value, memory_order_relaxed, memory_order_relaxed);
}

/* Returns the kind of clock that runs now. */
static int clock_climb(struct stile__session *s, struct stile__region *r, struct stile__clock *c,
                       struct stile__slot *slot, uint32_t tid, bool own, uint64_t id)
{
    int perf = -1;

    c->timer_id = thread_timer_make(tid, own, s->signal, id);
    if (c->timer_id < 0)
        first_only(&r->timer_error, -c->timer_id);
    if (s->may_perf && (s->use_perf || c->timer_id < 0)) {
        perf = stile__clock_perf_start(c, tid, s->signal, s->period_ns,
                                       c->timer_id >= 0 ? STILE__CLOCK_PERF : STILE__CLOCK_PERF_ALONE);
        if (perf != 0)
            first_only(&r->perf_error, perf);
        else /* its interrupt may come a moment late, when the program is in the kernel already */
            atomic_store_explicit(&s->breaks_waits, true, memory_order_relaxed);
    }
    if (c->timer_id < 0) {
        if (perf == 0)
            return STILE__CLOCK_PERF_ALONE;
        c->kind = STILE__CLOCK_PROCESS;
        return process_timer_start(s) == 0 ? STILE__CLOCK_PROCESS : STILE__CLOCK_NONE;
    }
    long err;
    if (perf == 0) { /* at the kernel's tick, and no more often than we tick */
        uint64_t every = s->tick_ns > s->period_ns ? s->tick_ns : s->period_ns;
        err = timer_arm(c->timer_id, 0, random_below(every), every);
    } else {
        c->kind = STILE__CLOCK_TIMER;
        err = timer_arm(c->timer_id, TIMER_ABSTIME, slot->first_due_ns, s->period_ns);
    }
    if (err != 0) {
        first_only(&r->timer_error, (int)-err);
        timer_delete_raw(c->timer_id);
        c->timer_id = (int)err;
        return perf == 0 ? c->kind : STILE__CLOCK_NONE;
    }
    return c->kind;
}

int stile__clock_start(struct stile__session *s, struct stile__region *r, uint32_t i, uint32_t tid, bool own,
                       uint64_t id)
{
    struct stile__clock *c = &s->clocks[i];
    struct stile__slot *slot = stile__region_slot(r, i);

    *c = (struct stile__clock){.timer_id = -1, .perf_fd = -1, .carry_ns = carry_take(s)};
    slot->first_due_ns = slot->base_cpu_ns + first_expiry(c->carry_ns, s->period_ns);
    c->kind = (uint8_t)clock_climb(s, r, c, slot, tid, own, id);
    slot->clock_kind = c->kind;
    atomic_fetch_add_explicit(&r->clocks[c->kind], 1, memory_order_relaxed);
    return c->kind != STILE__CLOCK_NONE ? 0 : c->timer_id;
}

void stile__clock_reserve(struct stile__session *s, struct stile__region *r, uint32_t i)
{
    s->clocks[i] = (struct stile__clock){.kind = STILE__CLOCK_TIMER, .timer_id = -1, .perf_fd = -1};
    stile__region_slot(r, i)->clock_kind = STILE__CLOCK_TIMER;
    atomic_fetch_add_explicit(&r->clocks[STILE__CLOCK_TIMER], 1, memory_order_relaxed);
}

void stile__clock_none(struct stile__session *s, uint32_t i)
{
    s->clocks[i] = (struct stile__clock){.kind = STILE__CLOCK_NONE, .timer_id = -1, .perf_fd = -1};
}

void stile__clock_stop(struct stile__clock *c)
{
    int timer_id = __atomic_exchange_n(&c->timer_id, -1, __ATOMIC_RELAXED); /* by whoever comes first */
    if (timer_id >= 0)
        timer_delete_raw(timer_id);
    stile__clock_perf_stop(c);
}
