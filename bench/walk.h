/* The parts of `./dev bench walk`. */
#ifndef STILE_BENCH_WALK_H
#define STILE_BENCH_WALK_H

#include <stddef.h>

/* In the benchmark's own process: what a frame costs, and what a whole tick does. stack_end: where the stack of main ends, at
 * the arguments. Return 0, or 1 after a line about what could not be measured. */
int walk_frame(const void *stack_end);
int walk_handler(const void *stack_end);

/* With programs: what a sample's walk costs there; what rules take of memory, and the collector of CPU time. As above. */
int walk_real(const void *unused);
int walk_memory(const void *unused);

/* Of n values, which are sorted; 0 of none. */
double walk_median(double *values, size_t n);

#endif
