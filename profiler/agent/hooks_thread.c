/* Hooks on what makes threads and changes their signal masks, so that every thread is sampled and the program sees
 * the masks that it set itself. Normal context, in the program's threads; each falls through to libc at once when
 * there is no session. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <threads.h>

#include "profiler/agent/crash/crash.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/session.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
typedef int thrd_fn(thrd_t *, thrd_start_t, void *);
typedef int sigmask_fn(int, const sigset_t *, sigset_t *);

/* What a new thread needs before it runs what it was made for. In a fixed pool, since we may not allocate; taken by
 * the creator, given back by the new thread at once. */
struct birth {
    _Atomic bool taken;
    void *(*start)(void *);
    thrd_start_t start_c11;
    void *arg;
    size_t stack_size;
    struct stile__bounds user_stack;  /* hi 0: libc's own */
    bool program_blocks, wait_blocks; /* as the creator has them */
};
#define BIRTHS 1024
static struct birth births[BIRTHS];

static bool active(void)
{
    return (stile__session != NULL &&
            atomic_load_explicit(&stile__session->region, memory_order_relaxed) != NULL) ||
           stile__crash.pid != 0;
}

void stile__mask_restore(void)
{
    struct stile__session *s = stile__session;
    if (s == NULL || !stile__thread.program_blocks || stile__session_kept_open() != 0)
        return;
    stile__thread.program_blocks = false;
    /* A forked child without a session finds its page wiped. */
    stile__raw_sigmask(SIG_BLOCK, 1ull << ((s->signal != 0 ? s->signal : stile__signal_of_clocks()) - 1));
}

static struct birth *birth_take(void)
{
    static _Atomic uint32_t hint;
    uint32_t from = atomic_fetch_add_explicit(&hint, 1, memory_order_relaxed);
    for (uint32_t k = 0; k < BIRTHS; k++) {
        struct birth *b = &births[(from + k) % BIRTHS];
        /* Acquire pairs with birth_give's release. */
        if (!atomic_exchange_explicit(&b->taken, true, memory_order_acquire)) {
            b->program_blocks = stile__thread.program_blocks;
            b->wait_blocks = stile__thread.wait_blocks;
            return b;
        }
    }
    return NULL; /* 1024 threads between creation and start: this one goes unsampled */
}

static void birth_give(struct birth *b)
{
    atomic_store_explicit(&b->taken, false, memory_order_release);
}

static void birth_stack(struct birth *b, const pthread_attr_t *attr)
{
    pthread_attr_t dflt;
    void *addr = NULL;
    size_t size = 0;

    b->user_stack = (struct stile__bounds){0, 0};
    if (attr == NULL) {
        pthread_attr_init(&dflt); /* a plain fill, nothing to destroy */
        pthread_attr_getstacksize(&dflt, &b->stack_size);
        return;
    }
    pthread_attr_getstacksize(attr, &b->stack_size);
    /* Without a stack of the caller's the address reads as 0 - size. */
    if (pthread_attr_getstack(attr, &addr, &size) == 0 && (uintptr_t)addr + size != 0)
        b->user_stack = (struct stile__bounds){(uintptr_t)addr, (uintptr_t)addr + size};
}

/* libc puts the thread descriptor, to which the thread pointer points, into the last page of the stacks that it
 * makes itself; below it the stack is as large as was asked for. */
static void stack_learn(const struct birth *b)
{
    uintptr_t descriptor = (uintptr_t)pthread_self();
    if (b->user_stack.hi != 0) {
        stile__thread.stack = b->user_stack;
        return;
    }
    uintptr_t end = (descriptor | (STILE__PAGE - 1)) + 1;
    stile__thread.stack.hi = descriptor;
    stile__thread.stack.lo = end - (b->stack_size & ~(size_t)(STILE__PAGE - 1));
}

/* root: where the frame is of what libc calls. */
static void thread_born(const struct birth *b, const void *root)
{
    stile__thread.program_blocks = b->program_blocks;
    stile__thread.wait_blocks = b->wait_blocks;
    stack_learn(b);
    stile__thread.stack_root = (uintptr_t)root;
    stile__thread_enter(0);
}

/* Both end in a tail call, so that no frame of ours stands on the thread's stack. */
static void *thread_start(void *arg)
{
    struct birth b = *(struct birth *)arg;
    birth_give(arg);
    thread_born(&b, __builtin_frame_address(0));
    return b.start(b.arg);
}

static int thread_start_c11(void *arg)
{
    struct birth b = *(struct birth *)arg;
    birth_give(arg);
    thread_born(&b, __builtin_frame_address(0));
    return b.start_c11(b.arg);
}

STILE_EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                                void *arg)
{
    static void *cache;
    create_fn *next = (create_fn *)stile__hook_next(&cache, "pthread_create");
    struct birth *b = active() ? birth_take() : NULL;

    if (next == NULL)
        return ENOSYS;
    if (b == NULL)
        return next(thread, attr, start, arg);
    b->start = start;
    b->arg = arg;
    birth_stack(b, attr);
    int err = next(thread, attr, thread_start, b);
    if (err != 0)
        birth_give(b);
    return err;
}

STILE_EXPORT int thrd_create(thrd_t *thread, thrd_start_t start, void *arg)
{
    static void *cache;
    thrd_fn *next = (thrd_fn *)stile__hook_next(&cache, "thrd_create");
    struct birth *b = active() ? birth_take() : NULL;

    if (next == NULL)
        return thrd_error;
    if (b == NULL)
        return next(thread, start, arg);
    b->start_c11 = start;
    b->arg = arg;
    birth_stack(b, NULL);
    int err = next(thread, thread_start_c11, b);
    if (err != thrd_success)
        birth_give(b);
    return err;
}

/* Our signal stays open whatever the program asks for; what it asked for is remembered and shown to it. Only a
 * change that names our signal asks for the pid, to leave a vfork child alone: a system call costs 100 ns. */
static int mask_change(sigmask_fn *next, int how, const sigset_t *set, sigset_t *old)
{
    struct stile__session *s = stile__session;
    sigset_t ours;

    if (stile__session_kept_open() == 0) {
        stile__mask_restore();
        return next(how, set, old);
    }
    bool shown = stile__thread.program_blocks;
    bool named = set != NULL && sigismember(set, s->signal) == 1;
    bool blocks = set == NULL          ? shown
                  : how == SIG_BLOCK   ? shown || named
                  : how == SIG_UNBLOCK ? shown && !named
                                       : named;
    if ((named || shown) && s->pid != stile__raw_getpid())
        return next(how, set, old);
    if (named && how != SIG_UNBLOCK) {
        ours = *set;
        sigdelset(&ours, s->signal);
        set = &ours;
    }
    int err = next(how, set, old);
    if (err == 0) {
        stile__thread.program_blocks = blocks;
        if (old != NULL && shown)
            sigaddset(old, s->signal);
        else if (old != NULL && stile__thread.wait_blocks) /* in a handler, inside a call that we masked */
            sigdelset(old, s->signal);
    }
    return err;
}

STILE_EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    static void *cache;
    return mask_change((sigmask_fn *)stile__hook_next(&cache, "pthread_sigmask"), how, set, old);
}

STILE_EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    static void *cache;
    return mask_change((sigmask_fn *)stile__hook_next(&cache, "sigprocmask"), how, set, old);
}
