/* A dump: the collector has stopped the world and wants this thread's stack, or the program's user asks for all of them by a signal.
 * Runs in the signal handler. */
#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define PARK_STEP_NS 1000000
#define PARK_STEPS   1000u /* a second: the collector lets go within half of that, unless it was killed */

/* Leaves the calling thread's stack in its ring, as the answer to `freezing`, or to none. */
static bool stack_leave(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                        const struct stile__place *at, uint32_t freezing)
{
    const uint32_t cells = stile__slot_cells(s->size, (uint32_t)t->id);
    uint64_t commit;
    struct stile__record *record =
        stile__ring_reserve(stile__session_ring(s, r, (uint32_t)t->id), cells, &t->slot->head, &t->slot->tail,
                            STILE__WALK_CELLS_MAX(cells), &commit);
    if (record == NULL)
        return false;
    stile__record_init(s, r, t, record, 0);
    record->piece = freezing;
    record->flags = STILE__IS_DUMP;
    record->n_new = record->n_inline = 1;
    record->words[0] = stile__stub_through(at->regs[REG_RIP]);
    if (stile__stack_trylock(&t->slot->stack_lock, t->tid)) {
        stile__ownership_check(r, t->slot, t->tid, STILE__READER_SAMPLE, at->regs);
        stile__walk(s, r, t, at, record);
        stile__stack_unlock(&t->slot->stack_lock);
    } else {
        record->kind = STILE__RECORD_WALKED;
        record->reason = STILE__REASON_STACK_LOCKED;
    }
    stile__ring_shrink(
        record, record->n_inline + (record->kind != STILE__RECORD_WALKED ? STILE__REG_COUNT : 0), &commit);
    stile__ring_commit(&t->slot->head, commit);
    return true;
}

static bool bound(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                  const struct stile__place *at)
{
    return stile__thread_bound(t, r) || stile__thread_bind(s, r, t, at->regs[REG_RSP]);
}

__attribute__((noinline)) void stile__dump_here(struct stile__session *s, struct stile__region *r,
                                                const struct stile__place *at, uint32_t freezing)
{
    struct stile__thread *t = &stile__thread;
    if (t->dumped == freezing || !bound(s, r, t, at))
        return;
    t->dumped = freezing; /* once: whatever the word says, it stops nobody for ever */
    if (!stack_leave(s, r, t, at, freezing))
        return;
    for (unsigned i = 0;
         i < PARK_STEPS && atomic_load_explicit(&r->freezing, memory_order_acquire) == freezing; i++)
        stile__raw_sleep_ns(PARK_STEP_NS);
}

bool stile__dump_self(struct stile__session *s, struct stile__region *r, const struct stile__place *at)
{
    struct stile__thread *t = &stile__thread;
    return bound(s, r, t, at) && stack_leave(s, r, t, at, 0);
}
