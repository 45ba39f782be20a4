/* Writer processes: started, watched, and what they left told to whom it concerns. Collector, normal context. */
#ifndef STILE_COLLECTOR_WRITERS_H
#define STILE_COLLECTOR_WRITERS_H

#include <stdbool.h>

#include "profiler/collector/process.h"

/* Starts a writer for an ended process, or for a flush, if one is due and few enough are running. */
void writer_start_due(struct process *p);

/* The same for all processes: those for whose file somebody waits alone, the others together, so that what they have
 * in common is looked up once. */
void writers_start_due(struct process *list);

/* Looks whether the process's writer has ended or takes too long, and answers. Returns -errno or 0 in *error when a
 * final file came to its end, and true then. */
bool writer_check(struct process *p, int *error);

/* Writers that are running. */
unsigned writers_running(void);

#endif
