/* What happens once in a process. */
#ifndef STILE_AGENT_INIT_H
#define STILE_AGENT_INIT_H

/* Registers with libc what has to happen around fork and at quick_exit. Idempotent; normal context. */
void stile__init_hooks(void);

#endif
