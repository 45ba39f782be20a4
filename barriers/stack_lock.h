/* The lock of a stack: who holds it may read the stack and change the barriers on it.
 *
 * One word in the thread's slot: 0, or the owner's tid. The SIGPROF handler only tries; it never waits. Normal
 * context holds it with all signals blocked, so that the handler of the same thread cannot find it half-way. Every
 * step taken under it leaves a consistent state, so its own holder may take it again: a handler of the program
 * that longjmped away while holding it must not hang the thread for ever. */
#ifndef STILE_BARRIERS_STACK_LOCK_H
#define STILE_BARRIERS_STACK_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Takes the lock if nobody has it. Async-signal-safe; never waits. Acquire, pairs with the unlock's release. */
bool stile__stack_trylock(_Atomic uint32_t *lock, uint32_t tid);

/* Takes the lock, waiting for another holder (yield, then sleep). Normal context with all signals blocked. If
 * `tid` itself holds it already, takes over; also from a holder that has not let go after half a second and more,
 * which no holder takes: the word lies in memory that the program can write. */
void stile__stack_lock(_Atomic uint32_t *lock, uint32_t tid);

/* Gives the lock back. Async-signal-safe; only the holder calls it. */
void stile__stack_unlock(_Atomic uint32_t *lock);

#endif
