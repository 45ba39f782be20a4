/* Alternate signal stacks for the profiling signal, so that a tick needs no room on the program's own stacks. */
#ifndef STILE_AGENT_ALT_STACK_H
#define STILE_AGENT_ALT_STACK_H

#include <signal.h>

/* Gives the calling thread an alternate stack of ours, unless it has one of the program's. If there is no memory it has
 * none, and ticks run on the thread's stack. Normal context, with all signals blocked. */
void stile__alt_stack_give(void);

/* Takes ours back from the calling thread; one that it runs on this moment stays with it. Normal context, with all
 * signals blocked. Idempotent. */
void stile__alt_stack_take_back(void);

/* In a forked child: the stacks of the threads that are not there any more are free. */
void stile__alt_stacks_forked(void);

/* The program's sigaltstack: it sees what it set itself, and ours steps in where it has set none. Returns as
 * sigaltstack(2). Async-signal-safe. */
int stile__alt_stack_change(const stack_t *stack, stack_t *old);

#endif
