/* A table of the functions that stand behind a file's hooks. The file defines HOOKS(X), a list of their names, before
 * it includes this one. They are looked up all at once when a session starts, so that a hook first called in a signal
 * handler does not have to enter the loader; without a session, in each one's first call. */
#ifndef STILE_AGENT_HOOKS_NEXT_H
#define STILE_AGENT_HOOKS_NEXT_H

#include <stddef.h>

#include "profiler/agent/hooks.h"

#define HOOK_INDEX(name) NEXT_##name,
enum { HOOKS(HOOK_INDEX) NEXT_COUNT };
static void *nexts[NEXT_COUNT];

#define NEXT(name) ((__typeof__(&(name)))next_get(NEXT_##name, #name))

static inline void *next_get(int i, const char *name)
{
    /* Idempotent: any thread finds the same. */
    void *found = __atomic_load_n(&nexts[i], __ATOMIC_RELAXED);
    return __builtin_expect(found != NULL, 1) ? found : stile__hook_next(&nexts[i], name);
}

#define HOOK_FIND(name) next_get(NEXT_##name, #name);
static inline void nexts_find(void)
{
    HOOKS(HOOK_FIND)
}

#endif
