/* Who owns a stack. One word in each thread's slot says what the thread does; whoever is not the owner may not read what is
 * the owner's. (The lock of barriers/stack_lock.h is among those who run on the thread: code and the handlers that interrupt
 * it. This word is between threads, and processes.)
 *
 *            wait                        scan_begin
 *   RUNNING ─────▶ WAITING(reason, n) ───────────────▶ WAITING + SCAN
 *      ▲  │  ◀─────     ▲   resume    └─ by a reader         │
 *      │  │ die         └──────────────────────────────── scan_end
 *   begin ▼
 *      DEAD
 *
 * Invariants
 *  - While a thread is RUNNING its stack and what it leaves are its own alone. It walks its stack itself, leaves the result, and
 *    only then becomes WAITING (release; pairs with scan_begin's acquire): events come before the transition.
 *  - Whoever has SCAN owns what the thread left, until scan_end. The thread comes back from its wait meanwhile, but not out of
 *    it: resume waits for scan_end (its acquire pairs with scan_end's release). Its stack itself nobody but it ever reads.
 *  - A wait in which the thread executes (stile__wait_executes) is never given away: scan_begin refuses it.
 *  - While `freezing` is set nobody leaves a wait. scan_end changes the word for good (it counts scans), so that a resume which
 *    had looked at `freezing` before it was set cannot succeed after a reader was there: whom a reader has seen waiting, under
 *    a freeze, does not run before it ends. So threads go from running to stopped, never back.
 *  - Numbers make words unlike: of a wait, that no reader takes a later one for it; of scans, as said.
 *  - A reader may die with SCAN, be stopped, or lie in another process: a resume that has waited long enough takes the word by
 *    force. That reader's scan_end fails, and all that it has read or written is void.
 *  - One reader tells: the collector. A reader that lost its scan by force, and does not know yet, writes to the side that is
 *    not valid; another one that tells would have made that side the valid one meanwhile. So all others leave told_ns alone, and
 *    end by scan_drop.
 *
 * Model: tests/models/ownership.pml. Async-signal-safe throughout. */
#ifndef STILE_BARRIERS_OWNERSHIP_H
#define STILE_BARRIERS_OWNERSHIP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/waits.h"

enum stile__stack_state { STILE__STACK_NONE, STILE__STACK_RUNNING, STILE__STACK_WAITING, STILE__STACK_DEAD };

/* The word: state, SCAN, reason, number of the wait, count of scans. */
#define STILE__STACK_SCAN         (1ull << 8)
#define STILE__STACK_REASON_SHIFT 16
#define STILE__STACK_NUMBER_SHIFT 24
#define STILE__STACK_SCANS_SHIFT  48

static inline enum stile__stack_state stile__stack_state(uint64_t status)
{
    return (enum stile__stack_state)(status & 0xff);
}
static inline enum stile__wait_reason stile__stack_reason(uint64_t status)
{
    return (enum stile__wait_reason)(status >> STILE__STACK_REASON_SHIFT & 0xff);
}
/* Of a wait: distinguishes it from the ones before and after it. */
static inline uint32_t stile__stack_number(uint64_t status)
{
    return (uint32_t)(status >> STILE__STACK_NUMBER_SHIFT) & 0xffffff;
}
/* Which of stile__left's told_ns is valid. */
static inline unsigned stile__stack_side(uint64_t status)
{
    return (unsigned)(status >> STILE__STACK_SCANS_SHIFT) & 1;
}

/* The owner's. */

/* A thread has the slot: RUNNING. Nobody else has it then. */
void stile__stack_begin(_Atomic uint64_t *status);

/* RUNNING -> WAITING. False: the thread was not running. */
bool stile__stack_wait(_Atomic uint64_t *status, enum stile__wait_reason why);

/* The same for waits in which the thread executes. False also for a reason that is not in their table. */
bool stile__stack_wait_executing(_Atomic uint64_t *status, enum stile__wait_reason why);

/* WAITING -> RUNNING, once no reader has SCAN and no freeze is on. Returns the word as it was in the last moment of the
 * wait. May sleep: 20 ms at most for a reader, as long as the freeze lasts for that, a second at most for a dump's and half a minute for
 * a crash's; a dump that lasts longer is ended. */
uint64_t stile__stack_resume(_Atomic uint64_t *status, _Atomic uint32_t *freezing);

/* The same without waiting, for a handler: false if a reader or a freeze is in the way. *was is set if true. */
bool stile__stack_resume_try(_Atomic uint64_t *status, const _Atomic uint32_t *freezing, uint64_t *was);

/* The thread leaves the slot: DEAD. Waits for a reader as resume does, not for a freeze. */
void stile__stack_die(_Atomic uint64_t *status);

/* A reader's. */

enum stile__scan {
    STILE__SCAN_TAKEN,
    STILE__SCAN_RUNNING,  /* the thread runs: its stack is its own */
    STILE__SCAN_EXECUTES, /* it waits, and executes all the same */
    STILE__SCAN_BUSY,     /* another reader has it, or the word has just changed */
    STILE__SCAN_GONE      /* there is no thread */
};

/* Takes SCAN, or says why not; never waits. *seen is what scan_end needs. */
enum stile__scan stile__scan_begin(_Atomic uint64_t *status, uint64_t *seen);

/* Lets go. Before that the reader has set told_ns[!stile__stack_side(*seen)], which only the collector does. False: the owner
 * has taken the word by force; whatever was read is void. */
bool stile__scan_end(_Atomic uint64_t *status, uint64_t seen);

/* The same for all other readers, who have only read: the side stays. */
bool stile__scan_drop(_Atomic uint64_t *status, uint64_t seen);

/* Why no barrier may be placed on a stack just now; each is one test. */
enum stile__unsafe {
    STILE__SAFE,
    STILE__UNSAFE_TRANSITION, /* the thread has no slot yet, or has given it up */
    STILE__UNSAFE_WAITS,      /* in a system call or a lock: a handler of the program runs inside its wait */
    STILE__UNSAFE_EXECUTES,   /* the same, in code of ours, while waits are recorded */
    STILE__UNSAFE_ASYNC       /* a signal's frame lies between here and there */
};

/* The caller is the thread, or has SCAN. async: what is to be changed lies beyond a signal's frame. traced: waits are recorded. */
enum stile__unsafe stile__barriers_safe(uint64_t status, bool async, bool traced);

#endif
