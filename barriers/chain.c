/* The barriers of one thread: the lists that a stub goes through, and the slots. Runs in the signal handler, and in normal
 * context with all signals blocked. */
#include "barriers/chain.h"

#include "barriers/call_site.h"
#include "profiler/agent/session.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* A stub that is free was hit or dead when somebody last looked, but he may have been interrupted inside it where no walk
 * comes (a context that a signal handler has switched away from): it rests while so many others are used. */
#define QUARANTINE 32u

/* Barriers on a stack, beyond which those are taken off that lie closer than at doubling distances need be: twice what
 * the deepest stack has left after that. */
#define LIVE_MAX 64u

/* A barrier saves a walk to the next one: where that is nearer than a part of the way to here, it is not worth a stub. */
#define NEAR_PART 4u

/* PROFILE_BARRIERS=auto: frames of a stack from which on barriers pay (./dev bench depth). */
#define AUTO_DEPTH 100u

#define HANDLER_BYTES 1024u /* below a frame of ours, that its callees may be using */

static _Atomic uint32_t off; /* in this process, for good: enum stile__barriers_state, or 0 */

void stile__barriers_off(struct stile__region *r, enum stile__barriers_state why)
{
    uint32_t none = 0;
    atomic_compare_exchange_strong_explicit(&off, &none, why, memory_order_relaxed, memory_order_relaxed);
    if (r != NULL)
        stile__barriers_state_off(r, why);
}

enum stile__barriers_state stile__barriers_off_why(void)
{
    return (enum stile__barriers_state)atomic_load_explicit(&off, memory_order_relaxed);
}

static struct stile__stub_entry *entry(uint32_t stub)
{
    return &stile__stub_entries[stub];
}

static void idle_append(struct stile__barriers *b, uint32_t stub)
{
    entry(stub)->state = STILE__STUB_IDLE;
    entry(stub)->next = STILE__STUB_NONE;
    if (b->idle == STILE__STUB_NONE)
        b->idle = stub;
    else
        entry(b->idle_last)->next = stub;
    b->idle_last = stub;
    b->n_idle++;
}

/* The stub that was free for the longest time, if enough others are. */
static uint32_t idle_take(struct stile__barriers *b)
{
    if (b->n_idle <= QUARANTINE) {
        uint32_t chunk = stile__stub_chunk_take();
        if (chunk == UINT32_MAX) {
            stile__fault_starved();
            return STILE__STUB_NONE;
        }
        for (uint32_t stub = chunk * STILE__STUB_CHUNK, end = stub + STILE__STUB_CHUNK; stub < end; stub++)
            if (stub > STILE__STUB_SELF_TEST && stub < stile__fault_stubs())
                idle_append(b, stub);
    }
    uint32_t stub = b->idle;
    b->idle = entry(stub)->next;
    b->n_idle--;
    return stub;
}

/* Whether a slot may be looked at. Above the stack pointer there are frames; below it the program may have made pages
 * inaccessible since they were used, and our own frames may lie there. */
static bool slot_there(const struct stile__barrier_place *at, uint64_t slot)
{
    const uint64_t here = (uintptr_t)__builtin_frame_address(0);
    if (slot < at->stack->lo || slot >= at->stack->hi)
        return false;
    if (slot >= here - HANDLER_BYTES && slot < at->sp && here < at->stack->hi && here >= at->stack->lo)
        return false;
    return slot >= (at->sp & ~(uint64_t)(STILE__PAGE - 1)) ||
           stile__raw_readable(slot & ~(uint64_t)(STILE__PAGE - 1));
}

/* Puts the return address back where the stub still stands. */
static void slot_restore(struct stile__barriers *b, const struct stile__barrier_place *at, uint32_t stub)
{
    struct stile__stub_entry *e = entry(stub);
    if (!slot_there(at, e->slot))
        return;
    /* At once: a fiber whose stack lies in a frame of this one may be running on another thread. */
    uint64_t stands = stile__stub_address(stub);
    if (atomic_compare_exchange_strong_explicit((_Atomic uint64_t *)e->slot, &stands, stile__stub_ra(stub),
                                                memory_order_relaxed, memory_order_relaxed))
        b->restored++;
}

/* Takes the first one off the chain. */
static uint32_t chain_pop(struct stile__barriers *b)
{
    uint32_t stub = b->first;
    b->first = entry(stub)->next;
    b->n_live--;
    if (atomic_load_explicit(&entry(stub)->hit, memory_order_relaxed))
        b->hit++;
    else
        b->retired++;
    return stub;
}

static void leaving_add(struct stile__barriers *b, uint32_t stub)
{
    entry(stub)->state = STILE__STUB_LEAVING;
    entry(stub)->next = b->leaving;
    b->leaving = stub;
}

