/* What is loaded where. Runs in the handlers of crashes: the loader may have been interrupted in the midst of a change, so that
 * nothing is read that is not readable, and nothing is believed that is not in its bounds. */
#include "profiler/agent/crash/module.h"

#include <fcntl.h>

#include "profiler/agent/crash/module_elf.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#ifndef FIND_OBJECT
#    define FIND_OBJECT "_dl_find_object" /* tests do without */
#endif

/* As in <dlfcn.h> of glibc 2.35 and later. */
struct found_object {
    unsigned long long flags;
    void *start, *end;
    struct link_map *map;
    void *eh_frame;
    unsigned long long reserved[7];
};

extern struct r_debug loader_debug __asm__("_r_debug") __attribute__((weak)); /* not in static programs */

static int (*find_object)(void *address, struct found_object *found);
static char exe[STILE__MODULE_PATH_MAX]; /* the main program's path */
static uint64_t exe_headers;             /* its ELF header */

/* The list's next link, if it can be read. */
static const struct link_map *readable(struct stile__pages *pages, const struct link_map *map)
{
    return map != NULL && stile__pages_readable(pages, (uint64_t)map, sizeof *map) ? map : NULL;
}

static const struct link_map *list_first(struct stile__pages *pages)
{
    return &loader_debug != NULL ? readable(pages, loader_debug.r_map) : NULL;
}

/* The one that is the program: by its name, which no other has empty. */
static bool is_main(const struct link_map *map)
{
    return &loader_debug != NULL && map == loader_debug.r_map;
}

static const char *path_of(struct stile__pages *pages, const struct link_map *map)
{
    const uint64_t name = (uint64_t)map->l_name;
    for (uint64_t i = 0; i < STILE__MODULE_PATH_MAX && stile__pages_readable(pages, name + i, 1); i++)
        if (((const char *)name)[i] == '\0')
            return i == 0 && is_main(map) ? exe : map->l_name;
    return "";
}

/* The range of a module of the list, by its own headers. */
static bool listed_range(struct stile__pages *pages, const struct link_map *map,
                         struct stile__module_elf *elf)
{
    const uint64_t headers = is_main(map) ? exe_headers : map->l_addr;
    return headers != 0 && stile__module_elf_at(elf, pages, headers, map->l_addr);
}

/* The loader's index. */
static bool index_find(uint64_t address, struct stile__pages *pages, struct found_object *found)
{
    return find_object != NULL && find_object((void *)address, found) == 0 &&
           (uint64_t)found->start <= address && address < (uint64_t)found->end &&
           readable(pages, found->map) != NULL;
}

static const struct link_map *list_find(uint64_t address, struct stile__pages *pages,
                                        struct stile__module_elf *elf)
{
    unsigned n = 0;
    for (const struct link_map *map = list_first(pages); map != NULL && n < STILE__MODULES_MAX;
         map = readable(pages, map->l_next), n++)
        if (listed_range(pages, map, elf) && elf->start <= address && address < elf->end)
            return map;
    return NULL;
}

/* What an address lies in. */
struct place {
    const struct link_map *map;
    bool indexed; /* found says more, else elf does */
    struct found_object found;
    struct stile__module_elf elf;
};

static bool place_find(uint64_t address, struct stile__pages *pages, struct place *p)
{
    if (address < STILE__PAGES_BYTES || address >= STILE__PAGES_END)
        return false;
    p->indexed = index_find(address, pages, &p->found);
    p->map = p->indexed ? p->found.map : list_find(address, pages, &p->elf);
    return p->map != NULL;
}

bool stile__module_cfi(uint64_t address, struct stile__cfi_section *s)
{
    struct stile__pages pages = {{0}};
    struct place p;
    if (!place_find(address, &pages, &p))
        return false;
    *s = p.indexed ? (struct stile__cfi_section){(uint64_t)p.found.eh_frame, (uint64_t)p.found.start,
                                                 (uint64_t)p.found.end}
                   : (struct stile__cfi_section){p.elf.eh_frame_hdr, p.elf.start, p.elf.end};
    return true;
}

