/* Looks up the names and lines of a call tree's places, for as long as there is time: whoever waits for the file does not wait
 * for a huge debug file. Runs in the writer process, normal context; what looks them up is a thread of it, which is left
 * behind if it takes too long, with all that it uses. */
#ifndef STILE_COLLECTOR_LOOK_UP_H
#define STILE_COLLECTOR_LOOK_UP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/call_tree.h"
#include "profiler/collector/modules.h"
#include "proto/symbolizer.h"

struct look_up;

/* What was not looked up because time was up. */
struct look_up_late {
    uint32_t places;   /* of so many */
    uint32_t lines;    /* those without lines and what is inlined there, */
    uint32_t nameless; /* and of these without a name, too */
};

/* For all files that this process writes from now on: when they have to do with what was found. CLOCK_MONOTONIC; 0, as at the
 * start: whenever all is found. */
void look_up_until(uint64_t mono_ns);

/* Finds what can be found. Both are the caller's, and stay as they are. NULL without memory. */
struct look_up *look_up_new(const struct mapping_table *mappings, const struct call_tree *tree);
void look_up_free(struct look_up *l);

/* As stile__symbolizer_frames, of a node that is in a mapping; valid until the end of the process. */
size_t look_up_frames(const struct look_up *l, uint32_t node, const struct stile__symbol_frame **frames);

/* Whether debug information has answered for a mapping's places as far as it knows them. */
bool look_up_has_debug_info(const struct look_up *l, uint32_t mapping);

struct look_up_late look_up_late_of(const struct look_up *l);

/* Of all files that this process has written: what was left out. */
uint32_t look_up_lines_late(void);

#endif
