/* The walk and the handler, in the benchmark's own process: the product's objects, a region and a session such as the
 * agent makes, and rules that the collector's code has learned from this program's files. */
#include "bench/walk.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/walk_stack.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/collector/modules.h"
#include "profiler/collector/rule_table.h"
#include "profiler/region/raw_syscall.h"

#define FRAMES_MAX   1200
#define BATCH_NS     200000u /* long enough for the clock, short enough to be undisturbed now and then */
#define FRAME_ROUNDS 150
#define TICK_ROUNDS  301
#define TICK_BATCH   500
#define GENERATION   5ull
#define AROUND       2048 /* bytes */

/* What the agent has; see profiler/agent/session.c and threads.c. */
struct stile__session *stile__session;
_Thread_local struct stile__thread stile__thread;

static struct stile__session session;
static struct stile__region *region;
static struct stile__slot *slot;
static struct stile__clock clocks[1];
static struct mapping_table mappings;
static struct rule_table rules;

/* Everything by the CPU time of this thread: others may share the processor. */
static uint64_t now_ns(void)
{
    return stile__clock_read(0, true);
}

static bool mappings_read(void)
{
    size_t cap = 1u << 20, have = 0;
    char *text = malloc(cap);
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    while (text != NULL && fd >= 0 && (n = read(fd, text + have, cap - have)) > 0)
        have += (size_t)n;
    mappings_init(&mappings, getpid());
    bool ok = n == 0 && have < cap && mappings_update(&mappings, text, have, 0) == 0;
    close(fd);
    free(text);
    return ok;
}

/* A session whose only thread is this one, as it is at a kilohertz. */
static bool session_make(const void *stack_end)
{
    int fd;
    if (stile__region_make(&region, &fd, 10000, false, false) != 0 || !mappings_read()) {
        fputs("bench_walk: no region can be made here\n", stderr);
        return false;
    }
    close(fd);
    clocks[0].kind = STILE__CLOCK_TIMER;
    clocks[0].perf_fd = -1;
    stile__session_size_set(&session, region->size);
    session.period_ns = 1000000;
    session.tick_ns = 4000000;
    session.depth = STILE__DEPTH_MAX;
    session.clocks = clocks;
    slot = stile__region_slot(region, 0);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    atomic_store(&slot->tid, (uint32_t)gettid());
    atomic_store(&slot->generation, (uint32_t)GENERATION);
    atomic_store(&session.region, region);
    stile__thread.stack.hi = (uintptr_t)stack_end;
    stile__thread.stack.lo = stile__thread.stack.hi - (4u << 20);
    rule_table_open(&rules, region, session.size, &mappings, 0);
    stile__session = &session;
    return true;
}

static void session_end(void)
{
    stile__session = NULL;
    memset(&stile__thread, 0, sizeof stile__thread);
    rule_table_close(&rules);
    mappings_free(&mappings);
    stile__region_unmake(region);
    memset(&session, 0, sizeof session);
}

/* Learns what walks of the present stack need, as the collector does of samples, and what lies around, since the same
 * functions make other calls. */
static void stack_learn(void)
{
    void *frames[FRAMES_MAX];
    int n = unw_backtrace(frames, FRAMES_MAX);
    for (int i = 0; i < n; i++)
        for (int64_t off = -AROUND; off <= AROUND; off += 1 << STILE__RULES_BLOCK_BITS)
            rule_table_learn(&rules, &mappings, (uint64_t)((int64_t)(uintptr_t)frames[i] - 1 + off));
}

/* ---- a frame ---- */

/* One walk of the stack above a place; returns the frames that it found. */
typedef uint32_t walk_fn(const struct walk_place *at);

static uint32_t walk_ours(const struct walk_place *at)
{
    static _Alignas(64) uint8_t cells[64 * STILE__CELL_BYTES];
    static uint64_t regs[NGREG];
    static const struct stile__place place = {.regs = regs};
    struct stile__record *record = (void *)cells;
    regs[REG_RIP] = at->pc;
    regs[REG_RSP] = at->rsp;
    regs[REG_RBP] = at->rbp;
    record->cells = 64;
    record->kind = STILE__RECORD_WALKED;
    record->frames_block = record->block = STILE__BLOCK_NONE;
    stile__walk(&session, region, &stile__thread, &place, record);
    atomic_store_explicit(&region->blocks_used[0], 0, memory_order_relaxed); /* as a drain does */
    return record->kind == STILE__RECORD_WALKED && record->reason == STILE__REASON_NONE ? record->n_new : 0;
}

/* The least that a walk by frame pointers can do in a handler, which must not read beyond the stack. */
static uint32_t walk_frame_pointers(const struct walk_place *at)
{
    static uint64_t out[FRAMES_MAX];
    const uint64_t hi = stile__thread.stack.hi;
    uint64_t last = at->rsp, rbp = at->rbp, pc = at->pc;
    uint32_t n = 0;
    while (n < FRAMES_MAX) {
        out[n++] = pc;
        if (rbp < last || rbp % 8 != 0 || rbp >= hi || hi - rbp < 16)
            break;
        const uint64_t *frame = (const uint64_t *)rbp;
        uint64_t ret = frame[1];
        if (ret - 65536 >= (1ull << 48) - 65536)
            break;
        last = rbp + 16;
        rbp = frame[0];
        pc = ret - 1;
    }
    __asm__ volatile("" : : "m"(out));
    return n;
}

