/* What is loaded where, against what the loader and the files say. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/module_elf.h"

static char exe[4096];

static int set_up(void **state)
{
    (void)state;
    stile__modules_init();
    assert_true(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0);
    return 0;
}

/* Each module that the loader tells of is told the same of here, at each end of each of its segments. */
static unsigned n_modules;

static int module_same(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct stile__module m;
    (void)size;
    (void)arg;
    n_modules++;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type != PT_LOAD || ph->p_memsz == 0)
            continue;
        const uint64_t start = info->dlpi_addr + ph->p_vaddr;
        for (unsigned k = 0; k < 2; k++) {
            assert_true(stile__module_of(k == 0 ? start : start + ph->p_memsz - 1, &m));
            assert_int_equal(m.bias, info->dlpi_addr);
            assert_true(m.start <= start && start + ph->p_memsz <= m.end);
            assert_string_equal(m.path, info->dlpi_name[0] != '\0' ? info->dlpi_name : exe);
        }
        assert_int_equal(stile__module_code(start), (ph->p_flags & PF_X) != 0);
    }
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            assert_int_equal((uint64_t)m.eh_frame_hdr, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return 0;
}

static void test_as_the_loader_has_them(void **state)
{
    (void)state;
    n_modules = 0;
    dl_iterate_phdr(module_same, NULL);
    assert_true(n_modules >= 5); /* the program, the kernel's, cmocka, libc, the loader */
}

static struct {
    struct stile__module all[64];
    unsigned n;
} each;

static void collect(const struct stile__module *m, void *arg)
{
    assert_ptr_equal(arg, &each);
    assert_true(each.n < 64);
    each.all[each.n++] = *m;
}

static void test_each(void **state)
{
    struct stile__module m;
    (void)state;
    n_modules = each.n = 0;
    dl_iterate_phdr(module_same, NULL);
    stile__modules_each(collect, &each);
    assert_int_equal(each.n, n_modules);
    assert_string_equal(each.all[0].path, exe);
    for (unsigned i = 0; i < each.n; i++) {
        assert_true(stile__module_of(each.all[i].start, &m));
        assert_string_equal(m.path, each.all[i].path);
        assert_int_equal(m.build_id_len, each.all[i].build_id_len);
        assert_ptr_equal(m.build_id, each.all[i].build_id);
    }
}

static void test_where_nothing_is(void **state)
{
    struct stile__module m;
    struct stile__cfi_section s;
    int local = 0;
    char *heap = malloc(100);
    const uint64_t nowhere[] = {0,          1,         4096, (uint64_t)&local, (uint64_t)heap, 0x7fffffffffff,
                                1ull << 47, UINT64_MAX};
    (void)state;
    for (unsigned i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        assert_false(stile__module_of(nowhere[i], &m));
        assert_false(stile__module_cfi(nowhere[i], &s));
        assert_false(stile__module_code(nowhere[i]));
    }
    free(heap);
}

