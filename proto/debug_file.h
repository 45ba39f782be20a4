/* Where a module's debug information lies, if not in the module itself. Context: any normal; single-threaded.
 * Only local files are looked at; nothing is ever fetched from a network. */
#ifndef STILE_PROTO_DEBUG_FILE_H
#define STILE_PROTO_DEBUG_FILE_H

#include <elfutils/libdw.h>

#include "proto/elf_file.h"

#define STILE__DEBUG_ROOT "/usr/lib/debug"

/* Opens the separate debug file of `module`: by build id below root, else by .gnu_debuglink beside path, in .debug
 * beside it, or below root. A file counts only if its build id (or the link's checksum) is the module's.
 * *found_path is to be freed. 0, -ENOENT or -ENOMEM. */
int stile__debug_file_open(const struct stile__elf_file *module, const char *path, const char *root,
                           struct stile__elf_file *out, char **found_path);
/* Opens what lies below root under a build id: a separate debug file, or the module itself. *found_path is to be freed. 0,
 * -ENOENT or -ENOMEM. */
int stile__debug_file_find(const uint8_t *id, size_t id_size, const char *root, struct stile__elf_file *out,
                           char **found_path);
/* Opens what .gnu_debugaltlink of dwarf, read from the file at path, names (dwz puts there what several files
 * share). 0, -ENOENT or -ENOMEM. */
int stile__debug_file_open_alt(Dwarf *dwarf, const char *path, const char *root, struct stile__elf_file *out);

#endif