static uint32_t walk_unw_backtrace(const struct walk_place *at)
{
    static void *out[FRAMES_MAX];
    (void)at;
    return (uint32_t)unw_backtrace(out, FRAMES_MAX);
}

static uint32_t walk_unw_step(const struct walk_place *at)
{
    static unw_word_t out[FRAMES_MAX];
    unw_context_t context;
    unw_cursor_t cursor;
    uint32_t n = 0;
    (void)at;
    unw_getcontext(&context);
    unw_init_local(&cursor, &context);
    do
        unw_get_reg(&cursor, UNW_REG_IP, &out[n++]);
    while (n < FRAMES_MAX && unw_step(&cursor) > 0);
    return n;
}

#define SIDES 4
static const struct {
    const char *name;
    walk_fn *walk;
} sides[SIDES] = {{"stile", walk_ours},
                  {"frame pointers", walk_frame_pointers},
                  {"unw_backtrace", walk_unw_backtrace},
                  {"unw_step", walk_unw_step}};

struct walks {
    double ns[SIDES];       /* of a walk, the least */
    uint32_t frames[SIDES]; /* of a walk */
};

static double batch(walk_fn *walk, const struct walk_place *at, uint32_t times)
{
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < times; i++)
        walk(at);
    return (double)(now_ns() - start) / times;
}

static void walks_measure(const struct walk_place *at, void *arg)
{
    struct walks *w = arg;
    uint32_t times[SIDES];
    stack_learn();
    for (int i = 0; i < SIDES; i++) {
        w->frames[i] = sides[i].walk(at);
        w->ns[i] = batch(sides[i].walk, at, 16);
        times[i] = w->ns[i] < BATCH_NS ? (uint32_t)(BATCH_NS / w->ns[i]) : 1;
    }
    for (int round = 0; round < FRAME_ROUNDS; round++)
        for (int i = 0; i < SIDES; i++) {
            double ns = batch(sides[i].walk, at, times[i]);
            if (ns < w->ns[i])
                w->ns[i] = ns;
        }
}

typedef void stack_fn(uint32_t depth, const struct walk_stack *stack);

/* ns of a frame for each side, at some depths; false if ours did not come to the stack's end. */
static bool frames_measure(stack_fn *stack, const uint32_t *depths, size_t n, double ns[][SIDES])
{
    struct walks few, many;
    stack(2, &(struct walk_stack){walks_measure, &few});
    for (size_t k = 0; k < n; k++) {
        stack(depths[k], &(struct walk_stack){walks_measure, &many});
        if (few.frames[0] == 0 || many.frames[0] != few.frames[0] + depths[k] - 2) {
            fprintf(stderr, "bench_walk: the walk found %u frames at depth %u and %u at depth 2\n",
                    many.frames[0], depths[k], few.frames[0]);
            return false;
        }
        for (int i = 0; i < SIDES; i++)
            ns[k][i] = (many.ns[i] - few.ns[i]) / (depths[k] - 2);
    }
    return true;
}

static bool frames_tell(const char *title, stack_fn *stack, bool linked)
{
    static const uint32_t depths[] = {50, 1000};
    double ns[2][SIDES];
    if (!frames_measure(stack, depths, 2, ns))
        return false;
    printf("%-30s %23s %23s\n", title, "depth 50", "depth 1000");
    for (int i = 0; i < SIDES; i++) {
        if (i == 1 && !linked)
            continue;
        printf("  %-28s", sides[i].name);
        for (int k = 0; k < 2; k++) {
            if (i == 0)
                printf("  %8.2f ns             ", ns[k][i]);
            else
                printf("  %8.2f ns   x %-8.2f", ns[k][i], ns[k][i] / ns[k][0]);
        }
        putchar('\n');
    }
    for (int k = 0; k < 2 && linked; k++) {
        double target = ns[k][1] * 1.5 > 6 ? ns[k][1] * 1.5 : 6;
        printf("  stile / frame pointers at depth %-4u: %.2f; stile / target (the greater of 1.5 x frame "
               "pointers "
               "and 6 ns): %.2f (<= 1)\n",
               depths[k], ns[k][0] / ns[k][1], ns[k][0] / target);
    }
    return true;
}

int walk_frame(const void *stack_end)
{
    if (!session_make(stack_end))
        return 1;
    printf("A frame once warm: (walk at a depth - walk at depth 2) / (depth - 2), least of %d rounds;\n"
           "x: how many of ours that is\n",
           FRAME_ROUNDS);
    bool ok = frames_tell("frames linked by rbp", walk_stack_linked, true) &&
              frames_tell("rbp a register like others", walk_stack_plain, false);
    session_end();
    return ok ? 0 : 1;
}

