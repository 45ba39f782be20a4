/* The word that says who owns a stack. Normal context and handlers, in the program and in the collector. */
#include "barriers/ownership.h"

#include "profiler/region/layout.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* A reader copies a page and lets go, in microseconds; one that lost its processor comes back within a scheduler slice or
 * two. One that was stopped or killed must not cost the program more. */
#define YIELDS_BEFORE_SLEEP 32u
#define SLEEP_NS            50000
#ifndef SLEEPS_MAX /* a test has more patience, so that a sanitizer's look at a reader is never cut short */
#    define SLEEPS_MAX 180u /* some 20 ms, with what timers add */
#endif

#define NUMBER_ONE  (1ull << STILE__STACK_NUMBER_SHIFT)
#define NUMBER_MASK (0xffffffull << STILE__STACK_NUMBER_SHIFT)
#define SCANS_ONE   (1ull << STILE__STACK_SCANS_SHIFT)
#define SCANS_MASK  (0xffffull << STILE__STACK_SCANS_SHIFT)

/* Another state of the same thread and count of scans. */
static uint64_t with_state(uint64_t status, enum stile__stack_state state)
{
    return (status & (SCANS_MASK | NUMBER_MASK)) | (uint64_t)state;
}

void stile__stack_begin(_Atomic uint64_t *status)
{
    uint64_t was = atomic_load_explicit(status, memory_order_relaxed);
    atomic_store_explicit(status, with_state(was, STILE__STACK_RUNNING), memory_order_release);
}

