/* Signals by name: which of them may be ours, and what they are called. Both sides and the command line. */
#ifndef STILE_REGION_SIGNAL_NAME_H
#define STILE_REGION_SIGNAL_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* The signal that a text names: SIGUSR1, USR1, 27, SIGRTMIN+3, RTMAX-1. -EINVAL if it names none. Normal context. */
int stile__signal_parse(const char *text);

/* Whether a signal can be the profiler's: one that a handler can take, and that neither the kernel, nor libc, nor job
 * control sends for ends of its own. */
bool stile__signal_allowed(int signal);

/* Writes SIGUSR1, SIGRTMIN+3 or the like; returns `to`. Any number is answered. Normal context. */
const char *stile__signal_name(int signal, char *to, size_t size);
#define STILE__SIGNAL_NAME_MAX 32

#endif
