/* What stands behind the hooks on functions that go by their own return address. As symbols.c: no relocated data. */
#include "barriers/unwind/caller_hooks.h"

#include "barriers/unwind/symbols.h"

static const char names[STILE__CALLER_HOOKS][16] = {
    [STILE__CALLER_DLSYM] = "dlsym",
    [STILE__CALLER_DLVSYM] = "dlvsym",
    [STILE__CALLER_DLOPEN] = "dlopen",
    [STILE__CALLER_DLMOPEN] = "dlmopen",
    [STILE__CALLER_GETCONTEXT] = "getcontext",
    [STILE__CALLER_SWAPCONTEXT] = "swapcontext",
    [STILE__CALLER_SETJMP] = "setjmp",
    [STILE__CALLER__SETJMP] = "_setjmp",
    [STILE__CALLER___SIGSETJMP] = "__sigsetjmp",
    [STILE__CALLER_VFORK] = "vfork",
    [STILE__CALLER___VFORK] = "__vfork",
};

uintptr_t stile__caller_nexts[STILE__CALLER_HOOKS];

uintptr_t stile__caller_next(enum stile__caller_hook hook)
{
    uintptr_t found = __atomic_load_n(&stile__caller_nexts[hook], __ATOMIC_RELAXED);
    if (found == 0) { /* any thread finds the same */
        found = stile__symbol_next(names[hook]);
        __atomic_store_n(&stile__caller_nexts[hook], found, __ATOMIC_RELAXED);
    }
    return found;
}

void stile__caller_nexts_find(void)
{
    for (unsigned i = 0; i < STILE__CALLER_HOOKS; i++)
        stile__caller_next(i);
}
