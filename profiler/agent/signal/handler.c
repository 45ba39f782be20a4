/* First stage of a sample: the signal arrives. Decides whether the tick is ours, takes the stack or steps over it,
 * and publishes one record. Runs in the signal handler. */
#include "profiler/agent/signal/handler.h"

#include <ucontext.h>

#include "barriers/stack_lock.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* The kernel's order of general registers to DWARF's. */
void stile__registers_of(const ucontext_t *uc, uint64_t *regs)
{
    static const uint8_t order[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                    REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                    REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    for (int i = 0; i < STILE__REG_COUNT; i++)
        regs[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
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

/* A thread that was there before the session finds the slot that was opened for it: its timer's signal names it. */
static bool bind(struct stile__session *s, struct stile__region *r, struct stile__thread *t, uint64_t id,
                 uint64_t rsp)
{
    uint32_t i = (uint32_t)id;
    if (i >= s->slot_max)
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
    t->id = id;
    t->tid = tid;
    if (t->stack.hi == 0)
        bounds_find(s, t, rsp);
    return true;
}

/* Adds to a counter that only this thread's handler writes. */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

void stile__tick_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const uint64_t *regs, uint32_t ticks)
{
    uint64_t commit;

    count(&t->slot->ticks, ticks);
    struct stile__record *record =
        stile__ring_reserve(stile__region_ring(r, s->slot_max, (uint32_t)t->id), &t->slot->head,
                            &t->slot->tail, stile__record_cells(STILE__WALK_WORDS), &commit);
    if (record == NULL) {
        count(&t->slot->lost_ns, ticks * s->period_ns);
        count(&t->slot->lost_ticks, ticks);
        return;
    }
    record->kept = 0;
    record->label_set = 0;
    record->ticks = ticks;
    record->weight_ns = ticks * s->period_ns;
    record->reason = STILE__REASON_NONE;
    record->block = STILE__BLOCK_NONE;
    record->stack_len = 0;
    record->piece = 0;
    if (s->toggle != 0) {
        /* Pairs with the fence in clock_off: it has seen this tick counted, or we see that the piece is stopped. */
        atomic_thread_fence(memory_order_seq_cst);
        record->piece =
            atomic_load_explicit(&t->slot->piece, memory_order_acquire); /* with clock_on's release */
    }
    record->n_new = 1;
    record->words[0] = regs[STILE__REG_RIP];
    /* The holder may be the very code that this signal interrupted: never wait for it. */
    if (stile__stack_trylock(&t->slot->stack_lock, t->tid)) {
        stile__walk(s, r, t, regs, record);
        stile__stack_unlock(&t->slot->stack_lock);
    } else {
        record->reason = STILE__REASON_STACK_LOCKED;
    }
    stile__ring_commit(&t->slot->head, commit);
}

static void tick(struct stile__session *s, struct stile__region *r, const siginfo_t *info,
                 const ucontext_t *uc)
{
    struct stile__thread *t = &stile__thread;
    uint64_t carried = (uint64_t)(uintptr_t)info->si_value.sival_ptr, id = carried & ~STILE__ID_PIECE_BITS;
    uint64_t regs[STILE__REG_COUNT];

    stile__registers_of(uc, regs);
    /* A signal of an earlier session, of a thread that had this tid before, of somebody's kill(), or of a piece that
     * has been stopped. */
    if (info->si_code != SI_TIMER ||
        ((t->slot == NULL || t->region != r || t->id != id) && !bind(s, r, t, id, regs[STILE__REG_RSP])) ||
        stile__id_piece_bits(atomic_load_explicit(&t->slot->piece, memory_order_relaxed)) !=
            (carried & STILE__ID_PIECE_BITS)) {
        atomic_fetch_add_explicit(&r->stale_signals, 1, memory_order_relaxed);
        return;
    }
    count(&t->slot->signals, 1);
    stile__tick_take(s, r, t, regs, 1 + (info->si_overrun > 0 ? (uint32_t)info->si_overrun : 0));
}

void stile__handle_tick(int signal, siginfo_t *info, void *context)
{
    struct stile__session *s = stile__session;
    uint32_t shard = stile__thread_shard();
    struct stile__region *r = stile__session_enter(s, shard);
    (void)signal;

    if (r == NULL)
        return;
    tick(s, r, info, context);
    stile__session_leave(s, shard);
}
