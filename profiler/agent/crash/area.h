/* The report's text in the region: what the collector names, and what is left where the program cannot write. Runs in the handlers
 * of crashes. */
#ifndef STILE_AGENT_CRASH_AREA_H
#define STILE_AGENT_CRASH_AREA_H

#include <stdbool.h>
#include <stddef.h>

#include "profiler/region/layout.h"

/* Begins anew. */
void stile__report_area_begin(struct stile__region *r);

/* Adds to it. False: there is no room, or no memory for it; what came before stays. */
bool stile__report_area_add(struct stile__region *r, const char *bytes, size_t n);

#endif
