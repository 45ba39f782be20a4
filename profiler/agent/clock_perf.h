/* perf's cpu-clock for one thread: a signal per period of time in user mode, to 20 kHz. Normal context. */
#ifndef STILE_AGENT_CLOCK_PERF_H
#define STILE_AGENT_CLOCK_PERF_H

#include <stdbool.h>
#include <stdint.h>

struct stile__clock;

/* Whether a filter (seccomp) looks at the system calls of the calling thread now. */
bool stile__clock_filtered(void);

/* Why perf cannot be used here at all, or 0: an errno, or one of STILE__PERF_* (region/layout.h). */
int stile__clock_perf_check(unsigned hz, int signal);

/* Starts it for a thread: `signal` with si_code POLL_IN and si_fd = c->perf_fd. Sets kind, perf_page and perf_fd.
 * Returns 0 or the reason as above. */
int stile__clock_perf_start(struct stile__clock *c, uint32_t tid, int signal, uint64_t period_ns, int kind);

/* Stops it. Idempotent. */
void stile__clock_perf_stop(struct stile__clock *c);

#endif
