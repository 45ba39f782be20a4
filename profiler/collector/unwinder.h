/* Walks a stack snapshot with libunwind, as if from outside the process. Collector, normal context. */
#ifndef STILE_COLLECTOR_UNWINDER_H
#define STILE_COLLECTOR_UNWINDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/modules.h"
#include "profiler/region/layout.h"
#include "profiler/region/record.h"

struct unwinder; /* one per process image: libunwind caches by address */

/* Where a program has the stubs of its barriers, and their entries. All zero: it has none. As the program says, which may be
 * anything: walks are bounded all the same. */
struct stubs {
    uint64_t first, entries;
};

/* Whether a frame is in a stub: one that was interrupted, or the return to one, less one. */
static inline bool stubs_have(const struct stubs *s, uint64_t frame)
{
    return s->first != 0 && frame - (s->first - 1) <= (uint64_t)STILE__STUBS * STILE__STUB_BYTES;
}

/* What to walk: registers in DWARF order, and memory. */
struct snapshot {
    uint64_t regs[STILE__REG_COUNT];
    uint32_t lost;  /* bits by number: registers that are not known */
    uint64_t start; /* runtime address of bytes[0] */
    const uint8_t *bytes;
    size_t len;
    struct stubs stubs;
    const struct stile__barrier_seen *barriers; /* where its stubs go on */
    size_t n_barriers;
    bool ends_at_barrier; /* its last word is the slot of a barrier: the walk is to end there */
};

/* mappings must outlive the unwinder. NULL without memory. */
struct unwinder *unwinder_new(const struct mapping_table *mappings);
void unwinder_free(struct unwinder *u);

/* Forgets the rows that libunwind has kept. It keeps one for an address, be it an interrupted instruction's or a return
 * address, to which the row before it belongs: where a landing pad is both, it may be the wrong one. */
void unwinder_flush(struct unwinder *u);

/* Walks to the outermost frame. Writes at most max addresses, leaf first: the leaf's own, callers' return address
 * minus one, except above a signal frame, where it is the interrupted instruction's. Stubs are no frames: one that was
 * interrupted stands for where it goes on. Returns how many; *reason says why the walk ended before the end, or
 * STILE__REASON_NONE. */
size_t unwinder_walk(struct unwinder *u, const struct snapshot *s, uint64_t *addresses, size_t max,
                     enum stile__reason *reason);

/* Whether the last walk ended at the barrier that its snapshot ends with: without a reason. */
bool unwinder_at_barrier(const struct unwinder *u);

#endif
