/* What stands behind a hook. Normal context: the hooks, and the session's start. */
#include <dlfcn.h>
#include <stddef.h>

#include "barriers/unwind/symbols.h"
#include "profiler/agent/hooks.h"

void *stile__hook_next(void **cache, const char *name)
{
    void *found = __atomic_load_n(cache, __ATOMIC_RELAXED); /* idempotent: any thread finds the same */
    if (found == NULL) {
        found = dlsym(RTLD_NEXT, name);
        if (found == NULL) { /* this library was linked behind libc, or the loader itself calls */
            dlerror();
            found = (void *)stile__symbol_next(name);
        }
        __atomic_store_n(cache, found, __ATOMIC_RELAXED);
    }
    return found;
}

void *stile__hook_next_version(void **cache, const char *name, const char *version)
{
    void *found = dlvsym(RTLD_NEXT, name, version);
    if (found == NULL) {
        dlerror();
        return stile__hook_next(cache, name);
    }
    __atomic_store_n(cache, found, __ATOMIC_RELAXED);
    return found;
}
