/* Makes and unmakes the agent's side of the region. */
#ifndef STILE_AGENT_REGION_MAKE_H
#define STILE_AGENT_REGION_MAKE_H

#include <stdbool.h>

#include "profiler/region/layout.h"

/* Makes a region for a sampling rate (alone: no collector runs yet; waits: with room for what threads leave when they wait) in a sealed memfd and maps it, not inherited by fork, not in core dumps. Normal context. On
 * success returns 0 and sets *region and *fd (close-on-exec, owned by the caller, not needed after the hand-over);
 * otherwise -errno: -EFBIG if the hard limit of RLIMIT_FSIZE leaves no room, which is looked at first, since it would send SIGXFSZ. */
int stile__region_make(struct stile__region **region, int *fd, unsigned hz, bool alone, bool waits);

void stile__region_unmake(struct stile__region *region);

/* The same for a region that the program may have written to: of the size that it was made with. */
void stile__region_unmap(struct stile__region *region, struct stile__region_size size);

#endif
