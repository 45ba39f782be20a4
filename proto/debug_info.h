/* DWARF of one module: which functions, inlined ones too, and which source line an address belongs to.
 * Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_DEBUG_INFO_H
#define STILE_PROTO_DEBUG_INFO_H

#include <elfutils/libdw.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/elf_file.h"

struct stile__debug_info;

/* One function activation. Texts live as long as the Dwarf. */
struct stile__debug_frame {
    const char *name;         /* as in the source, without its namespace; NULL if unknown */
    const char *linkage_name; /* as linked; NULL if the DWARF has none, as for C */
    const char *filename;     /* NULL if unknown */
    int64_t line, start_line; /* 0 if unknown */
};

enum {
    /* Deeper inlining than this is cut: the innermost frames are kept. */
    STILE__DEBUG_FRAMES_MOST = 256,
};

/* Indexes the units of dwarf; functions are read unit by unit when first asked for. module tells what is code;
 * both must outlive the result. 0, -ENOENT if no unit has code, -ENOMEM. */
int stile__debug_info_new(Dwarf *dwarf, const struct stile__elf_file *module, struct stile__debug_info **out);
void stile__debug_info_free(struct stile__debug_info *d);

/* Fills frames, innermost first, for the instruction at address (as linked); *n is their number. If no function is
 * known there, *n is 0, but frames[0].filename and line may still be set. 0 or -ENOMEM. */
int stile__debug_info_frames(struct stile__debug_info *d, uint64_t address,
                             struct stile__debug_frame frames[STILE__DEBUG_FRAMES_MOST], size_t *n);

#endif
