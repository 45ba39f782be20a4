/* The functions of one DWARF unit and what was inlined into them, by address. Internal to debug_info.c. */
#ifndef STILE_PROTO_DEBUG_SCOPES_H
#define STILE_PROTO_DEBUG_SCOPES_H

#include <elfutils/libdw.h>
#include <stdint.h>

#include "proto/elf_file.h"
#include "proto/ranges.h"

enum {
    STILE__SCOPE_NONE = UINT32_MAX,
};

/* A function or an inlined one. parent is the scope that it was inlined into, always of a smaller index;
 * STILE__SCOPE_NONE for a function of its own. */
struct stile__scope {
    Dwarf_Die die;
    uint32_t parent;
};

/* All zero is empty. The values of ranges are indices of items. */
struct stile__scopes {
    struct stile__scope *items;
    size_t count, capacity;
    struct stile__ranges ranges;
};

/* Reads the tree below unit. Damaged DWARF yields what could be read before the damage. 0 or -ENOMEM. */
int stile__scopes_load(struct stile__scopes *s, Dwarf_Die *unit, const struct stile__elf_file *module);
void stile__scopes_free(struct stile__scopes *s);

/* Adds the code ranges of die with this value; *any says whether there were some. 0 or -ENOMEM. */
int stile__die_ranges_add(struct stile__ranges *r, Dwarf_Die *die, const struct stile__elf_file *module,
                          uint32_t value, bool *any);

#endif
