/* The program's handlers that were set with SA_ONSTACK. */
#ifndef STILE_AGENT_ON_STACK_H
#define STILE_AGENT_ON_STACK_H

struct sigaction;

/* libc's own sigaction. Async-signal-safe once it has been called. */
int stile__sigaction_next(int signal, const struct sigaction *act, struct sigaction *old);

/* The program's sigaction on any signal but ours. Returns as sigaction(2). Async-signal-safe. */
int stile__on_stack_sigaction(int signal, const struct sigaction *act, struct sigaction *old);

/* A handler was set by other means: sigaction shows it as it is. */
void stile__on_stack_forget(int signal);

/* A thread has an alternate stack of ours; the program has set one itself. Async-signal-safe. */
void stile__on_stack_ours(void);
void stile__on_stack_programs(void);

#endif
