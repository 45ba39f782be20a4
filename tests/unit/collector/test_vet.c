/* collector/vet.c: what files say of barriers, and that the program hears of it in time. */
#include "tests/unit/support.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "profiler/collector/rule_table.h"
#include "profiler/collector/vet.h"

static const struct fixture {
    const char *variable;
    enum stile__barriers_state says;
} fixtures[] = {
    {"FIXTURE_PLAIN", STILE__BARRIERS_GO},
    {"FIXTURE_THROWN", STILE__BARRIERS_GO}, /* has personality routines, and names its unwinder */
    {"FIXTURE_HIDDEN", STILE__BARRIERS_OFF_UNWINDER},
    {"FIXTURE_INSTRUMENTED", STILE__BARRIERS_OFF_INSTRUMENTED},
    {"FIXTURE_OCAML", STILE__BARRIERS_OFF_KEYS},
    {"FIXTURE_COPIES", STILE__BARRIERS_OFF_COPIES},
    {"FIXTURE_PYPY", STILE__BARRIERS_OFF_COPIES},
};

static struct mapping_table mappings;
static struct stile__region *region;
static const struct stile__region_size size = {16, 64, STILE__RING_CELLS_MIN, 64, 0, 0};

static const char *fixture_path(const struct fixture *f)
{
    const char *path = getenv(f->variable);
    assert_non_null(path);
    return path;
}

/* A line of maps for a file, mapped as a whole. */
static void line_add(char *text, size_t room, uint64_t start, const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    size_t at = strlen(text);
    snprintf(text + at, room - at, "%llx-%llx r-xp 00000000 %x:%x %llu %s\n", (unsigned long long)start,
             (unsigned long long)start + 0x100000, major(st.st_dev), minor(st.st_dev),
             (unsigned long long)st.st_ino, path);
}

static void maps_set(const char *text)
{
    assert_int_equal(mappings_update(&mappings, text, strlen(text), 0), 0);
}

static uint32_t state_now(void)
{
    return atomic_load(&region->barriers_state);
}

static void vet_all(struct vetting *v)
{
    while (vet_next(v, &mappings))
        ;
}

static int set_up(void **state)
{
    (void)state;
    mappings_init(&mappings, getpid());
    region = mmap(NULL, stile__region_layout(size).size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
    assert_true(region != MAP_FAILED);
    region->size = size;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mappings_free(&mappings);
    munmap(region, stile__region_layout(size).size);
    return 0;
}

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        struct module m = {0};
        elf_file_open(&m.elf, open(fixture_path(&fixtures[i]), O_RDONLY | O_CLOEXEC), NULL, 0);
        print_message("%s\n", fixtures[i].variable);
        assert_int_equal(vet_module(&m), fixtures[i].says);
        assert_int_equal(m.vetted, fixtures[i].says);
        elf_file_close(&m.elf);
    }
}

static void test_what_is_no_library(void **state)
{
    char path[] = "/tmp/vet.XXXXXX";
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        if (kind == 1)
            assert_int_equal(write(fd, "\177ELF\2\1\1", 7), 7);
        if (kind == 2) { /* a library cut off */
            char bytes[3000];
            int from = open(fixture_path(&fixtures[2]), O_RDONLY | O_CLOEXEC);
            assert_int_equal(read(from, bytes, sizeof bytes), sizeof bytes);
            assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
            close(from);
        }
        struct module m = {0};
        elf_file_open(&m.elf, fd, NULL, 0);
        assert_int_equal(vet_module(&m), kind == 2 ? STILE__BARRIERS_OFF_UNREADABLE : STILE__BARRIERS_GO);
        elf_file_close(&m.elf);
        unlink(path);
        memcpy(path, "/tmp/vet.XXXXXX", sizeof path);
    }
}

static struct module made(const void *bytes, size_t n, off_t length)
{
    char path[] = "/tmp/vet.XXXXXX";
    struct module m = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(write(fd, bytes, n), n);
    if (length != 0)
        assert_int_equal(ftruncate(fd, length), 0);
    elf_file_open(&m.elf, fd, NULL, 0);
    return m;
}

