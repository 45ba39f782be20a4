/* The hooks of a file that are called so often that each instruction counts. The file defines HOT(X), a list of
 * X(name, type, lacking): the hook, what its only argument points to, and what stands in for a function that libc does not
 * have; for each, a function record_NAME; and then HOT(HOT_HOOK). A hook is a jump: to libc's own function while no waits are recorded, else to record_NAME. Both leave the
 * hook's caller as theirs. What libc has is looked up by hand at first, since a lock may be taken in a signal handler, before
 * this library is set up or even relocated, and by a malloc that the loader itself calls. */
#ifndef STILE_AGENT_HOOKS_HOT_H
#define STILE_AGENT_HOOKS_HOT_H

#include <stdbool.h>
#include <stdint.h>

#include "barriers/unwind/symbols.h"
#include "profiler/agent/hooks_next.h"

#define HOT_INDEX(name, type, lacking) HOT_##name,
enum { HOT(HOT_INDEX) HOT_COUNT };
static void *hot[HOT_COUNT];

/* Idempotent: any thread finds the same, and none undoes hot_set. */
static void *hot_find(int i, const char *name, void *lacking)
{
    void *none = NULL, *found = (void *)stile__symbol_next(name);
    if (found == NULL)
        found = lacking;
    __atomic_compare_exchange_n(&hot[i], &none, found, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return found;
}

/* The hook itself, and what it does the first time. */
#define HOT_HOOK(name, type, lacking)                                                                        \
    static __attribute__((noinline)) int first_##name(__typeof__(type) *it)                                  \
    {                                                                                                        \
        return ((int (*)(__typeof__(type) *))hot_find(HOT_##name, #name, (void *)(lacking)))(it);            \
    }                                                                                                        \
    STILE_EXPORT int name(__typeof__(type) *it)                                                              \
    {                                                                                                        \
        int (*to)(__typeof__(type) *) =                                                                      \
            (int (*)(__typeof__(type) *))__atomic_load_n(&hot[HOT_##name], __ATOMIC_RELAXED);                \
        return __builtin_expect(to != NULL, 1) ? to(it) : first_##name(it);                                  \
    }

/* What stands behind a hook, for record_NAME, which is never called before that is found. */
#define FOUND(name) ((__typeof__(&(name)))__atomic_load_n(&nexts[NEXT_##name], __ATOMIC_RELAXED))

static inline void hot_set(int i, void *recording, void *next, void *lacking, bool on)
{
    void *to = next == NULL ? lacking : on ? recording : next;
    __atomic_store_n(&hot[i], to, __ATOMIC_RELAXED);
}

#define HOT_SET(name, type, lacking)                                                                         \
    hot_set(HOT_##name, (void *)record_##name, (void *)FOUND(name), (void *)(lacking), on);
#define HOT_RECORD(on_)                                                                                      \
    do {                                                                                                     \
        bool on = on_;                                                                                       \
        HOT(HOT_SET)                                                                                         \
    } while (0)

#endif
