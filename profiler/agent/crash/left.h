/* What waiting threads left, for a reader in the program. Runs in the handlers of crashes. */
#ifndef STILE_AGENT_CRASH_LEFT_H
#define STILE_AGENT_CRASH_LEFT_H

#include "profiler/agent/crash/text.h"
#include "profiler/agent/session.h"

/* Takes SCAN on the slot of a thread that waits and has left its stack; the caller ends by stile__scan_drop with *seen. NULL: it
 * runs, has left nothing, or another reader has it. */
struct stile__slot *stile__left_take(const struct stile__session *s, struct stile__region *r, uint32_t tid,
                                     uint64_t *seen);

/* Its frames: those of the record, and what CFI makes of the copy of the rest. */
void stile__left_put(struct stile__text *t, const struct stile__session *s, struct stile__region *r,
                     const struct stile__slot *slot);

#endif
