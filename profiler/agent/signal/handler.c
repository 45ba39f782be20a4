/* First stage of a sample: the signal arrives. Decides whether the tick is ours, takes the stack or steps over it,
 * and publishes one record. Runs in the signal handler. */
#include "profiler/agent/signal/handler.h"

#include <sys/resource.h>
#include <ucontext.h>

#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/agent/signal/waits.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define ARITHMETIC_FLAGS 0x8d5u    /* CF PF AF ZF SF OF */
#define LATE_TICKS       3u        /* kernel ticks that a signal may be late by without a question */
#define LATE_NS_MAX      40000000u /* or, without the kernel's doing, on a busy machine; */
#define STOLEN_NS_MAX                                                                                        \
    400000000u /* where no system call has opened our signal, a hypervisor's doing, it may be */
#define SEARCHES_MAX   8u
#define SETTLE_TICKS   4u  /* kernel ticks' worth of time, after which its place is settled as it can be */
#define SETTLE_SIGNALS 64u /* without a timer: a look at the thread's clock in so many signals */

void stile__place_of(const ucontext_t *uc, struct stile__place *at)
{
    at->regs = (const uint64_t *)(const void *)uc->uc_mcontext.gregs;
    at->alt.lo = (uintptr_t)uc->uc_stack.ss_sp;
    at->alt.hi = at->alt.lo + (uc->uc_stack.ss_flags & SS_DISABLE ? 0 : uc->uc_stack.ss_size);
}

/* The stack of a thread whose creation we did not see. libc keeps the thread's descriptor, to which the thread pointer
 * points, above the frames of every stack that it runs a thread on: up to there it is one stack, and no further. The
 * mapping alone says little, since neighbours merge. */
static void bounds_find(const struct stile__session *s, struct stile__thread *t, uint64_t rsp)
{
    uint64_t descriptor;
    __asm__("mov %%fs:0, %0" : "=r"(descriptor));
    for (uint32_t k = 0; k < s->n_stacks; k++)
        if (s->stacks[k].lo <= rsp && rsp < descriptor && descriptor < s->stacks[k].hi)
            t->stack = (struct stile__bounds){s->stacks[k].lo, descriptor};
}

/* CPU time that the thread has used in the kernel, as the kernel counts it: by the tick mostly, so in large only.
 * UINT64_MAX if a filter forbids the question. */
static uint64_t kernel_time(void)
{
    struct rusage use;
    use.ru_stime = (struct timeval){0, 0};
    if (stile__raw_syscall(SYS_getrusage, RUSAGE_THREAD, (long)&use, 0, 0) != 0)
        return UINT64_MAX;
    return (uint64_t)use.ru_stime.tv_sec * 1000000000u + (uint64_t)use.ru_stime.tv_usec * 1000u;
}

/* A thread that was there before the session finds the slot that was opened for it: its timer's signal names it. */
static bool bind(struct stile__session *s, struct stile__region *r, struct stile__thread *t, uint64_t id,
                 uint64_t rsp)
{
    uint32_t i = (uint32_t)id;
    if (i >= s->size.slot_max)
        return false;
    struct stile__slot *slot = stile__region_slot(r, i);
    uint32_t tid = stile__raw_gettid();
    /* Acquire pairs with slot_start's release. */
    if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
        atomic_load_explicit(&slot->generation, memory_order_relaxed) != (uint32_t)(id >> 32) ||
        atomic_load_explicit(&slot->tid, memory_order_relaxed) != tid)
        return false;
    t->slot = slot;
    t->region = r;
    t->kernel_ns = kernel_time();
    t->surplus = 0;
    t->id = id;
    t->tid = tid;
    if (t->stack.hi == 0)
        bounds_find(s, t, rsp);
    return true;
}

/* The same where the signal does not name the slot. Bounded: a thread without one stops looking. */
bool stile__thread_bind(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                        uint64_t rsp)
{
    uint32_t tid = stile__raw_gettid();
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    if (t->searched_in == r && t->searches >= SEARCHES_MAX)
        return false;
    t->searches = t->searched_in == r ? t->searches + 1 : 1;
    t->searched_in = r;
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->tid, memory_order_relaxed) == tid &&
            bind(s, r, t, (uint64_t)atomic_load_explicit(&slot->generation, memory_order_relaxed) << 32 | i,
                 rsp)) {
            t->searches = 0; /* for a later session in the same place */
            return true;
        }
    }
    return false;
}

