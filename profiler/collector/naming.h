/* Names a report for somebody who waits for it: in a fork, so that whatever a debug file does to it, the collector goes on.
 * Collector, normal context. */
#ifndef STILE_COLLECTOR_NAMING_H
#define STILE_COLLECTOR_NAMING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "profiler/collector/process.h"

/* What is to be named, and what stands around it. The texts are copied by the fork. */
struct naming {
    const char *before; /* written as it is, first; n_before bytes */
    size_t n_before;
    const char *text; /* the report */
    size_t n;
    const char *first, *last; /* lines around the stacks */
};

/* Writes it all to a descriptor, and ends. Returns the fork, or -1. */
pid_t naming_to(const struct process *p, const struct naming *what, int fd);

/* Writes it into the region for the program, which knows it by `answer` (without STILE__ANSWER_DONE). What was being answered
 * before ends there. */
void naming_answer(struct process *p, const struct naming *what, uint32_t answer);

/* Answers that there is nothing. */
void naming_refuse(struct process *p, uint32_t answer);

/* Looks whether the answer is there; if its fork has died, what there is is all. True while it is being given. */
bool naming_answering(struct process *p);

/* Ends what is being answered, for good. */
void naming_break(struct process *p);

#endif
