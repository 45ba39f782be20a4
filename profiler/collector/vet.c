/* What in a program forbids barriers. Collector, normal context. See vet.h. */
#include "profiler/collector/vet.h"

#include <elfutils/libdw.h>
#include <gelf.h>
#include <stdio.h>
#include <string.h>

/* Symbols by which such files are known, whether they define or import them: */
static const struct sign {
    const char *name;
    enum stile__barriers_state says;
} signs[] = {
    /* what gcc and clang call with a function's own return address, before it returns; libc has empty ones, */
    {"__cyg_profile_func_exit", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"mcount", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"_mcount", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"__fentry__", STILE__BARRIERS_OFF_INSTRUMENTED},
    /* sanitizers, which keep return addresses and check the memory that they lie in, */
    {"__asan_init", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"__hwasan_init", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"__msan_init", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"__tsan_init", STILE__BARRIERS_OFF_INSTRUMENTED},
    /* OCaml, whose collector finds what lives in a frame by its return address, */
    {"caml_startup", STILE__BARRIERS_OFF_KEYS},
    {"caml_init_frame_descriptors", STILE__BARRIERS_OFF_KEYS},
    /* and those whose continuations, or threads of their own, are copies of a stack. Ruby's copies are made while no code of
     * the extension is on the stack that asks for them, so that Ruby itself is known. */
    {"PyInit__greenlet", STILE__BARRIERS_OFF_COPIES},
    {"pypy_execute_source", STILE__BARRIERS_OFF_COPIES},    /* PyPy has greenlets built in */
    {"rep_continuations_init", STILE__BARRIERS_OFF_COPIES}, /* librep */
    {"Internal_Call_CC", STILE__BARRIERS_OFF_COPIES},       /* Elk */
    {"scm_dynthrow", STILE__BARRIERS_OFF_COPIES},           /* SCM */
    {"ruby_Init_Continuation_body", STILE__BARRIERS_OFF_COPIES},
    {"scm_c_with_continuation_barrier", STILE__BARRIERS_OFF_COPIES},
};

/* Rings have to be drained meanwhile. Bytes of a file's tables of symbols, of those the linker's own, and of their names. */
#define SYMBOLS_BYTES_MAX (8u << 20)
#define LINKER_BYTES_MAX  (1u << 20)
#define NAMES_BYTES_MAX   (64u << 20)
#define SYMBOL_NAME_MAX   4096u /* none that is looked for is longer, nor has much before what is looked for */

/* What a file's symbols say of the unwinder that its exceptions have. */
struct symbols {
    bool known;          /* it is libc, which loads one when it needs it, or ours, where a barrier's lies */
    bool names_unwinder; /* it imports one, or is one that others find */
    bool names_personality; /* the routines that it imports come with an unwinder of theirs */
    enum stile__barriers_state says;
};

static void symbol_look(struct symbols *s, const char *name, bool defined, bool dynamic)
{
    if (name[0] == '_' && name[1] == 'Z') /* most of the many that C++ has */
        return;
    if (strnlen(name, SYMBOL_NAME_MAX) == SYMBOL_NAME_MAX)
        return;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (s->says == STILE__BARRIERS_GO && strcmp(name, signs[i].name) == 0)
            s->says = signs[i].says;
    if (!dynamic)
        return;
    s->known |=
        defined && (strcmp(name, "__libc_start_main") == 0 || strcmp(name, "stile_profile_start") == 0);
    s->names_unwinder |= strcmp(name, "_Unwind_Resume") == 0;
    s->names_personality |= !defined && strstr(name, "_personality_") != NULL;
}