/* Whether the signal was taken on the way out of a system call. The instruction leaves the return address in rcx and
 * the flags in r11 (Intel SDM, SYSCALL), and nothing else does both; a call that is about to be restarted returns to
 * the instruction itself, two bytes before. */
static bool in_system_call(const ucontext_t *uc)
{
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP], rcx = (uint64_t)uc->uc_mcontext.gregs[REG_RCX];
    uint64_t differ = (uint64_t)uc->uc_mcontext.gregs[REG_R11] ^ (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    return (rcx == rip || rcx == rip + 2) && (differ & ARITHMETIC_FLAGS) == 0;
}

static void publish(struct stile__thread *t, struct stile__record *record, uint64_t *commit)
{
    stile__ring_shrink(
        record, record->n_inline + (record->kind != STILE__RECORD_WALKED ? STILE__REG_COUNT : 0), commit);
    stile__ring_commit(&t->slot->head, *commit);
}

/* Publishes what a walk has found, and then has the barriers stand as it says: what is trusted is what was published. */
static void walked_publish(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                           const struct stile__place *at, struct stile__record *record, uint64_t *commit)
{
    const uint32_t n = record->n_new;
    const bool base = (record->flags & STILE__IS_BASE) != 0;
    publish(t, record, commit);
    if (s->barriers == STILE__BARRIERS_OFF)
        return;
    if (stile__fault(STILE__FAULT_OWNER_BARRIERS, 1))
        stile__stack_unlock(&t->slot->stack_lock);
    const bool plants = t->barriers.pending != STILE__STUB_NONE;
    stile__ownership_check(r, t->slot, t->tid, plants ? STILE__READER_PLANT : STILE__READER_BARRIERS,
                           at->regs);
    /* Asked again: what this walk went by may have been published after its module was found to forbid barriers. */
    if (base && stile__barriers_go(r)) {
        const struct stile__barrier_place place = stile__barriers_place(t, at);
        stile__barriers_commit(&t->barriers, n, s->barriers, &place);
    } else {
        stile__barriers_abandon(&t->barriers);
    }
    stile__barriers_count(&t->barriers, &stile__session_memo(s, r, (uint32_t)t->id)->barriers);
}

void stile__record_init(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                        struct stile__record *record, uint32_t ticks)
{
    record->kept = 0;
    record->label_set = 0;
    record->ticks = ticks;
    /* Acquire pairs with closing_set: what a library that is gone leaves behind is not used after this. */
    record->unloads = atomic_load_explicit(&r->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    record->reason = STILE__REASON_NONE;
    record->flags = 0;
    record->n_barriers = 0;
    record->frames_block = STILE__BLOCK_NONE;
    record->block = STILE__BLOCK_NONE;
    record->stack_len = 0;
    record->walk_cycles = 0;
    record->lost_regs = 0;
    record->piece = 0;
    if (s->toggle != 0) {
        /* Pairs with the fence in clock_off: it has seen this tick counted, or we see that the piece is stopped. */
        atomic_thread_fence(memory_order_seq_cst);
        record->piece =
            atomic_load_explicit(&t->slot->piece, memory_order_acquire); /* with clock_on's release */
    }
}

void stile__tick_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const struct stile__tick *tick)
{
    uint64_t commit;
    uint32_t i = (uint32_t)t->id;

    stile__counter_add(&t->slot->ticks, tick->ticks);
    if (tick->in_kernel)
        t->kernel_ns += tick->ticks * s->period_ns;
    const uint32_t cells = stile__slot_cells(s->size, i);
    struct stile__cell *ring = stile__session_ring(s, r, i);
    const bool full = stile__fault(STILE__FAULT_RING, tick->ticks);
    struct stile__record *record = full ? NULL
                                        : stile__ring_reserve(ring, cells, &t->slot->head, &t->slot->tail,
                                                              STILE__WALK_CELLS_MAX(cells), &commit);
    if (record == NULL && !full)
        record =
            stile__ring_reserve(ring, cells, &t->slot->head, &t->slot->tail, STILE__WALK_CELLS_MIN, &commit);
    if (record == NULL) {
        stile__counter_add(&t->slot->lost_ns, tick->ticks * s->period_ns);
        stile__counter_add(&t->slot->lost_ticks, tick->ticks);
        return;
    }
    stile__record_init(s, r, t, record, tick->ticks);
    record->reason = tick->reason;
    record->flags = tick->in_kernel ? STILE__IN_KERNEL : 0;
    record->n_new = record->n_inline = tick->placeless ? 0 : 1;
    record->words[0] = stile__stub_through(at->regs[REG_RIP]);
    const bool trespasses = stile__fault(STILE__FAULT_OWNER_SAMPLE, tick->ticks);
    /* The holder may be the very code that this signal interrupted: never wait for it. */
    if (tick->placeless) {
        /* not here */
    } else if (!stile__fault(STILE__FAULT_LOCK, tick->ticks) &&
               (trespasses || stile__stack_trylock(&t->slot->stack_lock, t->tid))) {
        stile__ownership_check(r, t->slot, t->tid, STILE__READER_SAMPLE, at->regs);
        stile__walk(s, r, t, at, record);
        if (tick->reason != STILE__REASON_NONE) /* whatever the walk found besides */
            record->reason = tick->reason;
        walked_publish(s, r, t, at, record, &commit);
        if (!trespasses)
            stile__stack_unlock(&t->slot->stack_lock);
        return;
    } else {
        record->reason = STILE__REASON_STACK_LOCKED;
    }
    publish(t, record, &commit);
}

