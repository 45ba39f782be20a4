/* Unwind rules from a file's CFI: libdw reads it, a function at a time. Collector, normal context. */
#ifndef STILE_COLLECTOR_CFI_H
#define STILE_COLLECTOR_CFI_H

#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/elf_file.h"

struct cfi; /* what libdw holds of one file */

/* Code of one rule (see rules.h), by virtual address. */
struct cfi_row {
    uint64_t start, end; /* exclusive */
    uint64_t rule;
};

/* NULL if there is nothing that can be used, or without memory: then the file's code has no CFI. The file must stay
 * open. */
struct cfi *cfi_open(const struct elf_file *elf);
void cfi_close(struct cfi *cfi);

/* No process that maps the file has barriers: whether its functions read their own return addresses, which is dear to find
 * out, is not asked from here on, and taken for granted. cfi may be NULL. */
void cfi_barriers_forbid(struct cfi *cfi);

/* The row at an address: its range is within from and to. Code that no unwind entry covers is walked by frame
 * pointers. cfi may be NULL. */
struct cfi_row cfi_row_at(struct cfi *cfi, const struct elf_file *elf, uint64_t address, uint64_t to);

#endif
