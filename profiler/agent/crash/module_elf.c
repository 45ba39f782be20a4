/* A module's headers, notes and dynamic symbols, as they are mapped. Runs in the handlers of crashes. */
#include "profiler/agent/crash/module_elf.h"

#include "profiler/agent/signal/poison.h"

#define HEADERS_MAX 128u
#define NOTE_BYTES  4096u /* of a segment of notes that are looked at */
#define DYNAMIC_MAX 256u
#define NAME_MAX_   65536u
#define BATCH       128u /* symbols, or buckets, that are found readable at once */

bool stile__module_elf_at(struct stile__module_elf *elf, struct stile__pages *pages, uint64_t header,
                          uint64_t bias)
{
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)header;
    if (header % 8 != 0 || !stile__pages_readable(pages, header, sizeof *e) || e->e_ident[0] != 0x7f ||
        e->e_ident[1] != 'E' || e->e_ident[2] != 'L' || e->e_ident[3] != 'F' ||
        e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_phentsize != sizeof(Elf64_Phdr) || e->e_phoff % 8 != 0 ||
        e->e_phoff > STILE__PAGES_BYTES || e->e_phnum == 0 || e->e_phnum > HEADERS_MAX ||
        !stile__pages_readable(pages, header + e->e_phoff, e->e_phnum * sizeof(Elf64_Phdr)))
        return false;
    *elf = (struct stile__module_elf){UINT64_MAX, 0, 0, header + e->e_phoff, bias, e->e_phnum};
    const Elf64_Phdr *ph = (const Elf64_Phdr *)elf->headers;
    for (uint32_t i = 0; i < elf->n_headers; i++) {
        const uint64_t at = bias + ph[i].p_vaddr;
        if (ph[i].p_type == PT_LOAD) {
            const uint64_t start = at & ~(uint64_t)(STILE__PAGES_BYTES - 1);
            elf->start = start < elf->start ? start : elf->start;
            elf->end = at + ph[i].p_memsz > elf->end ? at + ph[i].p_memsz : elf->end;
        } else if (ph[i].p_type == PT_GNU_EH_FRAME) {
            elf->eh_frame_hdr = at;
        }
    }
    return elf->start <= header && header < elf->end;
}

bool stile__module_elf_code(const struct stile__module_elf *elf, uint64_t address)
{
    const Elf64_Phdr *ph = (const Elf64_Phdr *)elf->headers;
    for (uint32_t i = 0; i < elf->n_headers; i++)
        if (ph[i].p_type == PT_LOAD && (ph[i].p_flags & PF_X) != 0 &&
            address - elf->bias - ph[i].p_vaddr < ph[i].p_memsz)
            return true;
    return false;
}

/* A segment of notes: each a name and a description, padded to the segment's alignment. */
static bool notes_find(struct stile__pages *pages, uint64_t at, uint64_t n, uint64_t align,
                       const uint8_t **build_id, size_t *len)
{
    n = n < NOTE_BYTES ? n : NOTE_BYTES;
    align = align == 8 ? 8 : 4;
    if (at % 4 != 0 || !stile__pages_readable(pages, at, n))
        return false;
    for (uint64_t i = 0; i + sizeof(Elf64_Nhdr) <= n;) {
        const Elf64_Nhdr *note = (const Elf64_Nhdr *)(at + i);
        const uint64_t name = i + sizeof *note, desc = name + ((note->n_namesz + align - 1) & ~(align - 1));
        const uint64_t next = desc + ((note->n_descsz + align - 1) & ~(align - 1));
        if (note->n_namesz > n || note->n_descsz > n || desc + note->n_descsz > n)
            return false;
        const uint8_t *s = (const uint8_t *)(at + name);
        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && s[0] == 'G' && s[1] == 'N' &&
            s[2] == 'U' && note->n_descsz > 0 && note->n_descsz <= STILE__BUILD_ID_MAX) {
            *build_id = (const uint8_t *)(at + desc);
            *len = note->n_descsz;
            return true;
        }
        i = next;
    }
    return false;
}

void stile__module_elf_build_id(const struct stile__module_elf *elf, struct stile__pages *pages,
                                const uint8_t **build_id, size_t *len)
{
    const Elf64_Phdr *ph = (const Elf64_Phdr *)elf->headers;
    for (uint32_t i = 0; i < elf->n_headers; i++) {
        const uint64_t at = elf->bias + ph[i].p_vaddr;
        if (ph[i].p_type == PT_NOTE && at >= elf->start && at < elf->end && ph[i].p_memsz <= elf->end - at &&
            notes_find(pages, at, ph[i].p_memsz, ph[i].p_align, build_id, len))
            return;
    }
}

/* Dynamic symbols: addresses that lie in the module. */
struct symbols {
    const struct stile__module *m;
    struct stile__pages *pages;
    uint64_t all, names, names_size, gnu, sysv;
};

/* What is in the module and can be read. */
static bool has(const struct symbols *s, uint64_t at, uint64_t n)
{
    return at >= s->m->start && at < s->m->end && n <= s->m->end - at &&
           stile__pages_readable(s->pages, at, n);
}

static bool word(const struct symbols *s, uint64_t at, uint32_t *value)
{
    if (at % 4 != 0 || !has(s, at, sizeof *value))
        return false;
    *value = *(const uint32_t *)at;
    return true;
}

/* The loader relocates addresses there, but not the kernel's module's. */
static uint64_t pointer(const struct symbols *s, uint64_t at)
{
    return at < s->m->bias ? at + s->m->bias : at;
}

