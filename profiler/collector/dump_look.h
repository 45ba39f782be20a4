/* Where one thread is, told as a part of a report: by what it left when it began to wait, by a record of its own, by what the
 * kernel says of it. Collector, normal context. */
#ifndef STILE_COLLECTOR_DUMP_LOOK_H
#define STILE_COLLECTOR_DUMP_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/collector/process.h"
#include "profiler/collector/report_text.h"

enum dump_look {
    DUMP_SHOWN,
    DUMP_AGAIN, /* it is just changing: in the next round */
    DUMP_GONE,
    DUMP_RUNNING /* nobody but itself can say */
};

/* What the thread of slot i left, if it waits. */
enum dump_look dump_look_left(struct process *p, uint32_t i, uint32_t thread, struct report_text *t);

/* What a record of its own says, whose blocks are given back. */
void dump_look_record(struct process *p, uint32_t thread, const struct stile__record *r, const char *state,
                      struct report_text *t);

/* Where it was when it was last sampled, if that is known. */
void dump_look_last(struct process *p, uint32_t thread, struct report_text *t);

/* The kernel's letter for its state; '\0': there is no such thread. */
char dump_task_state(const struct process *p, uint32_t tid);

/* That it is blocked in the kernel, and where. */
void dump_look_blocked(const struct process *p, uint32_t tid, const char *name, char state, const char *more,
                       struct report_text *t);

/* All live threads of a process that has ended. */
void dump_of_the_dead(struct process *p, struct report_text *t);

#endif
