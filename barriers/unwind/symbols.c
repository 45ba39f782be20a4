/* Dynamic symbols as the loader has mapped them. What is here uses no relocated data and no function of libc. */
#include "barriers/unwind/symbols.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>

#include "profiler/region/raw_syscall.h"

#define HIDDEN 0x8000u /* of a version: not the default one */

extern const Elf64_Dyn own_dynamic[] __asm__("_DYNAMIC") __attribute__((visibility("hidden")));
extern struct r_debug loader_debug __asm__("_r_debug")
    __attribute__((weak)); /* no reason to need the loader */

/* Where a module's dynamic symbols are. */
struct symbols {
    const Elf64_Sym *all;
    const char *names;
    const uint32_t *gnu, *sysv; /* either may be missing */
    const uint16_t *versions;   /* or NULL */
};

/* The loader relocates addresses there, but not the kernel's module's, nor before it has come to a module. */
static const void *pointer(const struct link_map *map, const Elf64_Dyn *d)
{
    return (const void *)(d->d_un.d_ptr < map->l_addr ? d->d_un.d_ptr + map->l_addr : d->d_un.d_ptr);
}

static bool symbols_find(const struct link_map *map, struct symbols *s)
{
    s->all = NULL;
    s->names = NULL;
    s->gnu = s->sysv = NULL;
    s->versions = NULL;
    for (const Elf64_Dyn *d = map->l_ld; d != NULL && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_SYMTAB)
            s->all = pointer(map, d);
        else if (d->d_tag == DT_STRTAB)
            s->names = pointer(map, d);
        else if (d->d_tag == DT_GNU_HASH)
            s->gnu = pointer(map, d);
        else if (d->d_tag == DT_HASH)
            s->sysv = pointer(map, d);
        else if (d->d_tag == DT_VERSYM)
            s->versions = pointer(map, d);
    return s->all != NULL && s->names != NULL;
}

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* What a symbol defines, or 0. A hidden version is kept in `hidden`, for want of a better one. */
static uintptr_t value_of(const struct link_map *map, const struct symbols *s, uint32_t i, const char *name,
                          unsigned type, uintptr_t *hidden)
{
    const Elf64_Sym *symbol = &s->all[i];
    if (symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) != type ||
        !same(s->names + symbol->st_name, name))
        return 0;
    uintptr_t value = map->l_addr + symbol->st_value;
    if (s->versions == NULL || (s->versions[i] & HIDDEN) == 0)
        return value;
    *hidden = value;
    return 0;
}

/* DT_GNU_HASH: a bloom filter, buckets by hash, chains whose last entry is odd. DT_HASH: as many chain entries as symbols. */
static uintptr_t symbol_of(const struct link_map *map, const char *name, unsigned type)
{
    struct symbols s;
    uintptr_t hidden = 0, found = 0;
    if (!symbols_find(map, &s))
        return 0;
    if (s.gnu == NULL) {
        for (uint32_t i = 1; found == 0 && s.sysv != NULL && i < s.sysv[1]; i++)
            found = value_of(map, &s, i, name, type, &hidden);
        return found != 0 ? found : hidden;
    }
    const uint32_t n_buckets = s.gnu[0], first = s.gnu[1], n_bloom = s.gnu[2];
    const uint32_t *buckets = s.gnu + 4 + 2 * (size_t)n_bloom, *chains = buckets + n_buckets;
    uint32_t h = 5381;
    for (const char *c = name; *c != '\0'; c++)
        h = h * 33 + (uint8_t)*c;
    uint32_t i = n_buckets != 0 ? buckets[h % n_buckets] : 0;
    for (bool last = i < first; !last && found == 0; i++) {
        last = (chains[i - first] & 1) != 0;
        if ((chains[i - first] | 1) == (h | 1))
            found = value_of(map, &s, i, name, type, &hidden);
    }
    return found != 0 ? found : hidden;
}

uintptr_t stile__symbol_of(const struct link_map *map, const char *name)
{
    return symbol_of(map, name, STT_FUNC);
}

uintptr_t stile__symbol_variable_of(const struct link_map *map, const char *name)
{
    return symbol_of(map, name, STT_OBJECT);
}

static const Elf64_Dyn *dynamic_of(uintptr_t base)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
    const Elf64_Phdr *ph = (const Elf64_Phdr *)(base + header->e_phoff);
    for (unsigned i = 0; i < header->e_phnum; i++)
        if (ph[i].p_type == PT_DYNAMIC)
            return (const Elf64_Dyn *)(base + ph[i].p_vaddr);
    return NULL;
}

/* Before this library is relocated the loader is found where the kernel has put it, or, as a program, itself. */
static const struct r_debug *debug_early(void)
{
    Elf64_auxv_t entry = {0};
    uintptr_t base = 0, headers = 0;
    long fd = stile__raw_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/auxv", O_RDONLY | O_CLOEXEC, 0);
    while (fd >= 0 && stile__raw_syscall(SYS_read, fd, (long)&entry, sizeof entry, 0) == sizeof entry)
        if (entry.a_type == AT_BASE)
            base = entry.a_un.a_val;
        else if (entry.a_type == AT_PHDR)
            headers = entry.a_un.a_val;
    if (fd >= 0)
        stile__raw_syscall(SYS_close, fd, 0, 0, 0);
    if (base == 0)
        base = headers & ~(uintptr_t)4095;
    if (base == 0)
        return NULL;
    const struct link_map loader = {.l_addr = base, .l_ld = (Elf64_Dyn *)(uintptr_t)dynamic_of(base)};
    return (const struct r_debug *)symbol_of(&loader, "_r_debug", STT_OBJECT);
}

/* Not rather by dlsym(RTLD_NEXT), which is among what is looked for. What is first in the list, up to libc, is what the
 * program began with, in the order of its scope; nothing of that goes or moves. */
uintptr_t stile__symbol_next(const char *name)
{
    const struct r_debug *debug = &loader_debug != NULL ? &loader_debug : debug_early();
    const struct link_map *first = debug != NULL ? debug->r_map : NULL, *own = first;
    while (own != NULL && own->l_ld != own_dynamic)
        own = own->l_next;
    for (const struct link_map *map = own != NULL ? own->l_next : NULL; map != NULL; map = map->l_next) {
        uintptr_t found = stile__symbol_of(map, name);
        if (found != 0)
            return found;
    }
    /* Loaded by dlopen, after libc; or in another namespace. */
    for (const struct link_map *map = first; map != own; map = map->l_next) {
        uintptr_t found = stile__symbol_of(map, name);
        if (found != 0)
            return found;
    }
    return 0;
}
