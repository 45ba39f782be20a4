/* Exceptions pass stubs. Normal context, on the unwinding thread, which may be in a signal handler of the program. */
#include "barriers/unwind/personality.h"

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "barriers/chain.h"
#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "barriers/stub.h"
#include "barriers/unwind/self_test.h"
#include "barriers/unwind/symbols.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

/* glibc's, from 2.35 on; NULL before that: then exceptions take the barriers off the stack. */
static int (*find_object)(void *, struct dl_find_object *);

enum { UNTESTED, PASSES, FAILS };

/* An unwinder, by where it is loaded. Written once, before `at`, by whoever has claimed the place. */
static struct unwinder {
    _Atomic uintptr_t claimed, at; /* base of its module; 0: none yet */
    bool complete;                 /* all its functions are known */
    _Atomic uint32_t tested;       /* UNTESTED until somebody has: whoever comes meanwhile tests, too */
    struct stile__unwinder can;
} unwinders[STILE__LANDINGS];

/* What a program finds by that name, or NULL. */
static void (*shared_resume)(struct _Unwind_Exception *);

/* By hand: dlsym takes the loader's lock, which whoever throws need not have been waiting for. */
static void fill(struct unwinder *u, const struct link_map *map)
{
    const uintptr_t get_ip = stile__symbol_of(map, "_Unwind_GetIP");
    const uintptr_t set_ip = stile__symbol_of(map, "_Unwind_SetIP");
    const uintptr_t set_gr = stile__symbol_of(map, "_Unwind_SetGR");
    const uintptr_t raise = stile__symbol_of(map, "_Unwind_RaiseException");
    const uintptr_t backtrace = stile__symbol_of(map, "_Unwind_Backtrace");
    const uintptr_t resume = stile__symbol_of(map, "_Unwind_Resume");
    u->can.get_ip = (_Unwind_Word(*)(struct _Unwind_Context *))get_ip;
    u->can.set_ip = (void (*)(struct _Unwind_Context *, _Unwind_Word))set_ip;
    u->can.set_gr = (void (*)(struct _Unwind_Context *, int, _Unwind_Word))set_gr;
    u->can.raise = (_Unwind_Reason_Code(*)(struct _Unwind_Exception *))raise;
    u->can.backtrace = (_Unwind_Reason_Code(*)(_Unwind_Trace_Fn, void *))backtrace;
    stile__landing_resumes[u - unwinders] = (void (*)(struct _Unwind_Exception *))resume;
    u->complete = get_ip != 0 && set_ip != 0 && set_gr != 0 && raise != 0 && backtrace != 0 && resume != 0;
}

