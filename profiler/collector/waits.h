/* The blocking profile of a process: its waits, as records tell them and as those that go on are found. Collector, normal
 * context.
 *
 * A wait that has ended is a record in its thread's ring. One that goes on is looked at under the thread's scan bit
 * (barriers/ownership.h), once a generation: what has passed is booked, and the thread is told up to when, so that it tells
 * the rest alone. What no hook has seen is the rest of a thread's life: neither booked, nor run, nor runnable. */
#ifndef STILE_COLLECTOR_WAITS_H
#define STILE_COLLECTOR_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/collector/process.h"

#define WAITS_ELSEWHERE_NAME "[waiting elsewhere]"

/* What the region asks for. NULL, or why it cannot be. */
const char *waits_init(struct process *p);
void waits_free(struct process *p);

/* Moves what there is into a piece. False without memory: then it is as it was. */
bool waits_cut(struct process *p, struct process *piece);

/* Adds a record's wait to its stack. Takes its blocks; damage is noted in the process. */
void waits_record_add(struct process *p, uint32_t thread, const struct stile__record *r);

/* Waits of slot i's thread that found its ring full, since the last look. */
void waits_lost_take(struct process *p, uint32_t thread, uint32_t i);

/* A generation, if it is time for one (now: whatever the time): looks at what goes on. With `now` the books are then complete
 * up to here. */
void waits_look(struct process *p, bool now);

/* Reads and books what the thread of slot i has left. The caller has its scan bit: `seen`, which is given back. */
void waits_left_read(struct process *p, uint32_t i, uint64_t seen);

/* PROFILE_DEBUG=checkstackownership: whether the reader that has set `seen` still owns what the thread left in its page. If
 * nobody does, it has lost it by force. A violation is damage, and the end of the program. */
bool waits_owned(struct process *p, const struct stile__slot *slot, uint64_t seen,
                 const struct stile__left *page);

/* Adds weight under a label (enum stile__wait_reason, STILE__WAIT_WAKES; 0: why is not known). */
void waits_book(struct process *p, uint32_t thread, uint32_t node, enum stile__reason reason, uint32_t label,
                uint64_t n, uint64_t ns);

/* elsewhere.c: a thread is seen for the first time, is alive, and what had ended by then is in its books, has ended; and what is
 * known by then is booked. */
void elsewhere_begin(struct process *p, uint32_t thread, const struct stile__slot *slot);
void elsewhere_look(struct process *p, uint32_t thread, const struct stile__slot *slot);
void elsewhere_looked(struct process *p, uint32_t thread);
void elsewhere_end(struct process *p, uint32_t thread, const struct stile__slot *slot);
void elsewhere_book(struct process *p, uint32_t thread);

#endif