/* Takes a stub that is on no list any more out of use. */
static void retire(struct stile__barriers *b, const struct stile__barrier_place *at, uint32_t stub)
{
    slot_restore(b, at, stub);
    idle_append(b, stub);
}

void stile__barriers_begin(struct stile__barriers *b, uint64_t session, const struct stile__barrier_place *at)
{
    if (b->session != session) {
        stile__barriers_remove(b, at);
        b->session = session;
    }
    b->walk++;
    b->stop = STILE__STUB_NONE;
}

uint32_t stile__barrier_above(const struct stile__barriers *b, uint64_t sp)
{
    for (uint32_t stub = b->first; stub != STILE__STUB_NONE; stub = entry(stub)->next)
        if (entry(stub)->slot >= sp && stile__barrier_trusted(b, stub, entry(stub)->slot) &&
            *(const uint64_t *)entry(stub)->slot == stile__stub_address(stub))
            return stub;
    return STILE__STUB_NONE;
}

bool stile__barrier_worth(enum stile__barriers_wish wish, uint32_t depth, uint32_t n, uint32_t total)
{
    if (wish == STILE__BARRIERS_ALL)
        return true;
    return n - depth >= depth / NEAR_PART && (wish != STILE__BARRIERS_AUTO || total >= AUTO_DEPTH);
}

bool stile__barrier_propose(struct stile__barriers *b, uint64_t slot, uint64_t ra, uint32_t depth)
{
    uint32_t stub = idle_take(b);
    if (stub == STILE__STUB_NONE) {
        b->starved = true;
        return false;
    }
    struct stile__stub_entry *e = entry(stub);
    atomic_store_explicit(&e->ra, ra, memory_order_relaxed);
    atomic_store_explicit(&e->hit, 0, memory_order_relaxed);
    e->slot = slot;
    e->kept = depth;
    e->state = STILE__STUB_PENDING;
    e->next = STILE__STUB_NONE;
    if (b->pending == STILE__STUB_NONE)
        b->pending = stub;
    else
        entry(b->pending_last)->next = stub;
    b->pending_last = stub;
    return true;
}

/* What was proposed and not placed was in no slot: it is first in the queue again. */
static void pending_drop(struct stile__barriers *b, uint32_t stub)
{
    entry(stub)->state = STILE__STUB_IDLE;
    entry(stub)->next = b->idle;
    if (b->idle == STILE__STUB_NONE)
        b->idle_last = stub;
    b->idle = stub;
    b->n_idle++;
}

void stile__barriers_abandon(struct stile__barriers *b)
{
    while (b->pending != STILE__STUB_NONE) {
        uint32_t stub = b->pending;
        b->pending = entry(stub)->next;
        pending_drop(b, stub);
    }
}

/* Whether the walk would have seen somebody inside a stub: his frame lies right above the slot. */
static bool walked_past(const struct stile__barriers *b, uint32_t stub)
{
    return b->stop == STILE__STUB_NONE || entry(stub)->slot < entry(b->stop)->slot;
}

/* Those that the walk did not come to are dead, down to where it ended. Somebody may be inside: he is not to be sent
 * elsewhere. He may also be further up, under the handler of a signal in whose frames the walk has ended. */
static void younger_retire(struct stile__barriers *b, const struct stile__barrier_place *at)
{
    uint32_t left = STILE__STUB_NONE;
    for (uint32_t stub = b->leaving, next; stub != STILE__STUB_NONE; stub = next) {
        next = entry(stub)->next;
        if (entry(stub)->seen != b->walk && walked_past(b, stub)) {
            retire(b, at, stub);
        } else {
            entry(stub)->next = left;
            left = stub;
        }
    }
    b->leaving = left;
    while (b->first != b->stop && b->first != STILE__STUB_NONE) {
        uint32_t stub = chain_pop(b);
        if (entry(stub)->seen == b->walk)
            leaving_add(b, stub);
        else
            retire(b, at, stub);
    }
}

/* Puts a stub whose entry is right into its slot, if the return address is still there. At once: a walk that was led astray
 * may have taken a word for a return address that another thread writes. */
static bool slot_fill(uint32_t stub)
{
    struct stile__stub_entry *e = entry(stub);
    _Atomic uint64_t *slot = (_Atomic uint64_t *)e->slot;
    const uint64_t ra = stile__stub_ra(stub);
    const bool changes = stile__fault(STILE__FAULT_SLOT, 1);
    if (changes)
        atomic_store_explicit(slot, ~ra, memory_order_relaxed);
    /* The stub goes where its entry says: so the entry first. */
    atomic_signal_fence(memory_order_release);
    uint64_t stands = ra;
    bool filled = atomic_compare_exchange_strong_explicit(slot, &stands, stile__stub_address(stub),
                                                          memory_order_relaxed, memory_order_relaxed);
    if (changes) {
        if (filled)
            __builtin_trap();
        atomic_store_explicit(slot, ra, memory_order_relaxed);
    }
    return filled;
}