bool stile__module_code(uint64_t address)
{
    struct stile__pages pages = {{0}};
    struct place p;
    if (!place_find(address, &pages, &p))
        return false;
    if (p.indexed && !stile__module_elf_at(&p.elf, &pages, (uint64_t)p.found.start, p.map->l_addr))
        return true; /* its headers cannot be asked */
    return stile__module_elf_code(&p.elf, address);
}

/* All of a module: by the index's entry, or by the ELF headers if that has none. */
static bool fill(struct stile__module *m, struct stile__pages *pages, const struct link_map *map,
                 const struct found_object *found)
{
    struct stile__module_elf elf;
    bool have = found != NULL ? stile__module_elf_at(&elf, pages, (uint64_t)found->start, map->l_addr)
                              : listed_range(pages, map, &elf);
    if (!have && found == NULL)
        return false;
    m->path = path_of(pages, map);
    m->start = found != NULL ? (uint64_t)found->start : elf.start;
    m->end = found != NULL ? (uint64_t)found->end : elf.end;
    m->bias = map->l_addr;
    m->eh_frame_hdr = found != NULL ? found->eh_frame : (const void *)elf.eh_frame_hdr;
    m->build_id = NULL;
    m->build_id_len = 0;
    if (have)
        stile__module_elf_build_id(&elf, pages, &m->build_id, &m->build_id_len);
    m->map = map;
    return true;
}

bool stile__module_of(uint64_t address, struct stile__module *m)
{
    struct stile__pages pages = {{0}};
    struct place p;
    return place_find(address, &pages, &p) && fill(m, &pages, p.map, p.indexed ? &p.found : NULL);
}

void stile__modules_each(void (*fn)(const struct stile__module *m, void *arg), void *arg)
{
    struct stile__pages pages = {{0}};
    struct found_object found;
    struct stile__module m;
    unsigned n = 0;
    for (const struct link_map *map = list_first(&pages); map != NULL && n < STILE__MODULES_MAX;
         map = readable(&pages, map->l_next), n++) {
        const bool indexed = index_find((uint64_t)map->l_ld, &pages, &found) && found.map == map;
        if (fill(&m, &pages, map, indexed ? &found : NULL))
            fn(&m, arg);
    }
}

const char *stile__module_symbol(const struct stile__module *m, uint64_t address, uint64_t *into)
{
    struct stile__pages pages = {{0}};
    if (readable(&pages, m->map) == NULL)
        return NULL;
    return stile__module_elf_symbol(m, &pages, address, into);
}

/* The main program's ELF header, as the kernel has told the loader. */
static uint64_t exe_headers_find(void)
{
    Elf64_auxv_t entry = {0};
    uint64_t headers = 0;
    const long fd =
        stile__raw_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/auxv", O_RDONLY | O_CLOEXEC, 0);
    while (fd >= 0 && stile__raw_syscall(SYS_read, fd, (long)&entry, sizeof entry, 0) == sizeof entry)
        if (entry.a_type == AT_PHDR)
            headers = entry.a_un.a_val & ~(uint64_t)(STILE__PAGES_BYTES - 1);
    if (fd >= 0)
        stile__raw_syscall(SYS_close, fd, 0, 0, 0);
    return headers;
}

void stile__modules_init(void)
{
    struct stile__pages pages = {{0}};
    struct stile__module m;
    unsigned n = 0;
    const long length =
        stile__raw_syscall(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)exe, sizeof exe - 1);
    exe[length > 0 ? length : 0] = '\0';
    exe_headers = exe_headers_find();
    for (const struct link_map *map = list_first(&pages);
         map != NULL && find_object == NULL && n < STILE__MODULES_MAX;
         map = readable(&pages, map->l_next), n++)
        if (fill(&m, &pages, map, NULL))
            *(uint64_t *)&find_object = stile__module_elf_defines(&m, &pages, FIND_OBJECT);
}
