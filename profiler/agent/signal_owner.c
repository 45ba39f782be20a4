/* Whose our signals are: ours while our handler is installed, the program's once it sets one. Normal context,
 * called at the session's start and from the hooks. */
#include "profiler/agent/signal_owner.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "profiler/agent/crash_signals.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/log.h"
#include "profiler/agent/session.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"
#include "profiler/region/signal_name.h"

#define SIGNALS        65
#define LATE_SIGNAL_NS 1000000 /* longer than an interrupt takes to become a signal */

/* By signal number: a program may start profiles with different ones, and a late signal finds our handler. */
static struct {
    bool installed;
    struct sigaction ours;  /* while an exec is tried with the signal ignored */
    struct sigaction shown; /* what the program believes is installed */
} handlers[SIGNALS];
static int32_t owner_pid; /* a vfork child shares our memory, but has handlers of its own */
static int of_clocks = SIGPROF;

int stile__sigaction_next(int signal, const struct sigaction *act, struct sigaction *old)
{
    static void *cache;
    typedef int sigaction_fn(int, const struct sigaction *, struct sigaction *);
    return ((sigaction_fn *)stile__hook_next(&cache, "sigaction"))(signal, act, old);
}

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
static int install(int signal, stile__signal_handler *handler)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } raw;
    struct sigaction sa, old;

    int err = sigaction_next(signal, NULL, &old);
    if (err == 0 && stile__is_handler(&old))
        err = -EBUSY;
    if (err != 0)
        return err;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = handler;
    sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&sa.sa_mask);
    err = sigaction_next(signal, &sa, NULL);
    if (err == 0)
        err = (int)stile__raw_syscall(SYS_rt_sigaction, signal, 0, (long)&raw, sizeof raw.mask);
    if (err == 0) {
        raw.mask = ~0ull;
        err = (int)stile__raw_syscall(SYS_rt_sigaction, signal, (long)&raw, 0, sizeof raw.mask);
    }
    handlers[signal].shown = old;
    handlers[signal].installed = err == 0;
    return err;
}

int stile__signal_install(int signal, stile__signal_handler *handler)
{
    static stile__signal_handler *have[SIGNALS];
    int err = 0;
    if (handlers[signal].installed && have[signal] != handler) {
        /* The toggle of one session is the clocks' signal of the next: what the program sees stays as it is. */
        struct sigaction shown = handlers[signal].shown, none;
        memset(&none, 0, sizeof none);
        none.sa_handler = SIG_IGN;
        err = sigaction_next(signal, &none, NULL);
        handlers[signal].installed = false;
        if (err == 0)
            err = install(signal, handler);
        handlers[signal].shown = shown;
    } else if (!handlers[signal].installed) {
        err = install(signal, handler);
    }
    if (err == 0)
        have[signal] = handler;
    if (err == 0 && handler == stile__handle_tick)
        of_clocks = signal;
    return err;
}

int stile__signal_of_clocks(void)
{
    return of_clocks;
}

void stile__signal_owner_set(int32_t pid)
{
    owner_pid = pid;
}

bool stile__signal_owned_here(void)
{
    return owner_pid == 0 || owner_pid == stile__raw_getpid();
}

uint64_t stile__signal_before_exec(void)
{
    struct sigaction ignore;
    uint64_t ignored = 0;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    for (int i = 1; i < SIGNALS; i++)
        if (handlers[i].installed && !stile__is_handler(&handlers[i].shown) &&
            handlers[i].shown.sa_handler == SIG_IGN && sigaction_next(i, &ignore, &handlers[i].ours) == 0)
            ignored |= 1ull << (i - 1);
    return ignored;
}

void stile__signal_exec_failed(uint64_t ignored)
{
    for (int i = 1; i < SIGNALS; i++)
        if ((ignored & 1ull << (i - 1)) != 0 && sigaction_next(i, &handlers[i].ours, NULL) != 0) {
            /* It was installed like this before. */
        }
}

/* Stops all clocks for good, or leaves them as they are if it is the toggle, and says so once: two owners of one signal
 * would spoil both. */
static void signal_give_up(struct stile__session *s, int signal)
{
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    char name[STILE__SIGNAL_NAME_MAX];
    if (r == NULL)
        return;
    stile__signal_name(signal, name, sizeof name);
    if (signal == s->signal) {
        atomic_store_explicit(&s->signal_taken, true, memory_order_seq_cst);
        atomic_store_explicit(&r->signal_taken, 1, memory_order_relaxed);
        stile__threads_stop(s, r);
        stile__log(s->ticks ? "the program has set a handler of its own for %s, so the profile ends here; "
                              "PROFILE_SIGNAL=NAME chooses another signal"
                            : "the program has set a handler of its own for %s, so running threads are not "
                              "stopped for dumps; "
                              "PROFILE_SIGNAL=NAME chooses another signal",
                   name);
    } else if (signal == s->toggle) {
        atomic_store_explicit(&r->toggle_taken, 1, memory_order_relaxed);
        stile__log(
            "the program has set a handler of its own for %s, so sampling stays %s; PROFILE_TOGGLE=NAME "
            "chooses another signal",
            name, atomic_load_explicit(&s->piece, memory_order_relaxed) != 0 ? "on" : "off");
    } else if (signal == s->dump) {
        s->dump = 0;
        stile__log("the program has set a handler of its own for %s, which asks for no stacks any more; "
                   "PROFILE_DUMP=NAME chooses another signal",
                   name);
    }
    stile__session_leave(s, stile__thread_shard());
}

/* The clocks are stopped, but signals of theirs may be on their way to other threads: to ignore a signal takes away what
 * is pending everywhere, and a moment later all that was still being sent is. */
static void late_signals_drop(int signal)
{
    struct sigaction ignore;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    for (int times = 0; times < 3 && sigaction_next(signal, &ignore, NULL) == 0; times++)
        stile__raw_sleep_ns(LATE_SIGNAL_NS);
}

bool stile__signal_sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
    struct stile__session *s = stile__session;
    if (stile__crash_sigaction(signal, act, old))
        return true;
    if (signal < 1 || signal >= SIGNALS || !handlers[signal].installed || s == NULL)
        return false;
    if (act != NULL && stile__raw_getpid() != owner_pid)
        return false; /* a vfork child changes its own handlers, and looks at what it has inherited */
    /* The program may pass one structure as both. */
    struct sigaction before = handlers[signal].shown, next = act != NULL ? *act : before;
    if (stile__is_handler(&next)) {
        signal_give_up(s, signal);
        handlers[signal].installed = false;
        stile__mask_restore();
        late_signals_drop(signal);
        if (sigaction_next(signal, &next, NULL) != 0) {
            /* The kernel takes what it took before; nothing else can be wrong with it. */
        }
    } else {
        handlers[signal].shown = next;
    }
    if (old != NULL)
        *old = before;
    return true;
}