/* What a program keeps to itself may be in the linker's own table. Others do not find it by that. */
static void table_look(struct symbols *s, Elf *elf, Elf_Scn *scn, const GElf_Shdr *sh)
{
    Elf_Scn *names_scn = elf_getscn(elf, sh->sh_link);
    GElf_Shdr names_sh;
    GElf_Sym sym;
    if (names_scn == NULL || gelf_getshdr(names_scn, &names_sh) == NULL || names_sh.sh_size > NAMES_BYTES_MAX)
        return;
    Elf_Data *data = elf_getdata(scn, NULL), *names = elf_getdata(names_scn, NULL);
    if (data == NULL || names == NULL || names->d_buf == NULL || names->d_size == 0)
        return;
    const char *text = names->d_buf;
    if (text[names->d_size - 1] != '\0')
        return;
    for (int i = 0; gelf_getsym(data, i, &sym) != NULL; i++)
        if (sym.st_name < names->d_size)
            symbol_look(s, text + sym.st_name, sym.st_shndx != SHN_UNDEF, sh->sh_type == SHT_DYNSYM);
}

static struct symbols symbols_read(Elf *elf)
{
    struct symbols s = {.says = STILE__BARRIERS_GO};
    uint64_t left = SYMBOLS_BYTES_MAX;
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn)) != NULL;) {
        GElf_Shdr sh;
        if (gelf_getshdr(scn, &sh) == NULL || sh.sh_size > left ||
            !(sh.sh_type == SHT_DYNSYM || (sh.sh_type == SHT_SYMTAB && sh.sh_size <= LINKER_BYTES_MAX)))
            continue;
        left -= sh.sh_size;
        table_look(&s, elf, scn, &sh);
    }
    return s;
}

/* Go's runtime looks its frames up by return address; it moves stacks, too. */
static bool is_go(Elf *elf)
{
    size_t names;
    if (elf_getshdrstrndx(elf, &names) != 0)
        return false;
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn)) != NULL;) {
        GElf_Shdr sh;
        const char *name = gelf_getshdr(scn, &sh) != NULL ? elf_strptr(elf, names, sh.sh_name) : NULL;
        if (name != NULL && (strcmp(name, ".gopclntab") == 0 || strcmp(name, ".note.go.buildid") == 0))
            return true;
    }
    return false;
}

/* Whether frames of a file have personality routines: an unwinder asks these what to do with an exception. */
static bool has_personality(Elf *elf, const struct elf_file *f)
{
    size_t ident_size;
    const unsigned char *ident = (const unsigned char *)elf_getident(elf, &ident_size);
    Elf_Data data = {.d_buf = f->eh_frame.bytes, .d_size = f->eh_frame.size, .d_type = ELF_T_BYTE};
    Dwarf_CFI_Entry entry;
    Dwarf_Off next;

    if (ident == NULL || f->eh_frame.bytes == NULL)
        return false;
    for (Dwarf_Off at = 0; dwarf_next_cfi(ident, &data, true, at, &next, &entry) != 1 && next > at; at = next)
        if (dwarf_cfi_cie_p(&entry) && entry.cie.augmentation != NULL &&
            strchr(entry.cie.augmentation, 'P') != NULL)
            return true;
    return false;
}

/* The loader needs no sections; without them nothing here finds the symbols. */
static bool has_sections(Elf *elf)
{
    size_t n;
    return elf_getshdrnum(elf, &n) == 0 && n != 0;
}

static enum stile__barriers_state elf_vet(Elf *elf, const struct elf_file *f)
{
    if (!has_sections(elf))
        return STILE__BARRIERS_OFF_UNREADABLE;
    if (is_go(elf))
        return STILE__BARRIERS_OFF_KEYS;
    struct symbols s = symbols_read(elf);
    if (s.says != STILE__BARRIERS_GO && !s.known)
        return s.says;
    /* Exceptions that it throws and catches are carried by code of its own that nothing names. */
    if (!s.known && !s.names_unwinder && !s.names_personality && has_personality(elf, f))
        return STILE__BARRIERS_OFF_UNWINDER;
    return STILE__BARRIERS_GO;
}

enum stile__barriers_state vet_module(struct module *m)
{
    if (m->vetted != STILE__BARRIERS_UNVETTED)
        return (enum stile__barriers_state)m->vetted;
    m->vetted = STILE__BARRIERS_GO; /* the kernel's image, or no ELF file: as code made at run time */
    elf_version(EV_CURRENT);
    Elf *elf = m->elf.fd >= 0 ? elf_begin(m->elf.fd, ELF_C_READ, NULL) : NULL;
    if (elf != NULL && elf_kind(elf) == ELF_K_ELF)
        m->vetted = elf_vet(elf, &m->elf);
    if (elf != NULL)
        elf_end(elf);
    return (enum stile__barriers_state)m->vetted;
}

