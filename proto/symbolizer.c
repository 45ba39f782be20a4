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
    WAITING_MOST = 64, /* modules whose debug information is not read yet: each holds descriptors */
};

/* A name as linked, and as it is shown. */
struct name_pair {
    const char *system_name, *name;
};

struct stile__symbolizer {
    struct stile__arena arena; /* owns modules, frames and names */
    struct stile__symbol_module *modules;
    unsigned waiting;
    struct stile__id_table names; /* values are addresses of name_pairs in the arena */
    char *debug_root;
    char demangled[DEMANGLED_MOST]; /* scratch */
};

/* What was answered for an address, as linked. */
struct answer {
    uint64_t address;
    size_t n;
    struct stile__symbol_frame frames[];
};

struct stile__symbol_module {
    struct stile__symbolizer *owner;
    struct stile__symbol_module *next;
    /* elf is the module; debug its separate debug file, alt what dwz split off that. Any may be absent. */
    struct stile__elf_file elf, debug, alt;
    char *path, *debug_path; /* while debug information waits to be read */
    bool waits;
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
    free(m->path);
    free(m->debug_path);
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
static void dwarf_load(struct stile__symbol_module *m)
{
    const char *path = m->path;

    m->dwarf = dwarf_open(&m->debug);
    if (m->dwarf)
        path = m->debug_path;
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

/* The module's own file, as far as it can be read. */
static void module_read(struct stile__symbol_module *m, int fd, const void *image, size_t size)
{
    m->elf.fd = m->debug.fd = m->alt.fd = -1;
    if (fd >= 0)
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0)
        stile__elf_file_open(&m->elf, fd);
    else if (image)
        stile__elf_file_open_image(&m->elf, image, size);
}

/* Reads the debug information, which may be large, once somebody asks. */
static void debug_load(struct stile__symbol_module *m)
{
    if (!m->waits)
        return;
    m->waits = false;
    m->owner->waiting--;
    dwarf_load(m);
    /* All sections of interest are in memory; hundreds of modules must not cost as many descriptors. */
    stile__elf_file_detach(&m->elf);
    stile__elf_file_detach(&m->debug);
    stile__elf_file_detach(&m->alt);
}

static int module_load(struct stile__symbol_module *m, const char *path)
{
    int err;

    if (!m->elf.elf)
        return 0;
    m->path = path ? strdup(path) : NULL;
    if (path && !m->path)
        return -ENOMEM;
    err = stile__debug_file_open(&m->elf, path, m->owner->debug_root, &m->debug, &m->debug_path);
    if (err != -ENOMEM)
        err = symbols_load(m);
    if (err)
        return err;
    m->waits = true;
    if (++m->owner->waiting > WAITING_MOST)
        debug_load(m);
    return 0;
}

static struct stile__symbol_module *module_new(struct stile__symbolizer *s)
{
    struct stile__symbol_module *m = stile__arena_alloc(&s->arena, sizeof(*m));

    if (m)
        m->owner = s;
    return m;
}

/* Loads the rest of what has its file, and keeps it. */
static struct stile__symbol_module *module_keep(struct stile__symbol_module *m, const char *path)
{
    if (module_load(m, path)) {
        module_close(m);
        return NULL;
    }
    m->next = m->owner->modules;
    m->owner->modules = m;
    return m;
}

struct stile__symbol_module *stile__symbolizer_module_open(struct stile__symbolizer *s, const char *path,
                                                           int fd, const void *image, size_t image_size)
{
    struct stile__symbol_module *m = module_new(s);

    if (!m)
        return NULL;
    module_read(m, fd, image, image_size);
    return module_keep(m, path);
}

static bool has_build_id(const struct stile__elf_file *f, const uint8_t *id, size_t id_size)
{
    const uint8_t *own;

    return stile__elf_file_build_id(f, &own) == id_size && (!id_size || !memcmp(own, id, id_size));
}

struct stile__symbol_module *stile__symbolizer_module_find(struct stile__symbolizer *s, const char *path,
                                                           int fd, const uint8_t *id, size_t id_size,
                                                           bool *other)
{
    struct stile__symbol_module *m = module_new(s);
    char *found = NULL;

    if (!m)
        return NULL;
    module_read(m, fd, NULL, 0);
    if (m->elf.elf && has_build_id(&m->elf, id, id_size))
        return module_keep(m, path);
    *other = *other || m->elf.elf;
    stile__elf_file_close(&m->elf);
    if (stile__debug_file_find(id, id_size, s->debug_root, &m->elf, &found))
        return NULL;
    m = module_keep(m, found);
    free(found);
    return m;
}

struct stile__symbol_coverage stile__symbolizer_coverage(struct stile__symbol_module *m)
{
    debug_load(m);
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

static struct answer *answer_make(struct stile__symbol_module *m, uint64_t address)
{
    struct stile__debug_frame found[STILE__DEBUG_FRAMES_MOST];
    const char *symbol = NULL;
    struct answer *a;
    size_t n = 0;

    debug_load(m);
    found[0] = (struct stile__debug_frame){0};
    symbol = stile__symbol_table_find(&m->symbols, address);
    if (m->info && stile__debug_info_frames(m->info, address, found, &n))
        return NULL;
    if (!n && symbol)
        n = 1;
    a = stile__arena_alloc(&m->owner->arena, sizeof(*a) + n * sizeof(a->frames[0]));
    if (!a)
        return NULL;
    a->address = address;
    a->n = n;
    for (size_t i = 0; i < n; i++)
        if (!frame_fill(m->owner, &a->frames[i], &found[i], i + 1 == n ? symbol : NULL))
            return NULL;
    return a;
}

static bool answer_equal(const void *context, uint64_t id)
{
    return ((const struct answer *)(uintptr_t)id)->address == *(const uint64_t *)context;
}

size_t stile__symbolizer_frames_linked(struct stile__symbol_module *m, uint64_t address,
                                       const struct stile__symbol_frame **frames)
{
    uint64_t hash = stile__hash_add(1, address), id;
    struct answer *a;

    *frames = NULL;
    if (!m->elf.elf)
        return 0;
    if (!stile__id_table_find(&m->answers, hash, answer_equal, &address, &id)) {
        a = answer_make(m, address);
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

bool stile__symbolizer_name(struct stile__symbol_module *m, uint64_t offset,
                            const struct stile__symbol_frame **frame)
{
    const struct stile__debug_frame nothing = {0};
    struct stile__symbol_frame *f;
    const char *symbol;
    uint64_t address;

    *frame = NULL;
    if (!m->elf.elf || !stile__elf_file_address(&m->elf, offset, &address))
        return false;
    symbol = stile__symbol_table_find(&m->symbols, address);
    f = symbol ? stile__arena_alloc(&m->owner->arena, sizeof(*f)) : NULL;
    if (!f || !frame_fill(m->owner, f, &nothing, symbol))
        return false;
    *frame = f;
    return true;
}

size_t stile__symbolizer_frames(struct stile__symbol_module *m, uint64_t offset,
                                const struct stile__symbol_frame **frames)
{
    uint64_t address;

    *frames = NULL;
    if (!m->elf.elf || !stile__elf_file_address(&m->elf, offset, &address))
        return 0;
    return stile__symbolizer_frames_linked(m, address, frames);
}
