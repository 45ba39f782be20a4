/* The function symbols of a module. Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_SYMBOL_TABLE_H
#define STILE_PROTO_SYMBOL_TABLE_H

#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/ranges.h"

/* symbols[i] is the value i of ranges: sorted by address, the one to prefer last. All zero is empty. */
struct stile__symbol_table {
    struct stile__symbol *symbols;
    size_t count, capacity;
    struct stile__ranges ranges;
};

/* Adds the defined functions of elf's section of type SHT_SYMTAB or SHT_DYNSYM; *found says whether there is one.
 * elf must outlive t: names stay where they are. 0 or -ENOMEM. */
int stile__symbol_table_load(struct stile__symbol_table *t, Elf *elf, uint32_t section_type, bool *found);
/* After the last load, before the first find. 0 or -ENOMEM. */
int stile__symbol_table_sort(struct stile__symbol_table *t);
/* The name, as linked (with a version behind '@', if any), of the function around address; NULL if none. Of names
 * for one function: what is visible outside the module, without leading underscores, global before weak. */
const char *stile__symbol_table_find(const struct stile__symbol_table *t, uint64_t address);
void stile__symbol_table_free(struct stile__symbol_table *t);

#endif
