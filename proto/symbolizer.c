/* Names addresses at the end of a session: symbol tables say which function, DWARF says what was inlined and which
 * line. Called by the collector for every distinct address, and by the command line.
 * Context: the collector's writer process and the command line; single-threaded. */
#include "proto/symbolizer.h"

#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "proto/arena.h"
#include "proto/debug_file.h"
#include "proto/debug_info.h"
#include "proto/demangle.h"
#include "proto/elf_file.h"
#include "proto/id_table.h"
#include "proto/symbol_table.h"

enum {
    DEMANGLED_MOST = 64 * 1024,
};

/* A name as linked, and as it is shown. */
struct name_pair {
    const char *system_name, *name;
};

struct stile__symbolizer {
    struct stile__arena arena; /* owns modules, frames and names */
    struct stile__symbol_module *modules;
    struct stile__id_table names; /* values are addresses of name_pairs in the arena */
    char *debug_root;
    char demangled[DEMANGLED_MOST]; /* scratch */
};

/* What was answered for an offset. */
struct answer {
    uint64_t offset;
    size_t n;
    struct stile__symbol_frame frames[];
};

struct stile__symbol_module {
    struct stile__symbolizer *owner;
    struct stile__symbol_module *next;
    /* elf is the module; debug its separate debug file, alt what dwz split off that. Any may be absent. */
    struct stile__elf_file elf, debug, alt;
    Dwarf *dwarf, *alt_dwarf;
    struct stile__debug_info *info; /* NULL: no DWARF */
    struct stile__symbol_table symbols;
    struct stile__symbol_coverage coverage;
    struct stile__id_table answers; /* values are addresses of answers in the arena */
};

struct stile__symbolizer *stile__symbolizer_new(void)
{
    struct stile__symbolizer *s = calloc(1, sizeof(*s));

    if (!s || stile__symbolizer_debug_root_set(s, STILE__DEBUG_ROOT)) {
        free(s);
        return NULL;
    }
    return s;
}

int stile__symbolizer_debug_root_set(struct stile__symbolizer *s, const char *directory)
{
    char *copy = strdup(directory);

    if (!copy)
        return -ENOMEM;
    free(s->debug_root);
    s->debug_root = copy;
    return 0;
}

static void module_close(struct stile__symbol_module *m)
{
    stile__id_table_free(&m->answers);
    stile__symbol_table_free(&m->symbols);
    stile__debug_info_free(m->info);
    dwarf_end(m->dwarf);
    dwarf_end(m->alt_dwarf);
    stile__elf_file_close(&m->alt);
    stile__elf_file_close(&m->debug);
    stile__elf_file_close(&m->elf);
}

void stile__symbolizer_free(struct stile__symbolizer *s)
{
    if (!s)
        return;
    for (struct stile__symbol_module *m = s->modules; m; m = m->next)
        module_close(m);
    stile__id_table_free(&s->names);
    stile__arena_free(&s->arena);
    free(s->debug_root);
    free(s);
}

static Dwarf *dwarf_open(const struct stile__elf_file *f)
{
    Dwarf *dwarf = f->elf ? dwarf_begin_elf(f->elf, DWARF_C_READ, NULL) : NULL;

    if (dwarf && !stile__elf_file_has_sound_texts(f)) {
        dwarf_end(dwarf);
        return NULL;
    }
    return dwarf;
}

/* DWARF from the separate debug file if there is one, else from the module itself. */
static void dwarf_load(struct stile__symbol_module *m, const char *debug_path, const char *path)
{
    m->dwarf = dwarf_open(&m->debug);
    if (m->dwarf)
        path = debug_path;
    else
        m->dwarf = dwarf_open(&m->elf);
    if (!m->dwarf)
        return;
    if (!stile__debug_file_open_alt(m->dwarf, path, m->owner->debug_root, &m->alt)) {
        m->alt_dwarf = dwarf_open(&m->alt);
        if (m->alt_dwarf)
            dwarf_setalt(m->dwarf, m->alt_dwarf);
    }
    if (!stile__debug_info_new(m->dwarf, &m->elf, &m->info))
        m->coverage.debug_info = true;
}

/* Both tables: .dynsym has names that a debug file of another vintage lacks. */
static int symbols_load(struct stile__symbol_module *m)
{
    bool found = false;
    int err = 0;

    if (m->debug.elf)
        err = stile__symbol_table_load(&m->symbols, m->debug.elf, SHT_SYMTAB, &found);
    if (!err && !found)
        err = stile__symbol_table_load(&m->symbols, m->elf.elf, SHT_SYMTAB, &found);
    m->coverage.symtab = found;
    if (!err)
        err = stile__symbol_table_load(&m->symbols, m->elf.elf, SHT_DYNSYM, &found);
    if (!err)
        err = stile__symbol_table_sort(&m->symbols);
    return err;
}

static int module_load(struct stile__symbol_module *m, const char *path, int fd, const void *image,
                       size_t size)
{
    char *debug_path = NULL;
    int err;

    m->elf.fd = m->debug.fd = m->alt.fd = -1;
    if (fd >= 0) {
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0 || stile__elf_file_open(&m->elf, fd))
            return 0;
    } else if (!image || stile__elf_file_open_image(&m->elf, image, size)) {
        return 0;
    }
    err = stile__debug_file_open(&m->elf, path, m->owner->debug_root, &m->debug, &debug_path);
    if (err != -ENOMEM)
        err = symbols_load(m);
    if (!err)
        dwarf_load(m, debug_path, path);
    free(debug_path);
    /* All sections of interest are in memory; hundreds of modules must not cost as many descriptors. */
    stile__elf_file_detach(&m->elf);
    stile__elf_file_detach(&m->debug);
    stile__elf_file_detach(&m->alt);
    return err;
}

