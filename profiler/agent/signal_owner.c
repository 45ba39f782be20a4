/* Whose the profiling signal is: ours while our handler is installed, the program's once it sets one. Normal context,
 * called at the session's start and from the hooks. */
#include "profiler/agent/signal_owner.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "profiler/agent/hooks.h"
#include "profiler/agent/log.h"
#include "profiler/agent/on_stack.h"
#include "profiler/agent/session.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

static struct {
    bool installed;
    int signal;
    int32_t pid;            /* a vfork child shares our memory, but has handlers of its own */
    struct sigaction ours;  /* while an exec is tried with the signal ignored */
    struct sigaction shown; /* what the program believes is installed */
} handler;

static int sigaction_next(int signal, const struct sigaction *act, struct sigaction *old)
{
    return stile__sigaction_next(signal, act, old) == 0 ? 0 : -errno;
}

bool stile__is_handler(const struct sigaction *act)
{
    return (act->sa_flags & SA_SIGINFO) != 0 || (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN);
}

/* Installs the handler once; it stays, since a signal may come late. sigfillset leaves libc's two internal signals
 * open, so the mask is set to all ones past libc, which also keeps libc's restorer in place. */
int stile__signal_install(int signal)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } raw;
    struct sigaction sa, old;

    if (handler.installed)
        return 0;
    int err = sigaction_next(signal, NULL, &old);
    if (err == 0 && stile__is_handler(&old))
        err = -EBUSY;
    if (err != 0)
        return err;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = stile__handle_tick;
    sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&sa.sa_mask);
    err = sigaction_next(signal, &sa, NULL);
    if (err == 0)
        err = (int)stile__raw_syscall(SYS_rt_sigaction, signal, 0, (long)&raw, sizeof raw.mask);
    if (err == 0) {
        raw.mask = ~0ull;
        err = (int)stile__raw_syscall(SYS_rt_sigaction, signal, (long)&raw, 0, sizeof raw.mask);
    }
    handler.signal = signal;
    handler.shown = old;
    handler.installed = err == 0;
    return err;
}

void stile__signal_owner_set(int32_t pid)
{
    handler.pid = pid;
}

bool stile__signal_owned_here(void)
{
    return handler.pid == 0 || handler.pid == stile__raw_getpid();
}

bool stile__signal_before_exec(void)
{
    struct sigaction ignore;
    if (!handler.installed || stile__is_handler(&handler.shown) || handler.shown.sa_handler != SIG_IGN)
        return false;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    return sigaction_next(handler.signal, &ignore, &handler.ours) == 0;
}

void stile__signal_exec_failed(void)
{
    if (sigaction_next(handler.signal, &handler.ours, NULL) != 0) {
        /* It was installed like this before. */
    }
}

/* Stops all clocks for good, and says so once: two owners of one signal would spoil both. */
static void signal_give_up(struct stile__session *s)
{
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r == NULL)
        return;
    atomic_store_explicit(&s->signal_taken, true, memory_order_relaxed);
    atomic_store_explicit(&r->signal_taken, 1, memory_order_relaxed);
    stile__threads_stop(s, r);
    stile__session_leave(s, stile__thread_shard());
    stile__log("the program has set a handler of its own for SIGPROF; the profile ends here");
}

bool stile__signal_sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
    struct stile__session *s = stile__session;
    if (!handler.installed || signal != handler.signal || s == NULL)
        return false;
    if (act != NULL && stile__raw_getpid() != handler.pid)
        return false; /* a vfork child changes its own handlers, and looks at what it has inherited */
    /* The program may pass one structure as both. */
    struct sigaction before = handler.shown, next = act != NULL ? *act : before;
    if (stile__is_handler(&next)) {
        signal_give_up(s);
        handler.installed = false;
        stile__mask_restore();
        if (stile__on_stack_sigaction(signal, &next, NULL) != 0) {
            /* The kernel takes what it took before; nothing else can be wrong with it. */
        }
    } else {
        handler.shown = next;
    }
    if (old != NULL)
        *old = before;
    return true;
}
