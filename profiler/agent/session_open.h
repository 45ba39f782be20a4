/* What a session begins with. For session.c; normal context. */
#ifndef STILE_AGENT_SESSION_OPEN_H
#define STILE_AGENT_SESSION_OPEN_H

#include "profiler/agent/options.h"
#include "profiler/agent/session.h"

/* Installs the handlers of our signals and sets s->signal. Returns 0, -EBUSY if the program handles one itself, after one line about
 * that, or another -errno. */
int stile__session_signals_install(struct stile__session *s, const struct stile__options *o,
                                   enum stile__origin origin);

/* Whether threads leave their stacks before they wait: for a blocking profile, or for readers that must not signal them. */
bool stile__session_leaves_wanted(const struct stile__options *o);

/* Finds out whether this process bears barriers. Not in the child of a fork: its parent has looked, and other threads may have left
 * an unwinder's locks behind. */
void stile__session_barriers_check(void);

/* Writes what is constant into a new region. start_cpu_ns: CPU time that the process had used. */
void stile__session_region_fill(struct stile__session *s, struct stile__region *r,
                                const struct stile__options *o, enum stile__origin origin,
                                uint64_t start_cpu_ns);

/* What ticks and where, before anything does. Returns 0 or -errno. */
int stile__session_clocks_open(struct stile__session *s, struct stile__region *r,
                               const struct stile__options *o);

#endif
