/* A program sets SA_ONSTACK and no alternate stack: its handler runs on the thread's stack, and has to do so when there
 * is an alternate stack of ours. So the flag is kept from the kernel until the program sets a first stack itself; what
 * it is shown has it. Handlers set before ours are as they are. Normal context, and the program's signal handlers: no
 * lock. */
#include "profiler/agent/on_stack.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "profiler/agent/hooks.h"
#include "profiler/agent/signal_owner.h"

static _Atomic bool ours,
    programs; /* some thread has, or had, an alternate stack of ours; of the program's */
static _Atomic uint64_t
    kept_off; /* signals whose handlers lack in the kernel the flag that the program set */

int stile__sigaction_next(int signal, const struct sigaction *act, struct sigaction *old)
{
    static void *cache;
    typedef int sigaction_fn(int, const struct sigaction *, struct sigaction *);
    return ((sigaction_fn *)stile__hook_next(&cache, "sigaction"))(signal, act, old);
}

static uint64_t bit_of(int signal)
{
    return 1ull << (signal - 1);
}

static bool same(const struct sigaction *a, const struct sigaction *b)
{
    return a->sa_handler == b->sa_handler && a->sa_flags == b->sa_flags;
}

/* Gives one handler its flag. Another thread may set one at the same time, with the flag as it likes: if ours came
 * after that, theirs goes back. */
static void flag_restore(int signal)
{
    struct sigaction now, flagged, before;
    atomic_fetch_and_explicit(&kept_off, ~bit_of(signal), memory_order_seq_cst);
    if (stile__sigaction_next(signal, NULL, &now) != 0 || !stile__is_handler(&now) ||
        (now.sa_flags & SA_ONSTACK))
        return;
    flagged = now;
    flagged.sa_flags |= SA_ONSTACK;
    if (stile__sigaction_next(signal, &flagged, &before) == 0 && !same(&before, &now))
        stile__sigaction_next(signal, &before, NULL);
}

void stile__on_stack_ours(void)
{
    atomic_store_explicit(&ours, true, memory_order_relaxed);
}

void stile__on_stack_programs(void)
{
    if (atomic_load_explicit(&programs, memory_order_relaxed))
        return;
    /* Sequentially consistent, as in stile__on_stack_sigaction: either that sees this, or we see its bit. */
    atomic_store_explicit(&programs, true, memory_order_seq_cst);
    uint64_t left = atomic_load_explicit(&kept_off, memory_order_seq_cst);
    for (; left != 0; left &= left - 1)
        flag_restore(__builtin_ctzll(left) + 1);
}

void stile__on_stack_forget(int signal)
{
    if (signal < 1 || signal > 64 ||
        (atomic_load_explicit(&kept_off, memory_order_relaxed) & bit_of(signal)) == 0 ||
        !stile__signal_owned_here())
        return;
    atomic_fetch_and_explicit(&kept_off, ~bit_of(signal), memory_order_relaxed);
}

/* For a signal of which the flag is kept off, or is about to be. */
static int sigaction_flagged(int signal, const struct sigaction *act, struct sigaction *old, bool wants)
{
    bool keep_off = wants && !atomic_load_explicit(&programs, memory_order_relaxed);
    struct sigaction plain;
    uint64_t before = atomic_load_explicit(&kept_off, memory_order_relaxed);

    if (keep_off) {
        plain = *act;
        plain.sa_flags &= ~SA_ONSTACK;
        act = &plain;
        before = atomic_fetch_or_explicit(&kept_off, bit_of(signal), memory_order_seq_cst);
    }
    bool shown = (before & bit_of(signal)) != 0, sets = act != NULL;
    int err = stile__sigaction_next(signal, act, old);
    if (err != 0) {
        if (keep_off && !shown)
            atomic_fetch_and_explicit(&kept_off, ~bit_of(signal), memory_order_relaxed);
        return err;
    }
    if (old != NULL && shown)
        old->sa_flags |= SA_ONSTACK;
    if (sets && !keep_off)
        atomic_fetch_and_explicit(&kept_off, ~bit_of(signal), memory_order_relaxed);
    if (keep_off && atomic_load_explicit(&programs, memory_order_seq_cst))
        flag_restore(signal);
    return 0;
}

int stile__on_stack_sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
    bool wants = act != NULL && (act->sa_flags & SA_ONSTACK) && stile__is_handler(act);
    if (!atomic_load_explicit(&ours, memory_order_relaxed) || signal < 1 || signal > 64 ||
        (!wants && (atomic_load_explicit(&kept_off, memory_order_relaxed) & bit_of(signal)) == 0) ||
        !stile__signal_owned_here()) /* a vfork child's handlers are its own */
        return stile__sigaction_next(signal, act, old);
    return sigaction_flagged(signal, act, old, wants);
}
