/* The unwind rules of one file, as far as samples have asked for them: learned once, for all processes that map it.
 * Collector, normal context. */
#ifndef STILE_COLLECTOR_LEARNED_H
#define STILE_COLLECTOR_LEARNED_H

#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/elf_file.h"

struct learned;

/* From a byte of a block on, this rule holds. */
struct learned_row {
    uint32_t byte;
    uint64_t rule;
};

/* A block of code (see rules.h), by virtual address. Its rows are valid until the next one is learned. */
struct learned_block {
    uint64_t number; /* address >> STILE__RULES_BLOCK_BITS */
    uint32_t first, n;
};

/* NULL without memory. The file must stay open. */
struct learned *learned_new(const struct elf_file *elf);

/* As cfi_barriers_forbid. */
void learned_barriers_forbid(struct learned *l);
void learned_free(struct learned *l);

/* The block that has an address, read from the file if it is not known yet; NULL without memory. */
const struct learned_block *learned_get(struct learned *l, uint64_t address);

/* All that is known, in the order learned. */
const struct learned_block *learned_all(const struct learned *l, size_t *n);
const struct learned_row *learned_rows(const struct learned *l, const struct learned_block *b);

#endif
