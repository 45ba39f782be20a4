/* What a place in a program looks like: its stack and registers, as a snapshot has them. */
#ifndef STILE_TESTS_UNIT_PLACE_H
#define STILE_TESTS_UNIT_PLACE_H

#include <ucontext.h>

#include "profiler/collector/unwinder.h"

#define PLACE_FRAMES 256

struct place {
    struct snapshot snapshot;
    uint8_t bytes[1 << 16];
    void *expected[PLACE_FRAMES]; /* by backtrace(): return addresses, the leaf's own first */
    int n_expected;
};

/* Copies registers and stack of the calling thread, up to the stack's end or as much as there is room for. */
void place_fill(struct place *p, const ucontext_t *uc);

/* Fills a table with what is mapped here now. Returns as mappings_update. */
int place_mappings(struct mapping_table *mappings);

#endif