static bool wait_enter(_Atomic uint64_t *status, enum stile__wait_reason why)
{
    uint64_t was = atomic_load_explicit(status, memory_order_relaxed);
    if (stile__stack_state(was) != STILE__STACK_RUNNING)
        return false;
    uint64_t number = (was + NUMBER_ONE) & NUMBER_MASK;
    uint64_t now = (was & SCANS_MASK) | number | (uint64_t)why << STILE__STACK_REASON_SHIFT |
                   (uint64_t)STILE__STACK_WAITING;
    /* Nobody else changes the word of a running thread. Release: a reader that sees it sees what was left. Sequentially consistent: who
     * looks at `freezing` after it sees a dump that has looked at the word before it. */
    return atomic_compare_exchange_strong_explicit(status, &was, now, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

bool stile__stack_wait(_Atomic uint64_t *status, enum stile__wait_reason why)
{
    return !stile__wait_executes(why) && wait_enter(status, why);
}

bool stile__stack_wait_executing(_Atomic uint64_t *status, enum stile__wait_reason why)
{
    return stile__wait_executes(why) && wait_enter(status, why);
}

bool stile__stack_resume_try(_Atomic uint64_t *status, const _Atomic uint32_t *freezing, uint64_t *was)
{
    /* The word first: if a freeze begins after the look at it, and a reader comes, the exchange fails. */
    uint64_t now = atomic_load_explicit(status, memory_order_seq_cst);
    *was = now;
    if (stile__stack_state(now) != STILE__STACK_WAITING || (now & STILE__STACK_SCAN) != 0 ||
        (freezing != NULL && atomic_load_explicit(freezing, memory_order_seq_cst) != 0))
        return false;
    return atomic_compare_exchange_strong_explicit(status, &now, with_state(now, STILE__STACK_RUNNING),
                                                   memory_order_seq_cst, memory_order_relaxed);
}

/* Lets time pass. True once there was enough of it for any reader. */
static bool reader_waited_for(unsigned tries)
{
    if (tries < YIELDS_BEFORE_SLEEP)
        stile__raw_yield();
    else
        stile__raw_sleep_ns(SLEEP_NS);
    return tries >= YIELDS_BEFORE_SLEEP + SLEEPS_MAX;
}

/* Takes the word from a reader that does not let go. The count of scans moves on, as if it had: its own scan_end finds
 * another word. What it has told is void, so the count moves by two: the side stays. */
static void scan_break(_Atomic uint64_t *status, uint64_t scanned)
{
    uint64_t now = (scanned & ~STILE__STACK_SCAN) + 2 * SCANS_ONE;
    atomic_compare_exchange_strong_explicit(status, &scanned, now, memory_order_acq_rel,
                                            memory_order_relaxed);
}

/* Whoever stops the world may be killed before it lets go, and may be another process: a dump's second is over then, and so is the half
 * minute that the report of a crash may take. What is left of a dump is taken away, or each later wait would stand as long. */
static bool freeze_over(_Atomic uint32_t *freezing, uint32_t why, unsigned slept)
{
    if (slept < (why == STILE__FREEZE_CRASH ? 30u : 1u) * (1000000000u / SLEEP_NS))
        return false;
    atomic_compare_exchange_strong_explicit(freezing, &why, 0, memory_order_seq_cst, memory_order_relaxed);
    return true;
}

uint64_t stile__stack_resume(_Atomic uint64_t *status, _Atomic uint32_t *freezing)
{
    uint64_t was;
    uint32_t why = 0;
    unsigned slept = 0;
    for (unsigned tries = 0; !stile__stack_resume_try(status, freezing, &was);) {
        if (stile__stack_state(was) != STILE__STACK_WAITING)
            return was; /* a handler has seen that the wait was left, and it runs already */
        if ((was & STILE__STACK_SCAN) != 0 && reader_waited_for(tries++))
            scan_break(status, was);
        const uint32_t now = freezing != NULL ? atomic_load_explicit(freezing, memory_order_relaxed) : 0;
        if (now != why)
            slept = 0; /* another freeze */
        why = now;
        if (now != 0 && freeze_over(freezing, now, slept)) {
            freezing = NULL;
        } else if (now != 0) {
            stile__raw_sleep_ns(SLEEP_NS);
            slept++;
        }
    }
    return was;
}

void stile__stack_die(_Atomic uint64_t *status)
{
    for (unsigned tries = 0;;) {
        uint64_t was = atomic_load_explicit(status, memory_order_acquire);
        if ((was & STILE__STACK_SCAN) != 0) {
            if (reader_waited_for(tries++))
                scan_break(status, was);
            continue;
        }
        if (atomic_compare_exchange_weak_explicit(status, &was, with_state(was, STILE__STACK_DEAD),
                                                  memory_order_acq_rel, memory_order_relaxed))
            return;
    }
}

enum stile__scan stile__scan_begin(_Atomic uint64_t *status, uint64_t *seen)
{
    uint64_t was = atomic_load_explicit(status, memory_order_seq_cst);
    switch (stile__stack_state(was)) {
    case STILE__STACK_RUNNING:
        return STILE__SCAN_RUNNING;
    case STILE__STACK_WAITING:
        break;
    default:
        return STILE__SCAN_GONE;
    }
    if (stile__wait_executes(stile__stack_reason(was)))
        return STILE__SCAN_EXECUTES;
    *seen = was | STILE__STACK_SCAN;
    /* Acquire pairs with wait_enter's release: what was left is there. */
    if ((was & STILE__STACK_SCAN) != 0 ||
        !atomic_compare_exchange_strong_explicit(status, &was, *seen, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return STILE__SCAN_BUSY;
    return STILE__SCAN_TAKEN;
}

static bool scan_leave(_Atomic uint64_t *status, uint64_t seen, uint64_t scans)
{
    uint64_t now = (seen & ~STILE__STACK_SCAN) + scans;
    /* Release pairs with resume's acquire: the reader is done with what was left. */
    return atomic_compare_exchange_strong_explicit(status, &seen, now, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

bool stile__scan_end(_Atomic uint64_t *status, uint64_t seen)
{
    return scan_leave(status, seen, SCANS_ONE);
}

bool stile__scan_drop(_Atomic uint64_t *status, uint64_t seen)
{
    return scan_leave(status, seen, 2 * SCANS_ONE);
}

enum stile__unsafe stile__barriers_safe(uint64_t status, bool async, bool traced)
{
    if (stile__stack_state(status) == STILE__STACK_WAITING) {
        if (!stile__wait_executes(stile__stack_reason(status)))
            return STILE__UNSAFE_WAITS;
        if (traced)
            return STILE__UNSAFE_EXECUTES;
    } else if (stile__stack_state(status) != STILE__STACK_RUNNING) {
        return STILE__UNSAFE_TRANSITION;
    }
    return async ? STILE__UNSAFE_ASYNC : STILE__SAFE;
}
