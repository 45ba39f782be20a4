/* A process's call tree as a pprof file. Runs in a process of its own, forked from the collector, so that the
 * collector drains on while names are looked up, and a debug file that breaks the symbolizer costs only names. */
#ifndef STILE_COLLECTOR_PROFILE_WRITE_H
#define STILE_COLLECTOR_PROFILE_WRITE_H

#include <stdbool.h>

#include "profiler/collector/process.h"

/* Writes aside and renames. named: look names up. Returns 0 or -errno. */
int profile_write(const struct process *p, const char *path, bool named);

#endif
