/* The functions of libc that stand behind our hooks. */
#ifndef STILE_AGENT_HOOKS_H
#define STILE_AGENT_HOOKS_H

/* Where the signal is not ours any more, and the program believes that it is blocked in this thread, blocks it. */
void stile__mask_restore(void);

/* Look up what stands behind the hooks on waits, and on sockets. Normal context, before ticks may come; idempotent. */
void stile__waits_init(void);
void stile__sockets_init(void);

/* Finds the next definition of a symbol after ours; looked up once per caller's static. Normal context. */
void *stile__hook_next(void **cache, const char *name);

#endif