/* The unwinder that an address is in, or NULL where its functions cannot be named. No lock: see fill. */
static struct unwinder *unwinder_of(uintptr_t address)
{
    struct dl_find_object where;
    if (find_object == NULL || find_object((void *)address, &where) != 0)
        return NULL;
    uintptr_t base = (uintptr_t)where.dlfo_map_start;
    for (struct unwinder *u = unwinders; u < unwinders + STILE__LANDINGS; u++) {
        uintptr_t claimed = 0;
        if (atomic_compare_exchange_strong_explicit(&u->claimed, &claimed, base, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            fill(u, where.dlfo_link_map);
            atomic_store_explicit(&u->at, base, memory_order_release);
        } else if (claimed != base) {
            continue;
        }
        while (atomic_load_explicit(&u->at, memory_order_acquire) == 0)
            stile__raw_yield(); /* another thread looks its functions up */
        /* Another may have been loaded where it was. */
        return u->complete && stile__symbol_of(where.dlfo_link_map, "_Unwind_Resume") ==
                                  (uintptr_t)stile__landing_resumes[u - unwinders]
                   ? u
                   : NULL;
    }
    return NULL;
}

/* Once for each. */
static bool passes(struct unwinder *u)
{
    uint32_t tested = atomic_load_explicit(&u->tested, memory_order_relaxed);
    if (tested == UNTESTED) {
        tested = stile__self_test_throw(&u->can) ? PASSES : FAILS;
        atomic_store_explicit(&u->tested, tested, memory_order_relaxed);
    }
    return tested == PASSES;
}

/* Runs one change of the calling thread's barriers under its stack's lock. */
static void locked(void (*change)(struct stile__region *r, uint32_t arg), uint32_t arg)
{
    struct stile__thread *t = &stile__thread;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    bool lock = r != NULL && stile__thread_bound(t, r);
    if (lock) {
        stile__stack_lock(&t->slot->stack_lock, t->tid);
        stile__ownership_check(r, t->slot, t->tid, STILE__READER_BARRIERS, NULL);
    }
    change(r, arg);
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

static void take_off(struct stile__region *r, uint32_t why)
{
    stile__barriers_off(r, (enum stile__barriers_state)why);
    stile__thread_barriers_remove(&stile__thread, r);
}

/* An unwinder that cannot be named has come to a stub in its cleanup phase, since another one has searched, or no barrier was
 * there then, and takes it for the frame that catches: it would end the program if that one let pass. The barriers are off
 * the stack, and in this phase each frame that did not take the exception lets it pass again: so another unwinder goes on
 * from here, with the exception's own books, which all of a kind share. Returns if there is none. */
static void resume_by_another(struct _Unwind_Exception *exception)
{
    for (struct unwinder *u = unwinders; u < unwinders + STILE__LANDINGS; u++)
        if (atomic_load_explicit(&u->at, memory_order_acquire) != 0 && u->complete &&
            atomic_load_explicit(&u->tested, memory_order_relaxed) != FAILS)
            stile__landing_resumes[u - unwinders](exception);
    if (shared_resume != NULL)
        shared_resume(exception);
}

void stile__barrier_personality_set(void)
{
    if (find_object == NULL || shared_resume == NULL) {
        *(void **)&find_object = dlsym(RTLD_DEFAULT, "_dl_find_object");
        *(void **)&shared_resume = dlsym(RTLD_DEFAULT, "_Unwind_Resume");
        if (find_object == NULL || shared_resume == NULL)
            dlerror(); /* the program has made no mistake */
    }
    stile__barrier_personality_at = stile__barrier_personality;
}

void stile__barrier_unwinder_test(void)
{
    if (stile__barriers_off_why() != 0)
        return;
    /* By what personality routines use: others stand before the functions that throw, sanitizers for one. */
    void *set_ip = dlsym(RTLD_DEFAULT, "_Unwind_SetIP");
    if (set_ip == NULL) {
        dlerror(); /* the program has made no mistake */
        return;
    }
    struct unwinder *u = unwinder_of((uintptr_t)set_ip);
    if (u != NULL && !(passes(u) && stile__self_test_list(&u->can)))
        stile__barriers_off(NULL, STILE__BARRIERS_OFF_SELF_TEST);
}

void stile__barrier_personality_forked(void)
{
    for (struct unwinder *u = unwinders; u < unwinders + STILE__LANDINGS; u++)
        if (atomic_load_explicit(&u->at, memory_order_relaxed) == 0)
            atomic_store_explicit(&u->claimed, 0, memory_order_relaxed);
}

_Unwind_Reason_Code stile__barrier_personality(int version, _Unwind_Action actions,
                                               _Unwind_Exception_Class exception_class,
                                               struct _Unwind_Exception *exception,
                                               struct _Unwind_Context *context)
{
    uintptr_t caller = stile__stub_through((uintptr_t)__builtin_return_address(0));
    (void)version;
    (void)exception_class;

    struct unwinder *u = unwinder_of(caller - 1);
    uint32_t stub = u != NULL ? stile__stub_of(u->can.get_ip(context)) : STILE__STUB_NONE;
    enum stile__barriers_state why = 0;
    if (stub == STILE__STUB_NONE)
        why = STILE__BARRIERS_OFF_UNWINDER_MET;
    else if (stub != STILE__STUB_SELF_TEST && (actions & _UA_SEARCH_PHASE) != 0 && !passes(u))
        why = STILE__BARRIERS_OFF_SELF_TEST;
    if (why != 0) {
        /* What it finds after this are return addresses. A forced unwind has no other phase, and needs none. */
        locked(take_off, why);
        if ((actions & _UA_HANDLER_FRAME) != 0 && (actions & _UA_FORCE_UNWIND) == 0)
            resume_by_another(exception);
        return _URC_CONTINUE_UNWIND;
    }
    if ((actions & _UA_SEARCH_PHASE) != 0)
        return _URC_CONTINUE_UNWIND;
    locked(mark_hit, stub);
    u->can.set_gr(context, 0 /* rax */, (_Unwind_Word)(uintptr_t)exception);
    u->can.set_gr(context, 1 /* rdx */, stile__stub_ra(stub));
    u->can.set_ip(context,
                  (_Unwind_Word)(uintptr_t)(stile__landing_pool + (u - unwinders) * STILE__LANDING_BYTES));
    return _URC_INSTALL_CONTEXT;
}
