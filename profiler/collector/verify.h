/* PROFILE_DEBUG=verifyunwind: the handler's walk against libunwind's of the same stack. Collector, normal context. */
#ifndef STILE_COLLECTOR_VERIFY_H
#define STILE_COLLECTOR_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/modules.h"

#define VERIFY_SHOWN 16u /* differences whose stacks are kept */

struct verify {
    uint64_t samples, frames, differ;
    uint64_t unknown;          /* samples whose reference walk did not come to an end */
    uint64_t uncopied;         /* samples walked by rules on several stacks: no copy of those */
    char *shown[VERIFY_SHOWN]; /* of both stacks, a line each; owned */
    unsigned n_shown;
};

/* Whether two walks found the same frames. */
bool verify_same(const uint64_t *walked, size_t n, const uint64_t *reference, size_t n_reference);

/* Compares the frames that the handler found with the reference. True if they are the same. */
bool verify_compare(struct verify *v, const struct mapping_table *mappings, const uint64_t *walked, size_t n,
                    const uint64_t *reference, size_t n_reference);
void verify_free(struct verify *v);

#endif
