/* Whether barriers may stand on the stacks of a program, by what its files say. Collector, normal context.
 *
 * Invariant: a process hears that a file forbids barriers before it has rules of that file. A walk places barriers only
 * where each frame down to the last one that it trusts has a rule, and asks again whether it may when it is done: so none is
 * placed by a walk that has met code of such a file, however lately that was loaded. */
#ifndef STILE_COLLECTOR_VET_H
#define STILE_COLLECTOR_VET_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/collector/modules.h"
#include "profiler/region/layout.h"

#define VET_NAME 64u

/* Of one process. */
struct vetting {
    struct stile__region *region;     /* NULL: it wants no barriers */
    uint32_t done;                    /* mappings that were looked at, of all there were */
    enum stile__barriers_state found; /* what was found first; 0: nothing */
    char name[VET_NAME];              /* of the file where, as comments show it */
};

/* What a file says: STILE__BARRIERS_GO, or why not. Looked up once. */
enum stile__barriers_state vet_module(struct module *m);

/* Looks at the file of one mapping, and tells the program if it forbids barriers. v may be NULL. */
void vet_mapping(struct vetting *v, const struct mapping *m);

/* Looks at the mappings that nobody has looked at, up to the next file that is to be read for that. False if there is none:
 * then barriers may be placed, unless something was found. */
bool vet_next(struct vetting *v, const struct mapping_table *mappings);

/* Why a program has no barriers, in words; size bytes at most. Empty if it may have. */
void vet_describe(const struct vetting *v, uint32_t state, char *text, size_t size);

#endif
