/* The functions of libc that stand behind our hooks. */
#ifndef STILE_AGENT_HOOKS_H
#define STILE_AGENT_HOOKS_H

#include <stdbool.h>

/* Where the signal is not ours any more, and the program believes that it is blocked in this thread, blocks it. */
void stile__mask_restore(void);

/* Look up what stands behind the hooks on waits, and on sockets. Normal context, before ticks may come; idempotent. */
void stile__waits_init(void);
void stile__sockets_init(void);
void stile__locks_init(void); /* and what hooks_sync.c has */
void stile__syncs_init(void);

/* Whether waits are recorded from now on: sends the hooks that are called most elsewhere. After stile__locks_init. */
void stile__locks_record(bool recording);
void stile__syncs_record(bool recording);

/* Finds the next definition of a symbol after ours; looked up once per caller's static. Normal context. */
void *stile__hook_next(void **cache, const char *name);

/* The same of one version; if libc has no such, of its default one. */
void *stile__hook_next_version(void **cache, const char *name, const char *version);

#endif