/* How many of so many ticks were used in the kernel, by what the kernel has counted and we have not booked yet. */
static uint32_t ticks_in_kernel(const struct stile__session *s, const struct stile__thread *t,
                                const struct stile__tick *tick)
{
    uint64_t all = kernel_time();
    if (all == UINT64_MAX)
        return tick->in_kernel ? tick->ticks : 0;
    uint64_t ns = (tick->in_kernel ? s->tick_ns : 0) + (all > t->kernel_ns ? all - t->kernel_ns : 0);
    return ns / s->period_ns < tick->ticks ? (uint32_t)(ns / s->period_ns) : tick->ticks;
}

/* A signal comes late by the kernel's tick, and by a few more on a busy machine. Where it stands for more, the thread was
 * in one long system call, or the program kept the signal from it: the first is known to the kernel. */
void stile__tick_split(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                       const struct stile__place *at, struct stile__tick tick, enum stile__reason kept_away)
{
    if (tick.ticks <= LATE_TICKS) { /* most often; a division is not free */
        stile__tick_take(s, r, t, at, &tick);
        return;
    }
    uint64_t usual = 1 + s->tick_ns / s->period_ns;
    if (tick.ticks <= LATE_TICKS * usual) {
        stile__tick_take(s, r, t, at, &tick);
        return;
    }
    struct stile__tick kernel = tick;
    kernel.ticks = ticks_in_kernel(s, t, &tick);
    kernel.in_kernel = true;
    struct stile__tick user = {.ticks = tick.ticks - kernel.ticks};
    if (kernel.ticks != 0)
        stile__tick_take(s, r, t, at, &kernel);
    if (user.ticks > usual && user.ticks * s->period_ns > (tick.leaving ? LATE_NS_MAX : STOLEN_NS_MAX)) {
        struct stile__tick kept = {.ticks = user.ticks - (uint32_t)usual, .reason = (uint8_t)kept_away};
        user.ticks = (uint32_t)usual;
        stile__tick_take(s, r, t, at, &kept);
    }
    if (user.ticks != 0)
        stile__tick_take(s, r, t, at, &user);
}

/* Takes what is due by the thread's own clock and did not tick: time in the kernel, where perf's clock is silent, or
 * all time of a thread that has no clock of its own. Where the signal was taken on the way out of the kernel, this is
 * the place; elsewhere it waits for a better one, but not for ever, since page faults leave no trace in the registers. */
static void settle(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                   const struct stile__place *at, bool in_kernel, bool kernel_only)
{
    uint64_t cpu_ns = stile__clock_read(t->tid, true);
    if (cpu_ns == 0) /* a filter forbids it */
        return;
    int64_t missed = stile__clock_missed(t->slot, cpu_ns, s->period_ns);
    t->surplus = missed < -1 ? (uint32_t)-missed - 1 : 0;
    if (missed <= 0 || missed > UINT32_MAX)
        return;
    if (kernel_only && !in_kernel && (uint64_t)missed * s->period_ns < SETTLE_TICKS * s->tick_ns)
        return;
    struct stile__tick tick = {
        .ticks = (uint32_t)missed, .in_kernel = in_kernel || kernel_only, .leaving = in_kernel};
    stile__counter_add(&t->slot->signals, 1);
    if (s->clocks[(uint32_t)t->id].kind == STILE__CLOCK_PERF) {
        stile__tick_split(s, r, t, at, tick, STILE__REASON_SIGNAL_BLOCKED);
        return;
    }
    /* Nothing says how often it should have come here; and perf alone never comes where the time went. */
    tick.placeless = kernel_only;
    stile__tick_take(s, r, t, at, &tick);
}

