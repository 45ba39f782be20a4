/* How many threads of this process wait on what has a given address, as far as our hooks know: what a waker asks, and keeps
 * apart from what libc's own word says, which may outlast the waiters. Addresses that collide are counted together, and a wait
 * left by a jump stays counted: then a wake-up may be told that none was, of a lock or condition that is in use anyway. Any
 * context; nothing is touched but the table. */
#ifndef STILE_AGENT_WAITERS_H
#define STILE_AGENT_WAITERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define STILE__WAITERS_BITS 9

/* In each word the lower half counts who waits, and the upper half who of them was told to have been woken. */
struct stile__waiters {
    _Atomic uint32_t words[1u << STILE__WAITERS_BITS];
};

static inline _Atomic uint32_t *stile__waiters_of(struct stile__waiters *w, const void *thing)
{
    return &w->words[(uintptr_t)thing / 8 * 0x9e3779b97f4a7c15u >> (64 - STILE__WAITERS_BITS)];
}

/* Relaxed throughout: who waits says so before it does, under the lock that orders it with its waker, or is missed. */
static inline void stile__waiters_add(struct stile__waiters *w, const void *thing)
{
    _Atomic uint32_t *word = stile__waiters_of(w, thing);
    uint32_t now = atomic_load_explicit(word, memory_order_relaxed);
    while ((now & 0xffff) != 0xffff && !atomic_compare_exchange_weak_explicit(
                                           word, &now, now + 1, memory_order_relaxed, memory_order_relaxed))
        ;
}

/* woken: by somebody, as far as libc says. */
static inline void stile__waiters_remove(struct stile__waiters *w, const void *thing, bool woken)
{
    _Atomic uint32_t *word = stile__waiters_of(w, thing);
    uint32_t now = atomic_load_explicit(word, memory_order_relaxed), next;
    do {
        uint32_t waiting = now & 0xffff, told = now >> 16;
        waiting -= waiting != 0; /* 0: forgotten at the start of another session */
        told -= told != 0 && woken;
        next = (told < waiting ? told : waiting) << 16 | waiting;
    } while (
        !atomic_compare_exchange_weak_explicit(word, &now, next, memory_order_relaxed, memory_order_relaxed));
}

static inline bool stile__waiters_any(struct stile__waiters *w, const void *thing)
{
    return (atomic_load_explicit(stile__waiters_of(w, thing), memory_order_relaxed) & 0xffff) != 0;
}

/* Whether one who waits was not told to be woken yet; from now on it is, or all are. */
static inline bool stile__waiters_tell(struct stile__waiters *w, const void *thing, bool all)
{
    _Atomic uint32_t *word = stile__waiters_of(w, thing);
    uint32_t now = atomic_load_explicit(word, memory_order_relaxed), next;
    do {
        uint32_t waiting = now & 0xffff, told = now >> 16;
        if (told >= waiting)
            return false;
        next = (all ? waiting : told + 1) << 16 | waiting;
    } while (
        !atomic_compare_exchange_weak_explicit(word, &now, next, memory_order_relaxed, memory_order_relaxed));
    return true;
}

static inline void stile__waiters_forget(struct stile__waiters *w)
{
    for (unsigned i = 0; i < 1u << STILE__WAITERS_BITS; i++)
        atomic_store_explicit(&w->words[i], 0, memory_order_relaxed);
}

#endif