/* A file that is mapped and cannot be opened any more. What a runtime maps twice to write code is none. */
static bool unreadable(const struct mapping *m)
{
    return m->module == NULL && m->path[0] == '/' && m->ino != 0 && strncmp(m->path, "/memfd:", 7) != 0 &&
           strncmp(m->path, "/dev/", 5) != 0 && strncmp(m->path, "/SYSV", 5) != 0 &&
           strncmp(m->path, "/anon_hugepage", 14) != 0;
}

static void name_set(struct vetting *v, const char *path)
{
    const char *base = strrchr(path, '/');
    snprintf(v->name, sizeof v->name, "%s", base != NULL ? base + 1 : path);
    for (char *c = v->name; *c != '\0'; c++)
        if (*c < ' ' || *c == ';' ||
            *c == 0x7f) /* a line of comments has one line, whose parts these divide */
            *c = '?';
}

void vet_mapping(struct vetting *v, const struct mapping *m)
{
    if (v == NULL || v->region == NULL)
        return;
    enum stile__barriers_state says = STILE__BARRIERS_GO;
    if (m->module != NULL)
        says = vet_module(m->module);
    else if (strcmp(m->path, "[uprobes]") == 0)
        says = STILE__BARRIERS_OFF_UPROBES;
    else if (unreadable(m))
        says = STILE__BARRIERS_OFF_UNREADABLE;
    if (says == STILE__BARRIERS_GO || v->found != 0)
        return;
    v->found = says;
    name_set(v, m->path);
    stile__barriers_state_off(v->region, says);
}

bool vet_next(struct vetting *v, const struct mapping_table *mappings)
{
    if (v->region == NULL)
        return false;
    while (v->done < mappings->n_all) {
        const struct mapping *m = &mappings->all[v->done++];
        const bool opens = m->module != NULL && m->module->vetted == STILE__BARRIERS_UNVETTED;
        vet_mapping(v, m);
        if (opens) /* code made at run time may come and go all the time */
            return true;
    }
    uint32_t unvetted = STILE__BARRIERS_UNVETTED;
    if (mappings->now.n_live != 0)
        atomic_compare_exchange_strong_explicit(&v->region->barriers_state, &unvetted, STILE__BARRIERS_GO,
                                                memory_order_release, memory_order_relaxed);
    return false;
}

void vet_describe(const struct vetting *v, uint32_t state, char *text, size_t size)
{
    static const char *const words[STILE__BARRIERS_STATES] = {
        [STILE__BARRIERS_OFF_UNWINDER] = "%s has an unwinder to itself",
        [STILE__BARRIERS_OFF_UNWINDER_MET] = "an exception was carried by an unwinder that exports nothing",
        [STILE__BARRIERS_OFF_COPIES] = "%s copies stacks",
        [STILE__BARRIERS_OFF_KEYS] = "%s looks return addresses up",
        [STILE__BARRIERS_OFF_INSTRUMENTED] = "%s is instrumented",
        [STILE__BARRIERS_OFF_UPROBES] = "there are uprobes in the program",
        [STILE__BARRIERS_OFF_SHADOW_STACK] = "the program has a shadow stack",
        [STILE__BARRIERS_OFF_SELF_TEST] = "an unwinder failed the self-test",
        [STILE__BARRIERS_OFF_UNREADABLE] = "%s cannot be read",
    };
    text[0] = '\0';
    if (state >= STILE__BARRIERS_STATES || words[state] == NULL)
        return;
    /* What an earlier session has found is known without a name until it is found again. */
    const char *name = v->found == state ? v->name : "a file";
    const char *at = strstr(words[state], "%s");
    if (at == NULL)
        snprintf(text, size, "%s", words[state]);
    else
        snprintf(text, size, "%s%s", name, at + 2);
}
