/* A stack of a depth, of which only the ten newest frames change.
 *
 *   depth_stack work DEPTH MS        works so long, by the thread's CPU clock; prints iterations, nanoseconds, and
 *                                    cycles in one of these
 *   depth_stack warm DEPTH MS        the same after a while of work on a short stack in an image of its own, so that
 *                                    all rules are there from the measured image's first tick
 *   depth_stack ticks DEPTH ROUNDS   takes the signals itself that the profiler's clock would send, and others that do
 *                                    nothing: one at a time, on a stack whose newest frames have changed, in caches as a
 *                                    program leaves them. Prints in each round the cycles of the system call that sends,
 *                                    of one with an empty handler, and of one with the profiler's. Warms up as above;
 *                                    ticks-told and batches-told do not
 *   depth_stack batches DEPTH ROUNDS the same of signals in a row on one stack, cycles of each
 *
 * work and warm take a processor to be on as well. DEPTH counts the frames below at_depth: of down_N, one of what is done
 * there, and ten of step_LEVEL_KIND at most. */
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEW         10 /* frames that change */
#define KINDS       4
#define DOWNS       4
#define WARM_DEPTH  40
#define WARM_MS     200
#define WARM_ROUNDS 20
#define BATCH       1000   /* iterations between two looks at the clock */
#define ROW         16     /* signals in a row that count, */
#define ROW_BEFORE  8      /* after so many that do not */
#define PERIOD_NS   50000u /* at 20 kHz */
#define TICKS_PAID  40u    /* in a round of single ticks: fewer are taken */
#define ROWS_ASIDE  20     /* rounds at first, in which rules are learned and barriers placed */

#define APART __attribute__((noipa))
/* Keeps a frame's room, and a call from being the last thing that is done in it. */
#define KEEP(room) __asm__ volatile("" : : "r"(room) : "memory")

static int levels;              /* of the frames that change */
static void (*at_bottom)(void); /* in the newest one */
static uint64_t sink;

