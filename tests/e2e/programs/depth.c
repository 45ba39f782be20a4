/* Works so many frames deep: `depth FRAMES MS`. Each frame has about 64 bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "work.h"

WORK static uint64_t spin_at_depth(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t go_down(long depth, uint64_t ns)
{
    volatile char some[40];
    some[0] = 1;
    return (depth > 1 ? go_down(depth - 1, ns) : spin_at_depth(ns)) + (uint64_t)some[0];
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 1;
    go_down(atol(argv[1]), strtoull(argv[2], NULL, 10) * MS);
    puts("done");
    return 0;
}