/* Such a library can be loaded, and nobody knows what it is. */
static void test_without_sections(void **state)
{
    static union {
        Elf64_Ehdr header;
        char bytes[1 << 20];
    } file;
    int from = open(fixture_path(&fixtures[5]), O_RDONLY | O_CLOEXEC);
    ssize_t n = read(from, file.bytes, sizeof file.bytes);
    (void)state;
    close(from);
    assert_in_range(n, sizeof file.header, sizeof file.bytes - 1);
    file.header.e_shoff = 0;
    file.header.e_shnum = file.header.e_shstrndx = 0;
    struct module m = made(file.bytes, (size_t)n, 0);
    assert_int_equal(vet_module(&m), STILE__BARRIERS_OFF_UNREADABLE);
    elf_file_close(&m.elf);
}

/* Each of its tables is as large as it may be, and they are all the same bytes. */
static void test_many_tables(void **state)
{
    enum { TABLES = 4000, NAMES = 4096, BYTES = 8 << 20 };
    static struct {
        Elf64_Ehdr header;
        Elf64_Shdr sections[TABLES];
    } file;
    (void)state;
    file.header = (Elf64_Ehdr){.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                               .e_type = ET_DYN,
                               .e_machine = EM_X86_64,
                               .e_version = EV_CURRENT,
                               .e_shoff = offsetof(__typeof__(file), sections),
                               .e_ehsize = sizeof file.header,
                               .e_phentsize = sizeof(Elf64_Phdr),
                               .e_shentsize = sizeof(Elf64_Shdr),
                               .e_shnum = TABLES,
                               .e_shstrndx = 1};
    file.sections[1] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = sizeof file, .sh_size = NAMES};
    for (unsigned i = 2; i < TABLES; i++)
        file.sections[i] = (Elf64_Shdr){.sh_type = SHT_DYNSYM,
                                        .sh_offset = sizeof file,
                                        .sh_size = BYTES / sizeof(Elf64_Sym) * sizeof(Elf64_Sym),
                                        .sh_link = 1,
                                        .sh_entsize = sizeof(Elf64_Sym)};
    struct module m = made(&file, sizeof file, (off_t)sizeof file + BYTES);
    clock_t before = clock();
    assert_int_equal(vet_module(&m), STILE__BARRIERS_GO);
    assert_true(clock() - before < 5 * CLOCKS_PER_SEC);
    elf_file_close(&m.elf);
}

/* Barriers may be placed once all has been looked at, and not before. */
static void test_go(void **state)
{
    struct vetting v = {.region = region};
    char text[2048] = "";
    (void)state;
    assert_false(vet_next(&v, &mappings)); /* nothing is known of the program yet */
    assert_int_equal(state_now(), STILE__BARRIERS_UNVETTED);
    line_add(text, sizeof text, 0x10000000, fixture_path(&fixtures[0]));
    line_add(text, sizeof text, 0x20000000, fixture_path(&fixtures[1]));
    strcat(text, "30000000-30001000 r-xp 00000000 00:00 0\n"
                 "40000000-40001000 r-xp 00000000 00:01 77 /memfd:code (deleted)\n");
    maps_set(text);
    for (int i = 0; i < 2; i++) { /* a file at a time */
        assert_int_equal(state_now(), STILE__BARRIERS_UNVETTED);
        mappings.all[i].module->vetted = STILE__BARRIERS_UNVETTED; /* another test may have looked at it */
        assert_true(vet_next(&v, &mappings));
    }
    assert_int_equal(state_now(), STILE__BARRIERS_UNVETTED);
    assert_false(vet_next(&v, &mappings));
    assert_int_equal(state_now(), STILE__BARRIERS_GO);
    /* What is loaded later is looked at, too. */
    line_add(text, sizeof text, 0x50000000, fixture_path(&fixtures[4]));
    maps_set(text);
    vet_all(&v);
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_KEYS);
}

static void assert_told(const struct vetting *v, uint32_t state, const char *want)
{
    char text[128];
    vet_describe(v, state, text, sizeof text);
    assert_string_equal(text, want);
}

