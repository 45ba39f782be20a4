/* .symtab and .dynsym, merged: the symbolizer's first source, for every module that has no DWARF its only one.
 * Context: any normal context; single-threaded. */
#include "proto/symbol_table.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "proto/buffer.h"

struct stile__symbol {
    uint64_t start, end;
    const char *name;
    unsigned char binding; /* STB_* */
    unsigned char underscores;
    uint32_t section_type;
};

static bool is_function(const GElf_Sym *sym)
{
    int type = GELF_ST_TYPE(sym->st_info);

    return (type == STT_FUNC || type == STT_GNU_IFUNC) && sym->st_shndx != SHN_UNDEF &&
           sym->st_shndx != SHN_ABS && sym->st_size && sym->st_size <= UINT64_MAX - sym->st_value;
}

static int section_load(struct stile__symbol_table *t, Elf *elf, Elf_Scn *section, const GElf_Shdr *header)
{
    Elf_Data *data = elf_getdata(section, NULL);
    size_t entry = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);
    size_t n = data && entry ? data->d_size / entry : 0;

    for (size_t i = 0; i < n && i <= INT32_MAX; i++) {
        GElf_Sym sym;
        const char *name;

        if (!gelf_getsym(data, (int)i, &sym) || !is_function(&sym))
            continue;
        name = elf_strptr(elf, header->sh_link, sym.st_name);
        if (!name || !*name)
            continue;
        if (stile__array_grow(&t->symbols, &t->capacity, t->count, sizeof(*t->symbols)))
            return -ENOMEM;
        t->symbols[t->count++] = (struct stile__symbol){
            .start = sym.st_value,
            .end = sym.st_value + sym.st_size,
            .name = name,
            .binding = GELF_ST_BIND(sym.st_info),
            .underscores = (unsigned char)strspn(name, "_"),
            .section_type = header->sh_type,
        };
    }
    return 0;
}

int stile__symbol_table_load(struct stile__symbol_table *t, Elf *elf, uint32_t section_type, bool *found)
{
    Elf_Scn *section = NULL;

    *found = false;
    while ((section = elf_nextscn(elf, section))) {
        GElf_Shdr header;

        if (!gelf_getshdr(section, &header) || header.sh_type != section_type)
            continue;
        *found = true;
        return section_load(t, elf, section, &header);
    }
    return 0;
}

/* Larger is better. Local names come last: glibc's global aliases are what programs call. A C++ or Rust name's
 * underscore says nothing, and those never share an address with a nicer one. */
static int symbol_compare(const void *a, const void *b)
{
    const struct stile__symbol *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    if ((x->binding == STB_LOCAL) != (y->binding == STB_LOCAL))
        return x->binding == STB_LOCAL ? -1 : 1;
    if (x->underscores != y->underscores)
        return x->underscores > y->underscores ? -1 : 1;
    if ((x->binding == STB_WEAK) != (y->binding == STB_WEAK))
        return x->binding == STB_WEAK ? -1 : 1;
    if (x->section_type != y->section_type)
        return x->section_type == SHT_DYNSYM ? -1 : 1;
    return -strcmp(x->name, y->name);
}

int stile__symbol_table_sort(struct stile__symbol_table *t)
{
    int err = 0;

    if (t->count)
        qsort(t->symbols, t->count, sizeof(*t->symbols), symbol_compare);
    for (size_t i = 0; i < t->count && i < UINT32_MAX && !err; i++)
        err = stile__ranges_add(&t->ranges, t->symbols[i].start, t->symbols[i].end, (uint32_t)i);
    stile__ranges_sort(&t->ranges);
    return err;
}

const char *stile__symbol_table_find(const struct stile__symbol_table *t, uint64_t address)
{
    uint32_t i;

    return stile__ranges_find(&t->ranges, address, &i) ? t->symbols[i].name : NULL;
}

void stile__symbol_table_free(struct stile__symbol_table *t)
{
    free(t->symbols);
    stile__ranges_free(&t->ranges);
    memset(t, 0, sizeof(*t));
}
