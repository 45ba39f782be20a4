/* Our signal is kept blocked for the time of a call that it would break off with EINTR. Normal context: the hooks on
 * such calls.
 *
 * The thread's `wait_blocks` says that it is us who block it, so that a handler of the program which runs inside the
 * call is shown a mask without it. Such a handler may also leave the call by longjmp, and the signal stays blocked:
 * the next such call in this thread sees the flag and opens it at its end. Where the signal is really blocked and the
 * flag is not set, it is not ours to open (a handler's sa_mask, a vfork child's own mask): it stays as found. */
#ifndef STILE_AGENT_WAIT_MASK_H
#define STILE_AGENT_WAIT_MASK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

struct stile__wait {
    uint64_t ours;   /* our signal's bit, not 0 */
    bool open_after; /* our signal has to be opened by us at the end */
};

/* Blocks our signal. */
static inline struct stile__wait stile__wait_block(uint64_t ours)
{
    bool left_blocked = stile__thread.wait_blocks;
    stile__thread.wait_blocks = true; /* first: a handler may run as soon as it is so */
    bool blocked = (stile__raw_sigmask(SIG_BLOCK, ours) & ours) != 0;
    if (blocked && !left_blocked)
        stile__thread.wait_blocks = false;
    return (struct stile__wait){ours, !blocked || left_blocked};
}

/* For a call that takes a mask: *mask is the thread's present one and our signal. */
static inline struct stile__wait stile__wait_query(uint64_t ours, sigset_t *mask)
{
    bool left_blocked = stile__thread.wait_blocks;
    uint64_t now = stile__raw_sigmask(SIG_BLOCK, 0);
    sigemptyset(mask);
    mask->__val[0] = now | ours;
    stile__thread.wait_blocks = (now & ours) == 0 || left_blocked;
    return (struct stile__wait){ours, (now & ours) != 0 && left_blocked};
}

/* For a call that is given a mask by the program: *mask is that one and our signal. */
static inline struct stile__wait stile__wait_given(uint64_t ours, const sigset_t *given, sigset_t *mask)
{
    struct stile__wait w = {ours, stile__thread.wait_blocks};
    sigemptyset(mask);
    mask->__val[0] = given->__val[0] | ours; /* as much as the kernel has, and libc reads */
    stile__thread.wait_blocks = true;
    return w;
}

/* Leaves errno alone, as everything here. */
static inline void stile__wait_end(struct stile__wait w)
{
    if (w.open_after)
        stile__raw_sigmask(SIG_UNBLOCK, w.ours);
    stile__thread.wait_blocks = false;
}

#endif