static bool symbols_find(const struct stile__module *m, struct stile__pages *pages, struct symbols *s)
{
    *s = (struct symbols){.m = m, .pages = pages};
    const Elf64_Dyn *d = m->map->l_ld;
    for (unsigned i = 0; i < DYNAMIC_MAX && (uint64_t)d % 8 == 0 && has(s, (uint64_t)d, sizeof *d);
         i++, d++) {
        const uint64_t value = d->d_un.d_val;
        if (d->d_tag == DT_NULL)
            break;
        if (d->d_tag == DT_SYMTAB)
            s->all = pointer(s, value);
        else if (d->d_tag == DT_STRTAB)
            s->names = pointer(s, value);
        else if (d->d_tag == DT_STRSZ)
            s->names_size = value;
        else if (d->d_tag == DT_GNU_HASH)
            s->gnu = pointer(s, value);
        else if (d->d_tag == DT_HASH)
            s->sysv = pointer(s, value);
    }
    return s->all != 0 && s->all % 8 == 0 && s->names != 0;
}

/* How many there are. DT_HASH says it; DT_GNU_HASH has chains whose last entry is odd, those of the highest bucket the last. */
static uint32_t symbols_count(const struct symbols *s)
{
    uint32_t n_buckets, first, n_bloom, bucket, last = 0, n;
    if (s->sysv != 0)
        return word(s, s->sysv + 4, &n) ? n : 0;
    if (s->gnu == 0 || !word(s, s->gnu, &n_buckets) || !word(s, s->gnu + 4, &first) ||
        !word(s, s->gnu + 8, &n_bloom))
        return 0;
    const uint64_t buckets = s->gnu + 16 + 8 * (uint64_t)n_bloom, chains = buckets + 4 * (uint64_t)n_buckets;
    for (uint32_t i = 0; i < n_buckets; i += BATCH) {
        const uint32_t some = n_buckets - i < BATCH ? n_buckets - i : BATCH;
        const uint32_t *at = (const uint32_t *)(buckets + 4 * (uint64_t)i);
        if (!has(s, (uint64_t)at, some * sizeof *at))
            return 0;
        for (uint32_t k = 0; k < some; k++)
            last = at[k] > last ? at[k] : last;
    }
    if (last < first)
        return 0; /* it exports nothing */
    for (n = last; word(s, chains + 4 * (uint64_t)(n - first), &bucket); n++)
        if (bucket & 1)
            return n + 1;
    return 0;
}

static bool is_function(const Elf64_Sym *symbol)
{
    const unsigned type = ELF64_ST_TYPE(symbol->st_info);
    return symbol->st_shndx != SHN_UNDEF && (type == STT_FUNC || type == STT_GNU_IFUNC);
}

/* So many symbols from the i-th on, at most a batch; 0 at the end, or where they cannot be read. */
static uint32_t symbols_some(const struct symbols *s, uint32_t i, uint32_t n, const Elf64_Sym **some)
{
    const uint32_t count = i >= n ? 0 : n - i < BATCH ? n - i : BATCH;
    *some = (const Elf64_Sym *)(s->all + (uint64_t)i * sizeof **some);
    return has(s, (uint64_t)*some, count * sizeof **some) ? count : 0;
}

/* A name, if it can be read to its end. */
static const char *name_of(const struct symbols *s, const Elf64_Sym *symbol)
{
    const uint64_t name = s->names + symbol->st_name;
    if (symbol->st_name >= s->names_size)
        return NULL;
    for (uint64_t i = 0; i < NAME_MAX_ && i < s->names_size - symbol->st_name && has(s, name + i, 1); i++)
        if (((const char *)name)[i] == '\0')
            return i != 0 ? (const char *)name : NULL;
    return NULL;
}

/* Of several that have the address: the one that begins last, and of its names one that is global. */
static bool better(const Elf64_Sym *a, const Elf64_Sym *b)
{
    if (b == NULL || a->st_value != b->st_value)
        return b == NULL || a->st_value > b->st_value;
    return ELF64_ST_BIND(a->st_info) == STB_GLOBAL && ELF64_ST_BIND(b->st_info) != STB_GLOBAL;
}

const char *stile__module_elf_symbol(const struct stile__module *m, struct stile__pages *pages,
                                     uint64_t address, uint64_t *into)
{
    const uint64_t value = address - m->bias;
    const Elf64_Sym *best = NULL, *some;
    struct symbols s;
    if (!symbols_find(m, pages, &s))
        return NULL;
    const uint32_t n = symbols_count(&s);
    for (uint32_t i = 1, count; (count = symbols_some(&s, i, n, &some)) != 0; i += count)
        for (uint32_t k = 0; k < count; k++)
            if (value - some[k].st_value < some[k].st_size && is_function(&some[k]) && better(&some[k], best))
                best = &some[k];
    if (best == NULL)
        return NULL;
    *into = value - best->st_value;
    return name_of(&s, best);
}

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

uint64_t stile__module_elf_defines(const struct stile__module *m, struct stile__pages *pages,
                                   const char *name)
{
    const Elf64_Sym *some;
    struct symbols s;
    if (!symbols_find(m, pages, &s))
        return 0;
    const uint32_t n = symbols_count(&s);
    for (uint32_t i = 1, count; (count = symbols_some(&s, i, n, &some)) != 0; i += count)
        for (uint32_t k = 0; k < count; k++) {
            const char *other = is_function(&some[k]) ? name_of(&s, &some[k]) : NULL;
            if (other != NULL && same(other, name))
                return m->bias + some[k].st_value;
        }
    return 0;
}
