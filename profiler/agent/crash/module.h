/* What is loaded where: by the loader's own lock-free index (_dl_find_object, glibc 2.35 and later) and, without it or beyond it,
 * by its list, read word by word where it can be read. Runs in the handlers of crashes: no lock, no allocation. */
#ifndef STILE_AGENT_CRASH_MODULE_H
#define STILE_AGENT_CRASH_MODULE_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/agent/crash/cfi.h"

#define STILE__BUILD_ID_MAX 64u
#define STILE__MODULES_MAX  1024u /* of the list that are looked at */

struct stile__module {
    const char *path;         /* of the file; the main program's as it was when reports were enabled */
    uint64_t start, end;      /* its mapping; end is exclusive */
    uint64_t bias;            /* runtime address - virtual address in the file */
    const void *eh_frame_hdr; /* NULL: none */
    const uint8_t *build_id;  /* NULL: none */
    size_t build_id_len;
    const struct link_map *map;
};

#define STILE__MODULE_PATH_MAX 4096u /* bytes; what is longer, or cannot be read, is not told */

/* Normal context, before any of the others: finds the loader's functions and remembers the main program's path. */
void stile__modules_init(void);

/* The module that has an address. */
bool stile__module_of(uint64_t address, struct stile__module *m);

/* Where the CFI of the module that has an address is; hdr is 0 if it has none. Less work than all the rest. */
bool stile__module_cfi(uint64_t address, struct stile__cfi_section *s);

/* Whether an address is in a module's code. */
bool stile__module_code(uint64_t address);

/* Calls fn for each module. */
void stile__modules_each(void (*fn)(const struct stile__module *m, void *arg), void *arg);

/* The name of the function that a module exports and that has an address within its size, and how far into it the address is;
 * NULL if there is none. */
const char *stile__module_symbol(const struct stile__module *m, uint64_t address, uint64_t *into);

#endif
