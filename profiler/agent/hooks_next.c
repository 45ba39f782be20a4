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

static const void *object_of(const void *function)
{
    Dl_info info;
    return dladdr(function, &info) != 0 ? info.dli_fbase : NULL;
}

void *stile__hook_next_version(void **cache, const char *name, const char *version)
{
    void *found = dlvsym(RTLD_NEXT, name, version), *any = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        dlerror();
        return stile__hook_next(cache, name);
    }
    /* Another library that wraps libc has no versions, and stands before it. */
    if (any != NULL && object_of(any) != object_of(found))
        found = any;
    __atomic_store_n(cache, found, __ATOMIC_RELAXED);
    return found;
}