/* ---- a whole tick ---- */

static void handle_nothing(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
}

static void handle_learn(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    stack_learn(); /* what was interrupted is in it */
}

/* As signal_owner.c does it. */
static void handler_install(void (*handler)(int, siginfo_t *, void *))
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } raw;
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    sigfillset(&sa.sa_mask);
    sigaction(SIGPROF, &sa, NULL);
    stile__raw_syscall(SYS_rt_sigaction, SIGPROF, 0, (long)&raw, sizeof raw.mask);
    raw.mask = ~0ull;
    stile__raw_syscall(SYS_rt_sigaction, SIGPROF, (long)&raw, 0, sizeof raw.mask);
}

/* Sends a signal to this thread, which takes it as the call returns. */
static __attribute__((noinline)) double ticks_send(int signal, uint32_t times)
{
    siginfo_t info;
    long pid = stile__raw_getpid(), tid = stile__raw_gettid();
    memset(&info, 0, sizeof info);
    info.si_signo = SIGPROF;
    info.si_code = SI_TIMER;
    info.si_value.sival_ptr = (void *)(uintptr_t)(GENERATION << 32);
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < times; i++) {
        stile__raw_syscall(SYS_rt_tgsigqueueinfo, pid, tid, signal, (long)&info);
        /* As a drain does. */
        atomic_store_explicit(&slot->tail, atomic_load_explicit(&slot->head, memory_order_relaxed),
                              memory_order_relaxed);
    }
    return (double)(now_ns() - start) / times;
}

struct ticks {
    double ratio, ours, empty, sending;
    uint32_t frames; /* of a tick's stack; 0: it was not walked */
};

static void ticks_measure(const struct walk_place *at, void *arg)
{
    static double ratio[TICK_ROUNDS], ours[TICK_ROUNDS], empty[TICK_ROUNDS], sending[TICK_ROUNDS];
    struct ticks *t = arg;
    (void)at;
    /* This thread sends its signals itself, so that anything may be done in them. */
    handler_install(handle_learn);
    ticks_send(SIGPROF, 1);
    for (int i = 0; i < TICK_ROUNDS; i++) {
        handler_install(handle_nothing);
        empty[i] = ticks_send(SIGPROF, TICK_BATCH);
        sending[i] = ticks_send(0, TICK_BATCH);
        handler_install(stile__handle_tick);
        ours[i] = ticks_send(SIGPROF, TICK_BATCH);
        ratio[i] = (ours[i] - sending[i]) / (empty[i] - sending[i]);
    }
    uint64_t at_cell = atomic_load(&slot->head) % stile__slot_cells(session.size, 0);
    ticks_send(SIGPROF, 1);
    const struct stile__record *record =
        (const void *)(stile__region_ring(region, session.size, 0) + at_cell);
    if (record->kind == STILE__RECORD_PAD)
        record = (const void *)stile__region_ring(region, session.size, 0);
    bool whole = record->kind == STILE__RECORD_WALKED && record->reason == STILE__REASON_NONE;
    handler_install(handle_nothing);
    *t = (struct ticks){walk_median(ratio, TICK_ROUNDS), walk_median(ours, TICK_ROUNDS),
                        walk_median(empty, TICK_ROUNDS), walk_median(sending, TICK_ROUNDS),
                        whole ? record->n_new : 0};
}

static void ticks_tell(uint32_t depth, const struct ticks *t)
{
    printf(
        "  depth %-4u (%3u frames)   %.3f (<= 1.15)    ours %6.0f ns, empty %6.0f ns, both without the call "
        "of %4.0f ns\n",
        depth, t->frames, t->ratio, t->ours - t->sending, t->empty - t->sending, t->sending);
}

int walk_handler(const void *stack_end)
{
    static const uint32_t depths[] = {5, 30, 200};
    static _Alignas(64) char alt[64u << 10];
    stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, before;
    struct ticks t, none;
    int err = 0;
    if (!session_make(stack_end))
        return 1;
    sigaltstack(&ss, &before);
    printf("A whole tick: (our handler - sending) / (empty handler - sending), median of %d rounds.\n"
           "Sending is the same system call with signal 0, which does all but queue: a clock's tick makes no "
           "call,\n"
           "but is queued and delivered as this one is\n",
           TICK_ROUNDS);
    walk_stack_plain(1, &(struct walk_stack){ticks_measure, &none});
    for (size_t i = 0; i < sizeof depths / sizeof *depths && err == 0; i++) {
        /* What is there besides the recursion counts, too. */
        uint32_t more = depths[i] > none.frames ? depths[i] - none.frames : 0;
        walk_stack_plain(1 + more, &(struct walk_stack){ticks_measure, &t});
        ticks_tell(depths[i], &t);
        if (t.frames != none.frames + more) {
            fputs("bench_walk: that is not the stack's depth\n", stderr);
            err = 1;
        }
    }
    signal(SIGPROF, SIG_IGN);
    sigaltstack(&before, NULL);
    session_end();
    return err;
}
