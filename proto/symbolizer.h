/* Turns an address inside an ELF file into function names, files and lines.
 *
 * Context: the collector's writer process and the command line; single-threaded. Owned by the caller of
 * stile__symbolizer_new; modules are owned by their symbolizer; frames returned stay valid until it is freed. */
#ifndef STILE_PROTO_SYMBOLIZER_H
#define STILE_PROTO_SYMBOLIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__symbolizer;
struct stile__symbol_module;

struct stile__symbol_frame {
    const char *name;        /* demangled (C++, Rust); never NULL */
    const char *system_name; /* as linked; never NULL */
    const char *filename;    /* "" if unknown */
    int64_t line;            /* 0 if unknown */
    int64_t start_line;      /* 0 if unknown */
};

/* How much a module could tell, for pprof's has_* flags. */
struct stile__symbol_coverage {
    bool debug_info; /* has DWARF: files, lines and inlined frames */
    bool symtab;     /* has .symtab, its own or a separate debug file's */
};

struct stile__symbolizer *stile__symbolizer_new(void);
void stile__symbolizer_free(struct stile__symbolizer *s);
/* Where separate debug files are looked for, instead of /usr/lib/debug; for modules opened afterwards.
 * Nothing is ever fetched from a network (debuginfod). 0 or -ENOMEM. */
int stile__symbolizer_debug_root_set(struct stile__symbolizer *s, const char *directory);

/* Opens an ELF module. Either `fd` (read, not closed, may be closed by the caller afterwards; path is only for
 * finding separate debug files; NULL for none) or, when fd is -1, `image` with `image_size` bytes (the vdso), which
 * must outlive the symbolizer. Separate debug files must carry the module's own build id. Never NULL but on ENOMEM: a module that
 * cannot be read names nothing. */
struct stile__symbol_module *stile__symbolizer_module_open(struct stile__symbolizer *s, const char *path,
                                                           int fd, const void *image, size_t image_size);
/* The same for a module of which only the build id is certain (no bytes: it has none). The file behind fd counts only if its
 * build id is that one, else *other is set; without it, what the separate debug files have under the build id does. fd may be
 * -1. NULL: neither is to be had, or no memory. */
struct stile__symbol_module *stile__symbolizer_module_find(struct stile__symbolizer *s, const char *path,
                                                           int fd, const uint8_t *id, size_t id_size,
                                                           bool *other);
/* Debug information is not read before it, or the first frames, are asked for. */
struct stile__symbol_coverage stile__symbolizer_coverage(struct stile__symbol_module *m);

/* Names the function of the instruction at file offset `offset` by the symbol tables alone, which are read already: *frame has
 * neither file nor line. False, and NULL, if it has no symbol. */
bool stile__symbolizer_name(struct stile__symbol_module *m, uint64_t offset,
                            const struct stile__symbol_frame **frame);

/* Names the instruction at file offset `offset` (bytes into the file, as mapped; the module's program headers turn
 * it into a virtual address). Returns the number of frames, innermost first, the last one the function that owns
 * the code; 0 if nothing is known: a name belongs to an address only within its symbol's size. */
size_t stile__symbolizer_frames(struct stile__symbol_module *m, uint64_t offset,
                                const struct stile__symbol_frame **frames);

/* The same for a virtual address of the module, as linked. */
size_t stile__symbolizer_frames_linked(struct stile__symbol_module *m, uint64_t address,
                                       const struct stile__symbol_frame **frames);

#endif