/* The build id as binutils tell it. */
static void build_id_told(const char *path, char *text, size_t n)
{
    char command[4400], line[512];
    snprintf(command, sizeof command, "readelf -n '%s' 2>/dev/null", path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    text[0] = '\0';
    while (fgets(line, sizeof line, f) != NULL) {
        char *id = strstr(line, "Build ID: ");
        if (id != NULL)
            snprintf(text, n, "%.*s", (int)strcspn(id + 10, "\n"), id + 10);
    }
    pclose(f);
}

static void test_build_ids(void **state)
{
    char told[256], have[256];
    unsigned n = 0;
    (void)state;
    each.n = 0;
    stile__modules_each(collect, &each);
    for (unsigned i = 0; i < each.n; i++) {
        have[0] = '\0';
        for (size_t k = 0; k < each.all[i].build_id_len; k++)
            snprintf(have + 2 * k, 3, "%02x", each.all[i].build_id[k]);
        if (strncmp(each.all[i].path, "linux-vdso", 10) == 0) {
            assert_true(each.all[i].build_id_len >= 16);
            continue;
        }
        build_id_told(each.all[i].path, told, sizeof told);
        assert_string_equal(have, told);
        n += told[0] != '\0';
    }
    assert_true(n >= 3);
}

/* The name of any address of a module, against the loader's, which names variables, too. */
static unsigned names_compare(const void *of)
{
    struct stile__module m;
    unsigned named = 0;
    uint64_t into = 0, rng = 9;
    assert_true(stile__module_of((uint64_t)of, &m));
    for (unsigned i = 0; i < 1500; i++) {
        const uint64_t at = i < 2 ? (uint64_t)of + i : m.start + next_number(&rng) % (m.end - m.start);
        Dl_info info = {0};
        ElfW(Sym) *symbol = NULL;
        const char *name = stile__module_symbol(&m, at, &into);
        (void)dladdr1((void *)at, &info, (void **)&symbol, RTLD_DL_SYMENT);
        const unsigned type = symbol != NULL ? ELF64_ST_TYPE(symbol->st_info) : STT_NOTYPE;
        const bool function = info.dli_sname != NULL && (type == STT_FUNC || type == STT_GNU_IFUNC) &&
                              at - (uint64_t)info.dli_saddr < symbol->st_size;
        assert_int_equal(name != NULL, function);
        if (function)
            assert_int_equal(at - into, (uint64_t)info.dli_saddr);
        named += function;
    }
    return named;
}

static void test_names(void **state)
{
    (void)state;
    const unsigned libc = names_compare(dlsym(dlopen("libc.so.6", RTLD_NOW), "qsort"));
    const unsigned cmocka = names_compare((void *)dlsym(RTLD_DEFAULT, "_cmocka_run_group_tests"));
    print_message("named: %u in libc, %u in cmocka\n", libc, cmocka);
    assert_true(libc > 100 && cmocka > 20);
}

static void test_names_of_both_tables(void **state)
{
    static const char *const kinds[] = {"STILE_TEST_SYSV", "STILE_TEST_GNU"};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct stile__module m;
        uint64_t into = 99;
        void *handle = dlopen(test_setting(kinds[i]), RTLD_NOW);
        assert_non_null(handle);
        const uint64_t exported = (uint64_t)dlsym(handle, "plugin_exported");
        assert_true(stile__module_of(exported, &m));
        assert_string_equal(m.path, test_setting(kinds[i]));
        assert_string_equal(stile__module_symbol(&m, exported + 2, &into), "plugin_exported");
        assert_int_equal(into, 2);
        /* Of two names of one address the one that is not weak. */
        assert_string_equal(stile__module_symbol(&m, (uint64_t)dlsym(handle, "plugin_weak"), &into),
                            "plugin_strong");
        assert_int_equal(into, 0);
        /* Not exported: not the one before it. */
        int (*(*get)(void))(int);
        *(void **)&get = dlsym(handle, "plugin_hidden");
        assert_null(stile__module_symbol(&m, (uint64_t)get(), &into));
        assert_null(stile__module_symbol(&m, m.start, &into));
        dlclose(handle);
        assert_false(stile__module_of(exported, &m));
    }
}

/* The kernel's module is named by what it exports, too. */
static void test_kernels(void **state)
{
    struct stile__module m;
    (void)state;
    const uint64_t at = getauxval(AT_SYSINFO_EHDR);
    assert_true(at != 0);
    assert_true(stile__module_of(at, &m));
    assert_non_null(strstr(m.path, "vdso"));
    uint64_t into;
    unsigned named = 0;
    for (uint64_t i = m.start; i < m.end; i += 16)
        named += stile__module_symbol(&m, i, &into) != NULL;
    assert_true(named > 4);
}

