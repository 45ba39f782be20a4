/* One record of a thread, once it has been copied and checked. Collector, normal context. */
#ifndef STILE_COLLECTOR_RECORDS_H
#define STILE_COLLECTOR_RECORDS_H

#include "profiler/collector/process.h"

/* Adds its weight to its stack. Takes its blocks; damage is noted in the process. */
void record_add(struct process *p, uint32_t thread, const struct stile__record *r);

/* Takes a tick that came after the piece that it belongs to was stopped: counted, its blocks given back. */
void record_drop(struct process *p, uint32_t thread, const struct stile__record *r);

#endif
