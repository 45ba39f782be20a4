/* A library of reuse.c, compiled once as `a` and once as `b` (REUSE_NAME): the same instructions at the same places, in
 * frames of other sizes. Who walks the one by what is known of the other ends nowhere. All sizes are beyond one byte,
 * so that the instructions are equally long. */
#include "work.h"

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define OURS(stem) NAME(stem, REUSE_NAME)

WORK static uint64_t OURS(spin_)(uint64_t ns)
{
    return burn(ns);
}

#define STEP(name, size, next)                                                                               \
    WORK static uint64_t OURS(name)(uint64_t ns)                                                             \
    {                                                                                                        \
        volatile char some[size];                                                                            \
        some[0] = some[(size)-1] = 1;                                                                        \
        return OURS(next)(ns) + (uint64_t)some[0];                                                           \
    }

STEP(four_, REUSE_FOUR, spin_)
STEP(three_, REUSE_THREE, four_)
STEP(two_, REUSE_TWO, three_)
STEP(one_, REUSE_ONE, two_)

uint64_t OURS(work_)(uint64_t ns);

__attribute__((visibility("default"))) WORK uint64_t OURS(work_)(uint64_t ns)
{
    return OURS(one_)(ns) + 1;
}