static void test_what_is_told(void **state)
{
    struct vetting v = {.region = region};
    char text[2048] = "", want[256];
    (void)state;
    line_add(text, sizeof text, 0x10000000, fixture_path(&fixtures[5]));
    line_add(text, sizeof text, 0x20000000, fixture_path(&fixtures[2]));
    maps_set(text);
    vet_all(&v);
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_COPIES); /* the first stays */
    snprintf(want, sizeof want, "%s copies stacks", strrchr(fixture_path(&fixtures[5]), '/') + 1);
    assert_told(&v, state_now(), want);
    assert_told(&v, STILE__BARRIERS_OFF_UNWINDER,
                "a file has an unwinder to itself"); /* of an earlier session */
    assert_told(&v, STILE__BARRIERS_GO, "");
    assert_told(&v, STILE__BARRIERS_UNVETTED, "");
    for (uint32_t i = STILE__BARRIERS_GO + 1; i < STILE__BARRIERS_STATES; i++) {
        char each[128];
        vet_describe(&v, i, each, sizeof each);
        assert_true(strlen(each) > 10);
    }
    assert_told(&v, STILE__BARRIERS_STATES, "");
    assert_told(&v, UINT32_MAX, "");
}

static void test_other_mappings(void **state)
{
    struct vetting v = {.region = region};
    (void)state;
    maps_set("10000000-10001000 --xp 00000000 00:00 0 [uprobes]\n");
    vet_all(&v);
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_UPROBES);
    atomic_store(&region->barriers_state, STILE__BARRIERS_UNVETTED);
    struct vetting other = {.region = region, .done = 1};
    maps_set("20000000-20001000 r-xp 00000000 00:01 4711 /gone/li;b\001.so (deleted)\n");
    vet_all(&other);
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_UNREADABLE);
    assert_told(&other, state_now(), "li?b?.so cannot be read");
}

/* A program that wants none is not looked at. */
static void test_not_wanted(void **state)
{
    struct vetting v = {.region = NULL};
    char text[1024] = "";
    (void)state;
    line_add(text, sizeof text, 0x10000000, fixture_path(&fixtures[2]));
    maps_set(text);
    assert_false(vet_next(&v, &mappings));
    vet_mapping(&v, &mappings.all[0]);
    assert_int_equal(v.found, 0);
    assert_int_equal(state_now(), STILE__BARRIERS_UNVETTED);
}

/* A program with one file, which allows barriers, and the table of its rules. */
static void allowed(struct vetting *v, struct rule_table *t, char *text, size_t room)
{
    line_add(text, room, 0x10000000, fixture_path(&fixtures[0]));
    maps_set(text);
    rule_table_open(t, region, size, &mappings, 0);
    t->vetting = v;
    vet_all(v);
    assert_int_equal(state_now(), STILE__BARRIERS_GO);
}

/* Before there are rules of a file the program knows what that file says: here the file was loaded after barriers were
 * allowed, and nobody has looked at it. */
static void test_before_rules(void **state)
{
    struct vetting v = {.region = region};
    struct rule_table t;
    char text[1024] = "";
    (void)state;
    allowed(&v, &t, text, sizeof text);
    line_add(text, sizeof text, 0x20000000, fixture_path(&fixtures[3]));
    maps_set(text);
    assert_true(rule_table_learn(&t, &mappings, 0x10001100));
    assert_int_equal(state_now(), STILE__BARRIERS_GO);
    assert_true(rule_table_learn(&t, &mappings, 0x20001100));
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_INSTRUMENTED);
    rule_table_close(&t);
}

/* The same for code without a file to read. */
static void test_before_rules_of_the_unreadable(void **state)
{
    struct vetting v = {.region = region};
    struct rule_table t;
    char text[1024] = "";
    (void)state;
    allowed(&v, &t, text, sizeof text);
    strcat(text, "20000000-20001000 r-xp 00000000 00:01 4711 /gone/lib.so\n");
    maps_set(text);
    assert_true(rule_table_learn(&t, &mappings, 0x20000100));
    assert_true(rule_table_has(&t, 0x20000100));
    assert_int_equal(state_now(), STILE__BARRIERS_OFF_UNREADABLE);
    rule_table_close(&t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_files),
        TEST(test_what_is_no_library),
        TEST(test_without_sections),
        TEST(test_many_tables),
        TEST(test_go),
        TEST(test_what_is_told),
        TEST(test_other_mappings),
        TEST(test_not_wanted),
        TEST(test_before_rules),
        TEST(test_before_rules_of_the_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