/* Puts what was proposed into its slots, oldest last, and before the rest of the chain. */
static void pending_place(struct stile__barriers *b, uint32_t n, uint32_t total,
                          enum stile__barriers_wish wish)
{
    uint32_t *link = &b->pending, older = b->first;
    while (*link != STILE__STUB_NONE) {
        uint32_t stub = *link;
        struct stile__stub_entry *e = entry(stub);
        uint32_t depth = e->kept;
        if (!stile__barrier_worth(wish, depth, n, total) || !slot_fill(stub)) {
            *link = e->next;
            pending_drop(b, stub);
            continue;
        }
        e->kept = total - depth;
        e->state = STILE__STUB_LIVE;
        b->n_live++;
        b->placed++;
        link = &e->next;
    }
    *link = older;
    b->first = b->pending;
    b->pending = STILE__STUB_NONE;
}

/* Takes off what stands closer than at doubling distances from the leaf: a sample costs at most twice as much, and there
 * are twice the logarithm of the depth. */
static void chain_thin(struct stile__barriers *b, uint32_t total, const struct stile__barrier_place *at)
{
    uint32_t younger = b->first;
    while (younger != STILE__STUB_NONE && entry(younger)->next != STILE__STUB_NONE) {
        uint32_t stub = entry(younger)->next, older = entry(stub)->next;
        if (older == STILE__STUB_NONE ||
            total - entry(older)->kept > 2 * (uint64_t)(total - entry(younger)->kept)) {
            younger = stub;
            continue;
        }
        entry(younger)->next = older;
        b->n_live--;
        b->retired++;
        retire(b, at, stub);
    }
}

/* As if the program had rewritten its frames: the stubs are gone, and were not hit. */
static void barriers_lose(struct stile__barriers *b)
{
    uint32_t stub = STILE__FAULTY ? b->first : STILE__STUB_NONE;
    for (; stub != STILE__STUB_NONE; stub = entry(stub)->next) {
        uint64_t *slot = (uint64_t *)entry(stub)->slot;
        if (*slot == stile__stub_address(stub) && stile__fault(STILE__FAULT_GONE, 1))
            *slot = stile__stub_ra(stub);
    }
}

void stile__barriers_commit(struct stile__barriers *b, uint32_t n, enum stile__barriers_wish wish,
                            const struct stile__barrier_place *at)
{
    uint32_t total = n + (b->stop != STILE__STUB_NONE ? entry(b->stop)->kept : 0);
    b->deep = total >= AUTO_DEPTH;
    younger_retire(b, at);
    pending_place(b, n, total, wish);
    if ((b->n_live > LIVE_MAX && wish != STILE__BARRIERS_ALL) || b->starved)
        chain_thin(b, total, at);
    b->starved = false;
    barriers_lose(b);
}

void stile__barriers_remove(struct stile__barriers *b, const struct stile__barrier_place *at)
{
    stile__barriers_abandon(b);
    while (b->first != STILE__STUB_NONE) {
        uint32_t stub = chain_pop(b);
        slot_restore(b, at, stub);
        leaving_add(b, stub); /* no walk has looked whether somebody is inside */
    }
    b->session = 0;
}

void stile__barriers_give_back(struct stile__barriers *b)
{
    while (b->leaving != STILE__STUB_NONE) {
        uint32_t stub = b->leaving;
        b->leaving = entry(stub)->next;
        idle_append(b, stub);
    }
    /* One of each chunk, before any chunk may be another thread's. */
    uint32_t chunks = STILE__STUB_NONE;
    for (uint32_t stub = b->idle, next; stub != STILE__STUB_NONE; stub = next) {
        next = entry(stub)->next;
        if (stub % STILE__STUB_CHUNK == STILE__STUB_CHUNK - 1) {
            entry(stub)->next = chunks;
            chunks = stub;
        }
    }
    b->idle = b->idle_last = STILE__STUB_NONE;
    b->n_idle = 0;
    while (chunks != STILE__STUB_NONE) {
        uint32_t stub = chunks;
        chunks = entry(stub)->next;
        stile__stub_chunk_give_back(stub / STILE__STUB_CHUNK);
    }
}

static void add(_Atomic uint64_t *counter, uint32_t *n)
{
    if (*n != 0)
        atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + *n,
                              memory_order_relaxed);
    *n = 0;
}

void stile__barriers_count(struct stile__barriers *b, struct stile__barrier_counts *counts)
{
    add(&counts->placed, &b->placed);
    add(&counts->hit, &b->hit);
    add(&counts->retired, &b->retired);
    add(&counts->restored, &b->restored);
}
