/* The stack lock. The handler tries it (async-signal-safe); normal context waits for it. */
#include "barriers/stack_lock.h"

#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* A holder works for microseconds; one that was preempted comes back within a scheduler slice or two. */
#define SPINS_BEFORE_SLEEP 64
#define SLEEP_NS           50000
#define SLEEPS_MAX         10000 /* half a second at least */

bool stile__stack_trylock(_Atomic uint32_t *lock, uint32_t tid)
{
    uint32_t none = 0;
    return atomic_compare_exchange_strong_explicit(lock, &none, tid, memory_order_acquire,
                                                   memory_order_relaxed);
}

void stile__stack_lock(_Atomic uint32_t *lock, uint32_t tid)
{
    for (unsigned tries = 0; !stile__stack_trylock(lock, tid); tries++) {
        if (atomic_load_explicit(lock, memory_order_relaxed) == tid)
            return; /* taken over from a step that was left by longjmp; only we could release it */
        if (tries >= SPINS_BEFORE_SLEEP + SLEEPS_MAX) {
            /* No holder takes so long: the word is damaged, or its owner was ended. Waiting on would hang the thread. */
            atomic_store_explicit(lock, tid, memory_order_relaxed);
            return;
        }
        if (tries < SPINS_BEFORE_SLEEP)
            stile__raw_yield();
        else
            stile__raw_sleep_ns(SLEEP_NS);
    }
}

void stile__stack_unlock(_Atomic uint32_t *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release); /* pairs with the trylock's acquire */
}
