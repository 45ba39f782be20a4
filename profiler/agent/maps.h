/* What /proc/self/maps says, for the collector and for stack bounds. */
#ifndef STILE_AGENT_MAPS_H
#define STILE_AGENT_MAPS_H

#include <stdint.h>

#include "profiler/agent/session.h"

/* Appends a generation of the executable mappings to the region's modules text: a line "@", then lines as in
 * /proc/PID/maps. Earlier generations stay as they are, so the collector can read while we write. Normal context,
 * no allocation. Nothing is appended if it does not fit. */
void stile__maps_publish(struct stile__region *r);

/* Gives a session's list back. Nobody may be inside the session. */
void stile__maps_stacks_free(struct stile__session *s);

/* Lists the readable and writable mappings into fresh private memory, in ascending order. Normal context.
 * Returns how many, 0 on failure. The caller owns *bounds and unmaps *bytes of it. */
uint32_t stile__maps_stacks(struct stile__bounds **bounds, size_t *bytes);

#endif
