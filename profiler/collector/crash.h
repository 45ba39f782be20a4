/* Crashes of a process, as the collector takes part in them. Collector, normal context.
 *
 * A program that reports its crash is given the names. One that dies while it reports has the rest of it written to its crash
 * file; of one that dies without a word, and is the command of a `stile record`, there is a report of the collector's own. */
#ifndef STILE_COLLECTOR_CRASH_H
#define STILE_COLLECTOR_CRASH_H

#include <stdbool.h>

#include "profiler/collector/names.h"
#include "profiler/collector/process.h"

/* A process is there: where its reports go, and whether it is the command of a client of this pid. */
void crash_begin(struct process *p, const struct hello_text *hello, const pid_t *clients, int n_clients);

/* How a client's command ended, as waitpid has it. */
void crash_ended(struct process *p, int wait_status);

/* Another image, or session, of a living process has taken its place. */
void crash_replaced(struct process *p);

/* Before the last drain: what the threads of a dead process did, if that may be asked for. */
void crash_gather(struct process *p);

/* One look. client: there is one that has not said yet how its command ended. */
void crash_round(struct process *p, bool client);

/* Whether it crashes, whether it waits for us, and whether something is still to be done. */
bool crash_begun(const struct process *p);
bool crash_urgent(const struct process *p);
bool crash_pending(const struct process *p);

void crash_free(struct process *p);

#endif
