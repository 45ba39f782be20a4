/* Turns an address into source lines and inlined functions: unit by address, then scope, then the call chain up.
 * Context: any normal context; single-threaded. */
#include "proto/debug_info.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "proto/buffer.h"
#include "proto/debug_scopes.h"

struct unit {
    Dwarf_Die die;  /* has the addresses and the lines */
    Dwarf_Die tree; /* has the functions: the same, or that of the .dwo file if debug information is split */
    bool loaded;
    struct stile__scopes scopes; /* empty until loaded */
};

struct stile__debug_info {
    const struct stile__elf_file *module;
    struct unit *units;
    size_t n_units, capacity;
    struct stile__ranges ranges; /* values are indices of units */
};

static int unit_add(struct stile__debug_info *d, Dwarf_Die *die, uint8_t type, Dwarf_Die *split)
{
    bool any = false, is_split = type == DW_UT_skeleton && split->addr;
    int err;

    if (type != DW_UT_compile && type != DW_UT_skeleton)
        return 0;
    err = stile__array_grow(&d->units, &d->capacity, d->n_units, sizeof(*d->units));
    if (!err && d->n_units < UINT32_MAX)
        err = stile__die_ranges_add(&d->ranges, die, d->module, (uint32_t)d->n_units, &any);
    if (!err && any)
        d->units[d->n_units++] = (struct unit){.die = *die, .tree = is_split ? *split : *die};
    return err;
}

int stile__debug_info_new(Dwarf *dwarf, const struct stile__elf_file *module, struct stile__debug_info **out)
{
    struct stile__debug_info *d = calloc(1, sizeof(*d));
    Dwarf_CU *cu = NULL;
    Dwarf_Half version;
    Dwarf_Die die, split;
    uint8_t type;
    int err = 0;

    if (!d)
        return -ENOMEM;
    d->module = module;
    while (!err && dwarf_get_units(dwarf, cu, &cu, &version, &type, &die, &split) == 0)
        err = unit_add(d, &die, type, &split);
    stile__ranges_sort(&d->ranges);
    if (!err && !d->n_units)
        err = -ENOENT;
    if (err) {
        stile__debug_info_free(d);
        return err;
    }
    *out = d;
    return 0;
}

void stile__debug_info_free(struct stile__debug_info *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n_units; i++)
        stile__scopes_free(&d->units[i].scopes);
    free(d->units);
    stile__ranges_free(&d->ranges);
    free(d);
}

static int64_t number_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute attr;
    Dwarf_Word value;

    if (!dwarf_attr_integrate(die, attribute, &attr) || dwarf_formudata(&attr, &value) || value > INT32_MAX)
        return 0;
    return (int64_t)value;
}

static const char *text_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute attr;

    return dwarf_attr_integrate(die, attribute, &attr) ? dwarf_formstring(&attr) : NULL;
}

static void function_describe(Dwarf_Die *die, struct stile__debug_frame *frame)
{
    frame->name = text_of(die, DW_AT_name);
    frame->linkage_name = text_of(die, DW_AT_linkage_name);
    if (!frame->linkage_name)
        frame->linkage_name = text_of(die, DW_AT_MIPS_linkage_name);
    frame->start_line = number_of(die, DW_AT_decl_line);
}

/* Where the inlined function `die` was called from goes into the frame of its caller. */
static void call_describe(struct unit *unit, Dwarf_Die *die, struct stile__debug_frame *caller)
{
    Dwarf_Attribute attr;
    Dwarf_Word file;
    Dwarf_Files *files;
    size_t n_files;

    caller->line = number_of(die, DW_AT_call_line);
    if (dwarf_attr(die, DW_AT_call_file, &attr) && !dwarf_formudata(&attr, &file) &&
        !dwarf_getsrcfiles(&unit->die, &files, &n_files) && file < n_files)
        caller->filename = dwarf_filesrc(files, file, NULL, NULL);
}

static void line_describe(struct unit *unit, uint64_t address, struct stile__debug_frame *frame)
{
    Dwarf_Line *line = dwarf_getsrc_die(&unit->die, address);
    int number;

    if (!line)
        return;
    frame->filename = dwarf_linesrc(line, NULL, NULL);
    if (!dwarf_lineno(line, &number))
        frame->line = number;
}

int stile__debug_info_frames(struct stile__debug_info *d, uint64_t address,
                             struct stile__debug_frame frames[STILE__DEBUG_FRAMES_MOST], size_t *n)
{
    struct unit *unit;
    uint32_t i, scope;

    *n = 0;
    frames[0] = (struct stile__debug_frame){0};
    if (!stile__ranges_find(&d->ranges, address, &i))
        return 0;
    unit = &d->units[i];
    if (!unit->loaded) {
        if (stile__scopes_load(&unit->scopes, &unit->tree, d->module))
            return -ENOMEM;
        unit->loaded = true;
    }
    line_describe(unit, address, &frames[0]);
    if (!stile__ranges_find(&unit->scopes.ranges, address, &scope))
        return 0;
    while (scope != STILE__SCOPE_NONE && *n < STILE__DEBUG_FRAMES_MOST) {
        struct stile__scope *s = &unit->scopes.items[scope];

        function_describe(&s->die, &frames[(*n)++]);
        if (s->parent != STILE__SCOPE_NONE && *n < STILE__DEBUG_FRAMES_MOST) {
            frames[*n] = (struct stile__debug_frame){0};
            call_describe(unit, &s->die, &frames[*n]);
        }
        scope = s->parent;
    }
    return 0;
}
