/* The barriers of one thread: which stand on its stack, and what its next sample may trust.
 *
 *   walk      meets a stub: is it trusted? Then the frames above are those of the last base record, and the walk ends.
 *             Otherwise it goes on at the return address that the stub stands for.
 *             Passes places where a barrier may stand: proposes them. A stub is taken, and in no slot yet.
 *   publish   the record goes to the collector.
 *   commit    the barriers below the one where the walk ended are dead: they retire. Those proposed go into their slots.
 *   abandon   instead, if the record is no base: nothing changes.
 *
 * Invariants
 *  - The chain, youngest first, is what stands on the stack of the last published base record. Nothing else is trusted, and
 *    that only where the slot that the walk came to is the entry's, and the entry is not hit: the frame that would return
 *    through it is still there, and so are its callers.
 *  - Only walks that ended at the root or at a trusted barrier retire anything: as far as they went they have seen who is
 *    inside a stub.
 *  - A slot is written only by its own thread, and only if it holds what it should: the address just walked, or the stub.
 *  - All steps run with all signals blocked, under the lock of the stack: in the thread's handler, or in normal context
 *    (exceptions, the thread's end, fork, stop). After each step every slot holds a return address, or a stub whose entry
 *    is right. So whoever unwinds this stack from outside, at any instruction, finds the same callers.
 *  - Slots lie on the thread's own stack, never in a fiber's, nor in a coroutine's or on an alternate stack that is an array in
 *    one of the thread's frames: a base record is of one stack from its innermost frame to the thread's outermost one.
 *    Whoever was switched away from inside a stub there would not be seen. */
#ifndef STILE_BARRIERS_CHAIN_H
#define STILE_BARRIERS_CHAIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "barriers/stub.h"
#include "profiler/region/layout.h"

struct stile__bounds;

/* Private to its thread; zeros at first. Lists are of stubs by number, linked by their entries. */
struct stile__barriers {
    uint64_t session;       /* in which the chain is trusted: the id of the thread's slot, or 0 */
    uint32_t first, n_live; /* the chain */
    uint32_t leaving;       /* dead stubs that somebody was seen inside, or for whom nobody has looked yet */
    uint32_t pending, pending_last; /* proposed by the walk under way, youngest first */
    uint32_t idle, idle_last;       /* to be used, those longest unused first */
    uint32_t n_idle;
    uint32_t walk; /* its number */
    uint32_t stop; /* the barrier where it ended, or STILE__STUB_NONE */
    bool starved;  /* there was no stub to be had */
    bool deep;     /* the last base's stack was one on which barriers pay */
    /* Since they were last taken. */
    uint32_t placed, hit, retired, restored;
};

/* Where a thread is while its barriers are changed. */
struct stile__barrier_place {
    const struct stile__bounds *stack; /* the thread's own */
    uint64_t sp; /* its stack pointer there; the end of the stack if it is on another one */
};

/* From now on no barrier is placed in this process, in this session, if there is one, and any later one. Async-signal-safe. */
void stile__barriers_off(struct stile__region *r, enum stile__barriers_state why);

/* Why that was, or 0: it was not. A session that begins asks. Async-signal-safe. */
enum stile__barriers_state stile__barriers_off_why(void);

/* Whether barriers may be placed, and those that stand be trusted. Acquire: see struct stile__region. */
static inline bool stile__barriers_go(struct stile__region *r)
{
    return atomic_load_explicit(&r->barriers_state, memory_order_acquire) == STILE__BARRIERS_GO;
}

/* Before a walk in a session whose barriers may be used. */
void stile__barriers_begin(struct stile__barriers *b, uint64_t session,
                           const struct stile__barrier_place *at);

/* Whether a walk that has come to a stub in a slot may end there. */
static inline bool stile__barrier_trusted(const struct stile__barriers *b, uint32_t stub, uint64_t slot)
{
    const struct stile__stub_entry *e = &stile__stub_entries[stub];
    return b != NULL && e->state == STILE__STUB_LIVE && e->slot == slot &&
           !atomic_load_explicit(&e->hit, memory_order_relaxed);
}

/* The youngest barrier that stands above a stack pointer, on the thread's own stack, or STILE__STUB_NONE. Its frame may have
 * been left without a return: whoever trusts it has to come to its slot. */
uint32_t stile__barrier_above(const struct stile__barriers *b, uint64_t sp);

/* The walk has found an interrupted context inside a stub. Returns where that goes on. */
static inline uint64_t stile__barrier_inside(struct stile__barriers *b, uint32_t stub)
{
    if (b != NULL)
        stile__stub_entries[stub].seen = b->walk;
    return stile__stub_ra(stub);
}

/* Whether a walk need look for places at all. With `auto` it does from the second sample of a deep stack on, so that shallow
 * ones cost what they do without barriers. */
static inline bool stile__barriers_look(const struct stile__barriers *b, enum stile__barriers_wish wish)
{
    return wish != STILE__BARRIERS_AUTO || b->deep;
}

/* Whether a barrier pays: as the depth-th of n frames walked, of total ones on the stack. */
bool stile__barrier_worth(enum stile__barriers_wish wish, uint32_t depth, uint32_t n, uint32_t total);

/* Proposes a barrier: the slot holds ra, and is the return address of the frame that is the depth-th from the leaf, counted
 * from 1. Deeper ones later. False: there is no stub to be had. */
bool stile__barrier_propose(struct stile__barriers *b, uint64_t slot, uint64_t ra, uint32_t depth);

/* The walk of n frames, which ended at b->stop or at the root, was published as a base. */
void stile__barriers_commit(struct stile__barriers *b, uint32_t n, enum stile__barriers_wish wish,
                            const struct stile__barrier_place *at);

/* It was not. */
void stile__barriers_abandon(struct stile__barriers *b);

/* Takes all barriers off the thread's stack; its stubs stay its own. */
void stile__barriers_remove(struct stile__barriers *b, const struct stile__barrier_place *at);

/* After that: gives its stubs back. */
void stile__barriers_give_back(struct stile__barriers *b);

/* Adds what was counted to the thread's counts, which only it writes. */
void stile__barriers_count(struct stile__barriers *b, struct stile__barrier_counts *counts);

#endif
