/* Walks the DIE tree of one unit once and keeps only functions that have code. After that an address costs a binary
 * search, where asking libdw for its scopes would walk the tree again each time.
 * Context: any normal context; single-threaded. The DWARF may be damaged: every loop here ends by its own count. */
#include "proto/debug_scopes.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/buffer.h"

enum {
    DEPTH_MOST = 512,        /* of the DIE tree; compilers stay below 100 */
    RANGES_MOST = 64 * 1024, /* of one DIE */
};

struct walk {
    struct stile__scopes *scopes;
    const struct stile__elf_file *module;
    bool types_hold_code; /* the language defines functions inside types */
    size_t depth;
    struct level {
        Dwarf_Die die;
        uint32_t scope; /* that the die lies in */
    } levels[DEPTH_MOST];
};

int stile__die_ranges_add(struct stile__ranges *r, Dwarf_Die *die, const struct stile__elf_file *module,
                          uint32_t value, bool *any)
{
    Dwarf_Addr base = 0, lo, hi;
    ptrdiff_t at = 0;

    *any = false;
    for (int i = 0; i < RANGES_MOST; i++) {
        at = dwarf_ranges(die, at, &base, &lo, &hi);
        if (at <= 0)
            break;
        /* Functions that the linker dropped sit at 0 or at some other place without code. */
        if (lo >= hi || !stile__elf_file_is_code(module, lo))
            continue;
        if (stile__ranges_add(r, lo, hi, value))
            return -ENOMEM;
        *any = true;
    }
    return 0;
}

/* Adds die if it has code; *scope becomes the scope of what lies below it. */
static int scope_add(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t *scope)
{
    struct stile__scopes *s = w->scopes;
    bool any;

    if (s->count >= STILE__SCOPE_NONE ||
        stile__array_grow(&s->items, &s->capacity, s->count, sizeof(*s->items)))
        return -ENOMEM;
    if (stile__die_ranges_add(&s->ranges, die, w->module, (uint32_t)s->count, &any))
        return -ENOMEM;
    *scope = STILE__SCOPE_NONE;
    if (!any)
        return 0;
    *scope = (uint32_t)s->count;
    s->items[s->count++] = (struct stile__scope){.die = *die, .parent = parent};
    return 0;
}

/* Looks at one die. *descend says whether functions may lie below it, in *scope. */
static int die_visit(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t *scope, bool *descend)
{
    int err;

    *scope = parent;
    *descend = false;
    switch (dwarf_tag(die)) {
    case DW_TAG_subprogram:
    case DW_TAG_entry_point:
        err = scope_add(w, die, STILE__SCOPE_NONE, scope);
        *descend = *scope != STILE__SCOPE_NONE;
        return err;
    case DW_TAG_inlined_subroutine:
        err = scope_add(w, die, parent, scope);
        *descend = *scope != STILE__SCOPE_NONE;
        return err;
    case DW_TAG_lexical_block:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
    case DW_TAG_with_stmt:
    case DW_TAG_namespace:
    case DW_TAG_module:
        *descend = true;
        return 0;
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type:
    case DW_TAG_interface_type:
        *descend = w->types_hold_code;
        return 0;
    default:
        return 0;
    }
}

/* Moves to the next die that is not below the current one. False at the end. */
static bool next_die(struct walk *w)
{
    for (;;) {
        struct level *l = &w->levels[w->depth];

        if (dwarf_siblingof(&l->die, &l->die) == 0)
            return true;
        if (w->depth == 0)
            return false;
        w->depth--;
    }
}

static int walk_tree(struct walk *w)
{
    Dwarf_Off last = 0;

    do {
        struct level *l = &w->levels[w->depth];
        Dwarf_Off offset = dwarf_dieoffset(&l->die);
        uint32_t scope;
        bool descend;
        int err;

        if (offset <= last) /* a damaged sibling reference leads back */
            return 0;
        last = offset;
        err = die_visit(w, &l->die, l->scope, &scope, &descend);
        if (err)
            return err;
        if (descend && w->depth + 1 < DEPTH_MOST && dwarf_child(&l->die, &w->levels[w->depth + 1].die) == 0) {
            w->levels[++w->depth].scope = scope;
            continue;
        }
        if (!next_die(w))
            return 0;
    } while (true);
}

/* In C and C++ types only declare; Rust, for one, puts methods into them. */
static bool types_hold_code(Dwarf_Die *unit)
{
    switch (dwarf_srclang(unit)) {
    case DW_LANG_C89:
    case DW_LANG_C:
    case DW_LANG_C99:
    case DW_LANG_C11:
    case DW_LANG_C_plus_plus:
    case DW_LANG_C_plus_plus_03:
    case DW_LANG_C_plus_plus_11:
    case DW_LANG_C_plus_plus_14:
        return false;
    default:
        return true;
    }
}

int stile__scopes_load(struct stile__scopes *s, Dwarf_Die *unit, const struct stile__elf_file *module)
{
    struct walk *w = calloc(1, sizeof(*w));
    int err = 0;

    if (!w)
        return -ENOMEM;
    w->scopes = s;
    w->module = module;
    w->types_hold_code = types_hold_code(unit);
    w->levels[0].scope = STILE__SCOPE_NONE;
    if (dwarf_child(unit, &w->levels[0].die) == 0)
        err = walk_tree(w);
    free(w);
    stile__ranges_sort(&s->ranges);
    return err;
}

void stile__scopes_free(struct stile__scopes *s)
{
    free(s->items);
    stile__ranges_free(&s->ranges);
    memset(s, 0, sizeof(*s));
}