/* A module moved elsewhere as it is, its dynamic section adjusted. */
static uint8_t *module_move(const struct stile__module *from, struct link_map *map)
{
    const uint64_t n = from->end - from->start;
    struct stile__pages pages = {{0}};
    uint8_t *bytes = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
    memset(bytes, 0, n);
    for (uint64_t at = 0; at < n; at += 4096)
        if (stile__pages_readable(&pages, from->start + at, 1))
            memcpy(bytes + at, (const void *)(from->start + at), n - at < 4096 ? n - at : 4096);
    const uint64_t distance = (uint64_t)bytes - from->start;
    *map = (struct link_map){.l_addr = from->bias + distance,
                             .l_ld = (ElfW(Dyn) *)((uint64_t)from->map->l_ld + distance)};
    for (ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_SYMTAB || d->d_tag == DT_STRTAB || d->d_tag == DT_GNU_HASH || d->d_tag == DT_HASH)
            d->d_un.d_ptr += distance;
    return bytes;
}

/* Whatever is in a module: what is read of it lies inside (a sanitizer sees to that), and it ends. */
static void any_bytes(const char *path)
{
    struct stile__module m;
    struct link_map map;
    uint64_t rng = 21, into, names = 0, ids = 0;
    void *handle = dlopen(path, RTLD_NOW);
    assert_non_null(handle);
    const uint64_t exported = (uint64_t)dlsym(handle, "plugin_exported");
    assert_true(stile__module_of(exported, &m));
    uint8_t *bytes = module_move(&m, &map);
    const uint64_t n = m.end - m.start, at = (uint64_t)bytes + (exported - m.start);
    uint8_t *whole = malloc(n);
    memcpy(whole, bytes, n);
    m = (struct stile__module){
        .start = (uint64_t)bytes, .end = (uint64_t)bytes + n, .bias = map.l_addr, .map = &map};
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 3000 : 10000); round++) {
        struct stile__pages pages = {{0}};
        struct stile__module_elf elf;
        const uint8_t *id = NULL;
        size_t len = 0;
        memcpy(bytes, whole, n);
        for (uint64_t k = next_number(&rng) % 200; k > 0 && round != 0; k--) {
            const uint64_t r = next_number(&rng), where = r >> 62 == 0 ? r % 1024
                                                          : r >> 62 == 1
                                                              ? (uint64_t)map.l_ld - m.start + r % 512
                                                              : r % n;
            bytes[where < n ? where : 0] = r >> 56 & 1 ? 0xff : (uint8_t)(r >> 40);
        }
        if (stile__module_elf_at(&elf, &pages, m.start, m.bias)) {
            if (elf.start >= m.start &&
                elf.end <= (m.end + 4095) / 4096 * 4096) /* as the loader has mapped it */
                stile__module_elf_build_id(&elf, &pages, &id, &len);
            (void)stile__module_elf_code(&elf, at);
        }
        const char *name = stile__module_elf_symbol(
            &m, &pages, round % 2 == 0 ? at : m.start + next_number(&rng) % n, &into);
        (void)stile__module_elf_defines(&m, &pages, "no_such_function");
        assert_true(name == NULL || ((uint64_t)name >= m.start && (uint64_t)name + strlen(name) < m.end));
        assert_true(round != 0 || (name != NULL && strcmp(name, "plugin_exported") == 0 && len != 0));
        names += name != NULL;
        ids += len != 0;
    }
    print_message("%lu names, %lu build ids\n", names, ids);
    assert_true(names > 100 && ids > 100);
    free(whole);
    free(bytes);
    dlclose(handle);
}

static void test_any_bytes(void **state)
{
    (void)state;
    any_bytes(test_setting("STILE_TEST_SYSV"));
    any_bytes(test_setting("STILE_TEST_GNU"));
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_as_the_loader_has_them),
        TEST(test_each),
        TEST(test_where_nothing_is),
        TEST(test_build_ids),
        TEST(test_names),
        TEST(test_names_of_both_tables),
        TEST(test_kernels),
        TEST(test_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