static inline __attribute__((always_inline)) void work(unsigned n)
{
    uint64_t x = sink | 1;
    for (unsigned i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    sink = x;
}

/* ---- the frames that change ---- */

typedef void step_fn(int level, unsigned path);
static step_fn *const steps[NEW][KINDS];

static inline __attribute__((always_inline)) void step_below(int level, unsigned path)
{
    work(8);
    if (level + 1 < levels)
        steps[level + 1][(path * 3 + (unsigned)level * (path + 1)) % KINDS](level + 1, path);
    else if (at_bottom != NULL)
        at_bottom();
    else
        work(64);
    work(8);
}

#define STEP(level, kind, bytes)                                                                             \
    static APART void step_##level##_##kind(int at, unsigned path)                                           \
    {                                                                                                        \
        char room[bytes];                                                                                    \
        KEEP(room);                                                                                          \
        step_below(at, path);                                                                                \
        KEEP(room);                                                                                          \
    }
#define STEPS(level) STEP(level, 0, 8) STEP(level, 1, 72) STEP(level, 2, 24) STEP(level, 3, 136)
STEPS(0)
STEPS(1)
STEPS(2)
STEPS(3)
STEPS(4)
STEPS(5)
STEPS(6)
STEPS(7)
STEPS(8)
STEPS(9)
#define KINDS_OF(level)                                                                                      \
    {                                                                                                        \
        step_##level##_0, step_##level##_1, step_##level##_2, step_##level##_3                               \
    }
static step_fn *const steps[NEW][KINDS] = {KINDS_OF(0), KINDS_OF(1), KINDS_OF(2), KINDS_OF(3), KINDS_OF(4),
                                           KINDS_OF(5), KINDS_OF(6), KINDS_OF(7), KINDS_OF(8), KINDS_OF(9)};

/* One way down and back. */
static inline __attribute__((always_inline)) void way(uint64_t *random)
{
    *random ^= *random << 13; /* xorshift64, Marsaglia 2003 */
    *random ^= *random >> 7;
    *random ^= *random << 17;
    unsigned path = *random % 8;
    steps[0][path % KINDS](0, path);
}

/* ---- what is done at the depth ---- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t asked; /* nanoseconds, or rounds */

static uint64_t iterations, used_ns;

static APART void changing(void)
{
    uint64_t start = cpu_ns(), random = 88172645463325252u;
    do {
        for (int i = 0; i < BATCH; i++)
            way(&random);
        iterations += BATCH;
        used_ns = cpu_ns() - start;
    } while (used_ns < asked);
}

/* What the kernel has of a handler: libc's sigaction is the profiler's to answer. */
struct raw_action {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static struct raw_action profilers, nothing, takes;
static siginfo_t tick;
static volatile sig_atomic_t taken;

static void handle_nothing(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
}

/* Of any clock: a timer, perf, setitimer. */
static void handle_take(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (info->si_code == SI_TIMER || info->si_code == POLL_IN || info->si_code == SI_KERNEL) {
        tick = *info;
        if (info->si_code == SI_TIMER)
            tick.si_overrun = 0; /* one tick each */
        taken = 1;
    }
}

static void action_set(const struct raw_action *action)
{
    syscall(SYS_rt_sigaction, SIGPROF, action, NULL, sizeof action->mask);
}

static pid_t pid, tid;
static int signal_sent;
static uint64_t cycles;
static bool telling;

/* Sends itself a tick as the clock would; it is taken as the call returns. */
static inline __attribute__((always_inline)) void tick_sent(void)
{
    syscall(SYS_rt_tgsigqueueinfo, pid, tid, signal_sent, &tick);
}

/* Here, so that at_bottom has it. */
static APART void tick_send(void)
{
    uint64_t start = __builtin_ia32_rdtsc();
    tick_sent();
    cycles = __builtin_ia32_rdtsc() - start;
}

static inline __attribute__((always_inline)) uint64_t ticked(const struct raw_action *action, int signal,
                                                             uint64_t *random)
{
    action_set(action);
    signal_sent = signal;
    way(random); /* which warms up what a tick interrupts */
    at_bottom = tick_send;
    way(random);
    at_bottom = NULL;
    return cycles;
}

/* Has one of the profiler's own ticks, to be sent again. */
static inline __attribute__((always_inline)) bool tick_wait(void)
{
    uint64_t random = 88172645463325252u;
    pid = getpid();
    tid = gettid();
    syscall(SYS_rt_sigaction, SIGPROF, NULL, &profilers, sizeof profilers.mask);
    nothing = takes = profilers;
    nothing.handler = handle_nothing;
    takes.handler = handle_take;
    action_set(&takes);
    for (uint64_t start = cpu_ns(); taken == 0 && cpu_ns() - start < 2000000000u;)
        way(&random);
    action_set(&profilers);
    return taken != 0;
}

/* CPU time for so many ticks to stand for, which a collector asks for, and time for it to read them. */
static void ticks_pay(unsigned ticks)
{
    struct timespec pause = {0, 2000000};
    for (uint64_t start = cpu_ns(); cpu_ns() - start < ticks * PERIOD_NS;)
        work(1000);
    nanosleep(&pause, NULL);
}

static void cycles_tell(const uint64_t by[3])
{
    printf("%llu %llu %llu\n", (unsigned long long)by[0], (unsigned long long)by[1],
           (unsigned long long)by[2]);
}

/* The call, an empty handler and the profiler's: each is first in turn. */
static const struct raw_action *side_action(unsigned side)
{
    return side == 2 ? &profilers : &nothing;
}

static int side_signal(unsigned side)
{
    return side == 0 ? 0 : SIGPROF;
}

static APART void ticking(void)
{
    uint64_t random = 88172645463325252u;
    if (!tick_wait())
        return;
    for (uint64_t i = 0; i < asked; i++) {
        uint64_t by[3];
        ticked(&nothing, SIGPROF, &random); /* the kernel's way is warm for all three */
        ticked(&profilers, SIGPROF, &random);
        for (uint64_t k = i; k < i + 3; k++)
            by[k % 3] = ticked(side_action(k % 3), side_signal(k % 3), &random);
        action_set(&profilers);
        if (telling)
            cycles_tell(by);
        ticks_pay(TICKS_PAID);
    }
}

static APART void batches(void)
{
    for (uint64_t i = 0; i < asked + ROWS_ASIDE; i++) {
        uint64_t by[3];
        for (uint64_t k = i; k < i + 3; k++) {
            action_set(side_action(k % 3));
            signal_sent = side_signal(k % 3);
            for (int n = 0; n < ROW_BEFORE; n++)
                tick_sent();
            uint64_t start = __builtin_ia32_rdtsc();
            for (int n = 0; n < ROW; n++)
                tick_sent();
            by[k % 3] = (__builtin_ia32_rdtsc() - start) / ROW;
        }
        action_set(&profilers);
        if (telling && i >= ROWS_ASIDE)
            cycles_tell(by);
        ticks_pay(ROW_BEFORE + ROW);
    }
}

static APART void batching(void)
{
    uint64_t random = 88172645463325252u;
    if (!tick_wait())
        return;
    at_bottom = batches;
    way(&random);
    at_bottom = NULL;
}

/* ---- down to the depth ---- */

typedef void down_fn(uint32_t more, void (*then)(void));
static down_fn *const downs[DOWNS];

static inline __attribute__((always_inline)) void down_below(uint32_t more, void (*then)(void))
{
    if (more <= 1)
        then();
    else
        downs[more * 2654435761u >> 30](more - 1, then); /* which comes next does not repeat soon */
}

#define DOWN(kind, bytes)                                                                                    \
    static APART void down_##kind(uint32_t more, void (*then)(void))                                         \
    {                                                                                                        \
        char room[bytes];                                                                                    \
        KEEP(room);                                                                                          \
        down_below(more, then);                                                                              \
        KEEP(room);                                                                                          \
    }
DOWN(0, 8)
DOWN(1, 40)
DOWN(2, 16)
DOWN(3, 88)
static down_fn *const downs[DOWNS] = {down_0, down_1, down_2, down_3};

/* Calls `then` under so many frames of down_N. */
static APART void at_depth(uint32_t depth, void (*then)(void))
{
    levels = depth > NEW ? NEW : (int)depth - 1;
    uint32_t more = depth - 1 - (uint32_t)levels;
    if (more == 0)
        then();
    else
        down_0(more, then);
    KEEP(&more);
}

/* The same command in an image of its own, in which all rules are there from the first tick. */
static int exec_measured(char **argv, const char *way)
{
    execl("/proc/self/exe", argv[0], way, argv[2], argv[3], argv[4], (char *)NULL);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 5 || strtoul(argv[2], NULL, 10) < 2)
        return 2;
    const char *way = argv[1];
    uint32_t depth = (uint32_t)strtoul(argv[2], NULL, 10);
    asked = strtoull(argv[3], NULL, 10);
    bool ticks = strncmp(way, "ticks", 5) == 0, batched = strncmp(way, "batches", 7) == 0;
    if (ticks || batched) {
        telling = strchr(way, '-') != NULL;
        if (!telling)
            asked = WARM_ROUNDS;
        at_depth(telling ? depth : WARM_DEPTH, ticks ? ticking : batching);
        if (taken == 0)
            return 1;
        return telling ? 0 : exec_measured(argv, ticks ? "ticks-told" : "batches-told");
    }
    if (strcmp(way, "warm") == 0) {
        asked = WARM_MS * 1000000u;
        at_depth(WARM_DEPTH, changing);
        return exec_measured(argv, "work");
    }
    if (argc == 5) { /* not before: the collector is not to be there */
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(strtoul(argv[4], NULL, 10), &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    asked *= 1000000u;
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC), start = __builtin_ia32_rdtsc();
    at_depth(depth, changing);
    uint64_t all_cycles = __builtin_ia32_rdtsc() - start, all_ns = clock_ns(CLOCK_MONOTONIC) - start_ns;
    printf("%llu %llu %.4f\n", (unsigned long long)iterations, (unsigned long long)used_ns,
           (double)all_cycles / (double)all_ns);
    return 0;
}