/* A tick of this thread's own clock, or of the process's for a thread that has none. False: not one of ours. */
static bool tick_of(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                    const siginfo_t *info, const ucontext_t *uc, const struct stile__place *at)
{
    uint64_t carried = (uint64_t)(uintptr_t)info->si_value.sival_ptr, id = carried & ~STILE__ID_PIECE_BITS;
    bool bound = stile__thread_bound(t, r);
    bool in_kernel = in_system_call(uc);

    if (bound && t->wait_frame != 0)
        (void)stile__wait_look(s, r, t, at->regs[REG_RSP]);
    if (!bound && (info->si_code == POLL_IN || (info->si_code == SI_TIMER && carried == STILE__PROCESS_TICK)))
        bound = stile__thread_bind(s, r, t, at->regs[REG_RSP]);
    if (info->si_code == POLL_IN) {
        if (!bound || s->clocks[(uint32_t)t->id].perf_fd != info->si_fd)
            return false;
        if (t->surplus != 0) {
            t->surplus--;
            return true;
        }
        stile__counter_add(&t->slot->signals, 1);
        stile__tick_take(s, r, t, at, &(struct stile__tick){.ticks = 1});
        if (s->clocks[(uint32_t)t->id].kind == STILE__CLOCK_PERF_ALONE &&
            ++t->unsettled % SETTLE_SIGNALS == 0)
            settle(s, r, t, at, false, true);
        return true;
    }
    if (info->si_code != SI_TIMER)
        return false;
    if (carried == STILE__PROCESS_TICK) {
        if (!bound)
            return false;
        if (s->clocks[(uint32_t)t->id].kind == STILE__CLOCK_PROCESS)
            settle(s, r, t, at, in_kernel, false);
        return true;
    }
    bool old = bound && t->id == id;
    if (!old && !bind(s, r, t, id, at->regs[REG_RSP]))
        return false;
    if (stile__id_piece_bits(atomic_load_explicit(&t->slot->piece, memory_order_relaxed)) !=
        (carried & STILE__ID_PIECE_BITS))
        return false; /* of a piece that has been stopped */
    if (s->clocks[(uint32_t)id].kind == STILE__CLOCK_PERF) {
        /* What ticked before the thread was bound found nobody: that was not in the kernel. */
        settle(s, r, t, at, in_kernel, old);
    } else {
        stile__counter_add(&t->slot->signals, 1);
        uint32_t ticks = 1 + (info->si_overrun > 0 ? (uint32_t)info->si_overrun : 0);
        stile__tick_split(s, r, t, at,
                          (struct stile__tick){.ticks = ticks, .in_kernel = in_kernel, .leaving = in_kernel},
                          STILE__REASON_SIGNAL_BLOCKED);
    }
    return true;
}

void stile__handle_tick(int signal, siginfo_t *info, void *context)
{
    struct stile__session *s = stile__session;
    uint32_t shard = stile__thread_shard();
    struct stile__region *r = stile__session_enter(s, shard);
    struct stile__place at;
    (void)signal;

    if (r == NULL)
        return;
    stile__place_of(context, &at);
    /* A signal of an earlier session, of a thread that had this tid before, or of somebody's kill(). */
    const uint32_t freezing = atomic_load_explicit(&r->freezing, memory_order_relaxed);
    if ((s->clocks == NULL || !tick_of(s, r, &stile__thread, info, context, &at)) && freezing == 0)
        atomic_fetch_add_explicit(&r->stale_signals, 1, memory_order_relaxed);
    if (__builtin_expect(freezing != 0, 0)) {
        if (freezing == STILE__FREEZE_CRASH)
            stile__freeze_here(r, context, 0);
        else
            stile__dump_here(s, r, &at, freezing);
    }
    stile__session_leave(s, shard);
}
