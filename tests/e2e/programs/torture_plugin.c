/* The library that torture.cc loads, works deep in, and unloads. */
#include "work.h"

typedef uint64_t plugin_fn(uint64_t);
uint64_t plugin_deep(unsigned depth, plugin_fn *back, uint64_t x);

/* Frames in the library, and at the bottom back to the program. */
__attribute__((visibility("default"))) WORK uint64_t plugin_deep(unsigned depth, plugin_fn *back, uint64_t x)
{
    volatile uint64_t canary = x ^ depth;
    uint64_t below = depth == 0 ? back(x) : plugin_deep(depth - 1, back, x);
    return canary == (x ^ depth) ? below + 1 : 0;
}
