/* The blocking profile of a process as a pprof file: where its threads waited, for what, and how long. Runs where
 * profile_write does. */
#ifndef STILE_COLLECTOR_BLOCK_WRITE_H
#define STILE_COLLECTOR_BLOCK_WRITE_H

#include <stdbool.h>

#include "profiler/collector/process.h"

/* Writes aside and renames. named: look names up. Returns 0 or -errno. */
int block_write(const struct process *p, const char *path, bool named);

#endif
