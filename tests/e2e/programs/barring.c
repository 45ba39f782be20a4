/* See barring.h. It has an unwinder of its own (-static-libgcc), whatever the program's may be. At its end it appends what
 * was placed and what was hit to the file $BARRING_REPORT. */
#include "barring.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <unwind.h>

#include "barriers/call_site.h"
#include "barriers/chain.h"
#include "barriers/unwind/personality.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

#define SHOWN   __attribute__((visibility("default")))
#define SESSION 1u /* any number */

static _Atomic uint32_t placed, hit;
static pthread_key_t thread_key;

struct walk {
    uintptr_t from; /* the first slot */
    uint32_t depth;
};

static _Unwind_Reason_Code propose(struct _Unwind_Context *context, void *arg)
{
    struct walk *w = arg;
    const uintptr_t ra = _Unwind_GetIP(context), slot = _Unwind_GetCFA(context) - sizeof ra;
    if (slot < w->from || slot >= stile__thread.stack.hi) /* ours, or of a handler on an alternate stack */
        return _URC_NO_REASON;
    w->depth++;
    /* A signal's frame, and what it interrupted, are returned to by no return address that a call left. */
    if (ra != 0 && *(const uintptr_t *)slot == ra && stile__call_precedes(ra))
        stile__barrier_propose(&stile__thread.barriers, slot, ra, w->depth);
    return _URC_NO_REASON;
}

static void count(void)
{
    struct stile__barriers *b = &stile__thread.barriers;
    atomic_fetch_add_explicit(&placed, b->placed, memory_order_relaxed);
    atomic_fetch_add_explicit(&hit, b->hit, memory_order_relaxed);
    b->placed = b->hit = 0;
}

static void stack_find(void)
{
    pthread_attr_t attr;
    void *lo;
    size_t size;
    if (stile__thread.stack.hi != 0)
        return;
    pthread_getattr_np(pthread_self(), &attr);
    pthread_attr_getstack(&attr, &lo, &size);
    pthread_attr_destroy(&attr);
    stile__thread.stack.lo = (uintptr_t)lo;
    stile__thread.stack.hi = (uintptr_t)lo + size;
    pthread_setspecific(thread_key, &stile__thread);
}

SHOWN void unbar_stack(void)
{
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    stile__thread_barriers_remove(&stile__thread, NULL);
    count();
    stile__raw_sigmask(SIG_SETMASK, mask);
}

SHOWN __attribute__((noipa)) unsigned bar_stack(void)
{
    struct stile__barriers *b = &stile__thread.barriers;
    stack_find();
    unbar_stack();
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct walk w = {.from = (uintptr_t)__builtin_frame_address(0) + sizeof(uintptr_t)};
    const bool own = w.from >= stile__thread.stack.lo && w.from < stile__thread.stack.hi;
    if (!own)
        w.from = stile__thread.stack.lo;
    const struct stile__barrier_place at = {&stile__thread.stack, own ? w.from : stile__thread.stack.hi};
    stile__barriers_begin(b, SESSION, &at);
    if (stile__barriers_off_why() == 0) {
        _Unwind_Backtrace(propose, &w);
        stile__barriers_commit(b, w.depth, STILE__BARRIERS_ALL, &at);
    }
    count();
    unsigned standing = b->n_live;
    stile__raw_sigmask(SIG_SETMASK, mask);
    return standing;
}

SHOWN int bar_at(uintptr_t address)
{
    return stile__stub_of(address) != STILE__STUB_NONE ? (int)((address - stile__stubs) % STILE__STUB_BYTES)
                                                       : -1;
}

SHOWN int bar_landing_at(uintptr_t address)
{
    const uintptr_t at = address - (uintptr_t)stile__landing_pool;
    return at < STILE__LANDINGS * STILE__LANDING_BYTES ? (int)(at % STILE__LANDING_BYTES) : -1;
}

SHOWN uintptr_t bar_landing(unsigned k)
{
    return k < STILE__LANDINGS ? (uintptr_t)stile__landing_pool + k * STILE__LANDING_BYTES : 0;
}

static void thread_end(void *unused)
{
    (void)unused;
    unbar_stack();
    stile__barriers_give_back(&stile__thread.barriers);
}

__attribute__((constructor)) static void begin(void)
{
    pthread_key_create(&thread_key, thread_end);
    stile__barrier_personality_set();
    stile__barrier_unwinder_test();
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("BARRING_REPORT");
    char line[64];
    unbar_stack();
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    int n = snprintf(line, sizeof line, "placed %u hit %u\n", placed, hit);
    if (write(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}
