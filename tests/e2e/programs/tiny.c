/* A function so small that calling it through the linkage table is half of its time. */
#include "odd_frames.h"

uint64_t tiny_add(uint64_t x)
{
    return (x * 5 | 1) * x * (x ^ 3) * x;
}
