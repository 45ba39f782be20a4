/* A stack of any depth, for what walks it. */
#ifndef STILE_BENCH_WALK_STACK_H
#define STILE_BENCH_WALK_STACK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The deepest frame, which lives while `then` runs. */
struct walk_place {
    uint64_t pc, rsp, rbp;
};

struct walk_stack {
    void (*then)(const struct walk_place *at, void *arg);
    void *arg;
};

/* Calls `then` under so many frames, one at least, of functions that differ. The same code compiled twice: its frames
 * are linked by rbp, or rbp is a register like others. */
void walk_stack_linked(uint32_t depth, const struct walk_stack *stack);
void walk_stack_plain(uint32_t depth, const struct walk_stack *stack);

#ifdef __cplusplus
}
#endif

#endif
