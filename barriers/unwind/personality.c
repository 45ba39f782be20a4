/* Exceptions pass stubs. Normal context, on the unwinding thread, which may be in a signal handler of the program. */
#include "barriers/unwind/personality.h"

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "barriers/chain.h"
#include "barriers/stack_lock.h"
#include "barriers/stub.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

/* What one unwinder offers, by where it is loaded. Written once, before `at`, by whoever has claimed the place. */
static struct unwinder {
    _Atomic uintptr_t claimed, at; /* base of its module; 0: none yet */
    bool complete;                 /* all its functions are known */
    _Unwind_Word (*get_ip)(struct _Unwind_Context *);
    void (*set_ip)(struct _Unwind_Context *, _Unwind_Word);
    void (*set_gr)(struct _Unwind_Context *, int, _Unwind_Word);
} unwinders[STILE__LANDINGS];

/* A function of the module that is loaded at a base, or NULL. */
static void *function_of(struct link_map *map, const void *base, const char *name)
{
    Dl_info where;
    void *function = dlsym(map, name); /* of the main program's map: anything in the global scope */
    return function != NULL && dladdr(function, &where) != 0 && where.dli_fbase == base ? function : NULL;
}

static void fill(struct unwinder *u, struct link_map *map, const void *base)
{
    void *get_ip = function_of(map, base, "_Unwind_GetIP");
    void *set_ip = function_of(map, base, "_Unwind_SetIP");
    void *set_gr = function_of(map, base, "_Unwind_SetGR");
    void *resume = function_of(map, base, "_Unwind_Resume");
    u->get_ip = (_Unwind_Word(*)(struct _Unwind_Context *))(uintptr_t)get_ip;
    u->set_ip = (void (*)(struct _Unwind_Context *, _Unwind_Word))(uintptr_t)set_ip;
    u->set_gr = (void (*)(struct _Unwind_Context *, int, _Unwind_Word))(uintptr_t)set_gr;
    stile__landing_resumes[u - unwinders] = (void (*)(struct _Unwind_Exception *))(uintptr_t)resume;
    u->complete = get_ip != NULL && set_ip != NULL && set_gr != NULL && resume != NULL;
}

/* The unwinder that an address is in, or NULL where its functions cannot be named. */
static const struct unwinder *unwinder_of(uintptr_t address)
{
    Dl_info where;
    struct link_map *map = NULL;
    if (dladdr1((void *)address, &where, (void **)&map, RTLD_DL_LINKMAP) == 0 || map == NULL)
        return NULL;
    uintptr_t base = (uintptr_t)where.dli_fbase;
    for (struct unwinder *u = unwinders; u < unwinders + STILE__LANDINGS; u++) {
        uintptr_t claimed = 0;
        if (atomic_compare_exchange_strong_explicit(&u->claimed, &claimed, base, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            fill(u, map, where.dli_fbase);
            atomic_store_explicit(&u->at, base, memory_order_release);
        } else if (claimed != base) {
            continue;
        }
        while (atomic_load_explicit(&u->at, memory_order_acquire) == 0)
            stile__raw_yield(); /* another thread looks its functions up */
        return u->complete ? u : NULL;
    }
    return NULL;
}

/* Runs one change of the calling thread's barriers under its stack's lock. */
static void locked(void (*change)(struct stile__region *r, uint32_t stub), uint32_t stub)
{
    struct stile__thread *t = &stile__thread;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    bool lock = r != NULL && t->slot != NULL && t->region == r;
    if (lock)
        stile__stack_lock(&t->slot->stack_lock, t->tid);
    change(r, stub);
    if (lock)
        stile__stack_unlock(&t->slot->stack_lock);
    if (r != NULL)
        stile__session_leave(stile__session, stile__thread_shard());
    stile__raw_sigmask(SIG_SETMASK, mask);
}

static void mark_hit(struct stile__region *r, uint32_t stub)
{
    (void)r;
    atomic_store_explicit(&stile__stub_entries[stub].hit, 1, memory_order_relaxed);
}

static void take_off(struct stile__region *r, uint32_t stub)
{
    (void)stub;
    stile__thread_barriers_remove(&stile__thread, r);
}

void stile__barrier_personality_set(void)
{
    stile__barrier_personality_at = stile__barrier_personality;
}

_Unwind_Reason_Code stile__barrier_personality(int version, _Unwind_Action actions,
                                               _Unwind_Exception_Class exception_class,
                                               struct _Unwind_Exception *exception,
                                               struct _Unwind_Context *context)
{
    uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    uint32_t barrier = stile__stub_of(caller);
    (void)version;
    (void)exception_class;

    if (barrier != STILE__STUB_NONE)
        caller = stile__stub_ra(barrier);
    const struct unwinder *u = unwinder_of(caller - 1);
    uint32_t stub = u != NULL ? stile__stub_of(u->get_ip(context)) : STILE__STUB_NONE;
    if (stub == STILE__STUB_NONE) {
        /* What it finds after this are return addresses. A forced unwind has no other phase, and needs none. */
        stile__barriers_never();
        locked(take_off, stub);
        return _URC_CONTINUE_UNWIND;
    }
    if ((actions & _UA_SEARCH_PHASE) != 0)
        return _URC_CONTINUE_UNWIND;
    locked(mark_hit, stub);
    u->set_gr(context, 0 /* rax */, (_Unwind_Word)(uintptr_t)exception);
    u->set_gr(context, 1 /* rdx */, stile__stub_ra(stub));
    u->set_ip(context,
              (_Unwind_Word)(uintptr_t)(stile__landing_pool + (u - unwinders) * STILE__LANDING_BYTES));
    return _URC_INSTALL_CONTEXT;
}