struct stile__symbol_module *stile__symbolizer_module_open(struct stile__symbolizer *s, const char *path,
                                                           int fd, const void *image, size_t image_size)
{
    struct stile__symbol_module *m = stile__arena_alloc(&s->arena, sizeof(*m));

    if (!m)
        return NULL;
    m->owner = s;
    if (module_load(m, path, fd, image, image_size)) {
        module_close(m);
        return NULL;
    }
    m->next = s->modules;
    s->modules = m;
    return m;
}

struct stile__symbol_coverage stile__symbolizer_coverage(struct stile__symbol_module *m)
{
    return m->coverage;
}

static bool name_equal(const void *context, uint64_t id)
{
    return !strcmp(((const struct name_pair *)(uintptr_t)id)->system_name, context);
}

/* The symbol's name without a version ("malloc@@GLIBC_2.2.5") and its demangled form, each made once. */
static const struct name_pair *name_intern(struct stile__symbolizer *s, const char *linked)
{
    size_t length = strcspn(linked + 1, "@") + 1;
    struct name_pair *pair;
    uint64_t hash, id;

    if (linked[length]) /* else it stays where it is, in the ELF's or the DWARF's own strings */
        linked = stile__arena_text(&s->arena, linked, length);
    if (!linked)
        return NULL;
    hash = stile__hash_bytes(linked, length);
    if (stile__id_table_find(&s->names, hash, name_equal, linked, &id))
        return (const struct name_pair *)(uintptr_t)id;
    pair = stile__arena_alloc(&s->arena, sizeof(*pair));
    if (!pair || stile__id_table_reserve(&s->names))
        return NULL;
    pair->system_name = pair->name = linked;
    length = stile__demangle(linked, s->demangled, sizeof(s->demangled));
    if (length)
        pair->name = stile__arena_text(&s->arena, s->demangled, length);
    if (!pair->name)
        return NULL;
    stile__id_table_add(&s->names, hash, (uintptr_t)pair);
    return pair;
}

static bool is_mangled(const char *name)
{
    return !strncmp(name, "_Z", 2) || !strncmp(name, "_R", 2);
}

static size_t underscores(const char *name)
{
    return strspn(name, "_");
}

/* The name to show for a frame, as linked. A mangled one tells most. Otherwise the source's, except where it is but
 * a library's inner name of what the symbol table knows better (__libc_malloc, malloc), or bare, as for C++
 * functions of an unnamed namespace. "??" if nothing is known. */
static const char *name_choose(const struct stile__debug_frame *f, const char *symbol)
{
    if (f->linkage_name && is_mangled(f->linkage_name))
        return f->linkage_name;
    if (symbol && (!f->name || is_mangled(symbol) || underscores(symbol) < underscores(f->name)))
        return symbol;
    return f->name && *f->name ? f->name : f->linkage_name && *f->linkage_name ? f->linkage_name : "??";
}

/* symbol is the one that owns the code, for the outermost frame, else NULL. */
static bool frame_fill(struct stile__symbolizer *s, struct stile__symbol_frame *out,
                       const struct stile__debug_frame *in, const char *symbol)
{
    const struct name_pair *shown = name_intern(s, name_choose(in, symbol));
    const struct name_pair *linked = symbol ? name_intern(s, symbol) : shown;

    if (!shown || !linked)
        return false;
    out->name = shown->name;
    out->system_name = linked->system_name;
    out->filename = in->filename ? in->filename : "";
    out->line = in->line;
    out->start_line = in->start_line;
    return true;
}

static struct answer *answer_make(struct stile__symbol_module *m, uint64_t offset)
{
    struct stile__debug_frame found[STILE__DEBUG_FRAMES_MOST];
    const char *symbol = NULL;
    struct answer *a;
    uint64_t address;
    size_t n = 0;

    found[0] = (struct stile__debug_frame){0};
    if (m->elf.elf && stile__elf_file_address(&m->elf, offset, &address)) {
        symbol = stile__symbol_table_find(&m->symbols, address);
        if (m->info && stile__debug_info_frames(m->info, address, found, &n))
            return NULL;
        if (!n && symbol)
            n = 1;
    }
    a = stile__arena_alloc(&m->owner->arena, sizeof(*a) + n * sizeof(a->frames[0]));
    if (!a)
        return NULL;
    a->offset = offset;
    a->n = n;
    for (size_t i = 0; i < n; i++)
        if (!frame_fill(m->owner, &a->frames[i], &found[i], i + 1 == n ? symbol : NULL))
            return NULL;
    return a;
}

static bool answer_equal(const void *context, uint64_t id)
{
    return ((const struct answer *)(uintptr_t)id)->offset == *(const uint64_t *)context;
}

size_t stile__symbolizer_frames(struct stile__symbol_module *m, uint64_t offset,
                                const struct stile__symbol_frame **frames)
{
    uint64_t hash = stile__hash_add(1, offset), id;
    struct answer *a;

    *frames = NULL;
    if (!stile__id_table_find(&m->answers, hash, answer_equal, &offset, &id)) {
        a = answer_make(m, offset);
        if (!a || stile__id_table_reserve(&m->answers))
            return 0;
        id = (uintptr_t)a;
        stile__id_table_add(&m->answers, hash, id);
    }
    a = (struct answer *)(uintptr_t)id;
    if (a->n)
        *frames = a->frames;
    return a->n;
}
