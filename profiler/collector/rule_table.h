/* A process's unwind rules, in its region: what is learned of its files, published for its handler. Collector, normal
 * context. See rules.h for the table. */
#ifndef STILE_COLLECTOR_RULE_TABLE_H
#define STILE_COLLECTOR_RULE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/modules.h"
#include "profiler/region/layout.h"
#include "proto/id_table.h"

#define RULE_TABLE_LATER 256u

struct rule_table {
    struct stile__region *region;
    struct vetting *vetting;    /* of the process, or NULL */
    struct stile__rules *rules; /* NULL: the region has no room for them, or it cannot be had */
    uint32_t pages;             /* of the arena */
    uint32_t pages_used;
    uint32_t row_at;  /* where the next rows go, in words of the arena, */
    uint32_t row_end; /* and how far that page goes */
    uint64_t *kinds;  /* our copy of the rules by number: the program's cannot be believed */
    uint32_t n_kinds;
    struct stile__id_table by_rule, by_rows;
    uint64_t later[RULE_TABLE_LATER]; /* addresses around which more is to be learned; a ring */
    uint32_t n_later, later_done, later_blocks;
    uint64_t function_ns; /* what a function may take at once; the rest of it comes later */
};

/* Opens the table of a region and fills in what is known of the files of these mappings, which are as of `unloads`. It
 * stays closed where it cannot be had: then the handler has no rules. */
void rule_table_open(struct rule_table *t, struct stile__region *region, struct stile__region_size size,
                     const struct mapping_table *mappings, uint32_t unloads);
void rule_table_close(struct rule_table *t);

/* Whether there is a rule for an address. */
bool rule_table_has(const struct rule_table *t, uint64_t address);

/* Learns the rules of the function that has an address, if they are not there yet. Returns false if they were. */
bool rule_table_learn(struct rule_table *t, const struct mapping_table *mappings, uint64_t address);

/* Learns a block of what lies around what was learned, while there is any: for when nothing else is to be done. False if
 * there is none. */
bool rule_table_widen(struct rule_table *t, const struct mapping_table *mappings);

/* Follows what the maps say: live_before are the mappings of the look before (n of them, by start), `unloads` what the
 * region's word was before this look. */
void rule_table_follow(struct rule_table *t, const struct mapping_table *mappings,
                       const uint32_t *live_before, uint32_t n, uint32_t unloads);

/* Bytes of memory that the table takes. */
uint64_t rule_table_bytes(const struct rule_table *t);

#endif
