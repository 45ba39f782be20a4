/* Cuts: what there is of a process's profile becomes a file of its own, and the next one starts empty. Collector,
 * normal context. */
#ifndef STILE_COLLECTOR_PIECES_H
#define STILE_COLLECTOR_PIECES_H

#include "profiler/collector/process.h"

/* Sets up what a process's region asks for: an interval, a toggle, or neither. */
void pieces_init(struct process *p);

/* Cuts what is due now: called after each drain of a process that is being sampled. What was cut lies in p->cut until
 * pieces_adopt takes it. */
void pieces_look(struct process *p, uint64_t now);

/* The process's last drain, with all cuts that are still due before it. */
void pieces_drain_last(struct process *p, uint64_t now);

/* Puts what was cut behind p in its list, where writers find it. */
void pieces_adopt(struct process *p);

/* Whether the process is being sampled now, as far as the collector has come. */
bool pieces_running(const struct process *p);

/* When the next cut is due by the clock, or UINT64_MAX. */
uint64_t pieces_next_ns(const struct process *p);

#endif
