/* Walks of the stack that one is on: Stile's, by rules, and others. For C and C++. */
#ifndef STILE_BENCH_WALK_HERE_H
#define STILE_BENCH_WALK_HERE_H

#include <stdbool.h>

#include "bench/programs/walk_stack.h"

#ifdef __cplusplus
extern "C" {
#endif

enum walk_side { WALK_STILE, WALK_FRAME_POINTERS, WALK_UNW_BACKTRACE, WALK_UNW_STEP };

/* A session whose only thread is this one, as it is at a kilohertz. stack_end: where main's stack ends, at the arguments.
 * False after a line about why there is none. */
bool walk_here_begin(const void *stack_end);

/* Learns what walks of the present stack need. */
void walk_here_learn(void);

/* One walk of the stack above a place. The frames that it found; 0 if ours is not whole. */
uint32_t walk_here(enum walk_side side, const struct walk_place *at);

#ifdef __cplusplus
}
#endif

#endif
