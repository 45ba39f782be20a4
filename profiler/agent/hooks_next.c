/* What stands behind a hook. Normal context: the hooks, and the session's start. */
#include <dlfcn.h>
#include <stddef.h>

#include "profiler/agent/hooks.h"

void *stile__hook_next(void **cache, const char *name)
{
    void *found = __atomic_load_n(cache, __ATOMIC_RELAXED); /* idempotent: any thread finds the same */
    if (found == NULL) {
        found = dlsym(RTLD_NEXT, name);
        __atomic_store_n(cache, found, __ATOMIC_RELAXED);
    }
    return found;
}
