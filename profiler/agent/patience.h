/* Waiting for the collector, bounded. Normal context. */
#ifndef STILE_AGENT_PATIENCE_H
#define STILE_AGENT_PATIENCE_H

#include "profiler/agent/greeting.h"
#include "profiler/region/layout.h"

/* Asks for the file of a session that has ended, and waits until it is there. Prints one line if something went
 * wrong. Returns 0; -ETIMEDOUT if the collector is still writing after ten seconds; -EPIPE if it is gone or has not
 * moved for two; -EIO if it could not write (its message is printed). */
int stile__patience_finish(struct stile__region *r, const struct stile__collector *c);

/* The same for a file of what was sampled so far. */
int stile__patience_flush(struct stile__region *r, const struct stile__collector *c);

/* Has all samples read that were taken so far, while what they were taken in is still there: a twentieth of a second at most,
 * after which they are read when it may be gone. Normal context. */
void stile__patience_drain(struct stile__region *r, const struct stile__collector *c);

#endif
