/* Parts of module.h: what a module's own headers say, as it is mapped. */
#ifndef STILE_AGENT_CRASH_MODULE_ELF_H
#define STILE_AGENT_CRASH_MODULE_ELF_H

#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/pages.h"

/* Runtime addresses. */
struct stile__module_elf {
    uint64_t start, end; /* of all segments */
    uint64_t eh_frame_hdr;
    uint64_t headers, bias;
    uint32_t n_headers; /* program headers, which were found readable */
};

/* The module whose ELF header is at an address. False: there is none. */
bool stile__module_elf_at(struct stile__module_elf *elf, struct stile__pages *pages, uint64_t header,
                          uint64_t bias);

/* Whether an address is in a segment that can be executed. */
bool stile__module_elf_code(const struct stile__module_elf *elf, uint64_t address);

/* Leaves both as they are if there is none. */
void stile__module_elf_build_id(const struct stile__module_elf *elf, struct stile__pages *pages,
                                const uint8_t **build_id, size_t *len);

/* See stile__module_symbol; the module's map was found readable. */
const char *stile__module_elf_symbol(const struct stile__module *m, struct stile__pages *pages,
                                     uint64_t address, uint64_t *into);

/* Where the function of this name is that the module defines; 0 if it does not. */
uint64_t stile__module_elf_defines(const struct stile__module *m, struct stile__pages *pages,
                                   const char *name);

#endif
