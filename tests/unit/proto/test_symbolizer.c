/* proto/symbolizer.c with symbol_table.c, debug_file.c, debug_info.c, debug_scopes.c and elf_file.c, on small shared
 * objects that are built beside the tests. */
#include "support.h"

#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/symbolizer.h"

#define FIXTURE(name) STILE_FIXTURES "/fixture_" name ".so"

struct code {
    uint64_t start, end; /* file offsets */
};

/* Where a function's bytes lie in the file: found without the code under test, in any table. */
static struct code code_of(const char *path, const char *symbol)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct code code = {0};
    Elf_Scn *scn = NULL;
    Elf *elf;

    assert_true(fd >= 0);
    elf_version(EV_CURRENT);
    elf = elf_begin(fd, ELF_C_READ, NULL);
    assert_non_null(elf);
    while ((scn = elf_nextscn(elf, scn))) {
        GElf_Shdr header, text;
        GElf_Sym sym;

        gelf_getshdr(scn, &header);
        if (header.sh_type != SHT_SYMTAB && header.sh_type != SHT_DYNSYM)
            continue;
        for (int i = 0; gelf_getsym(elf_getdata(scn, NULL), i, &sym); i++) {
            if (strcmp(elf_strptr(elf, header.sh_link, sym.st_name), symbol) || sym.st_shndx == SHN_UNDEF)
                continue;
            gelf_getshdr(elf_getscn(elf, sym.st_shndx), &text);
            code.start = sym.st_value - text.sh_addr + text.sh_offset;
            code.end = code.start + sym.st_size;
        }
    }
    elf_end(elf);
    close(fd);
    assert_true(code.start > 0);
    return code;
}

/* Where a section lies in the file. */
static struct code section_of(const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct code code = {0};
    Elf_Scn *scn = NULL;
    size_t names;
    Elf *elf;

    assert_true(fd >= 0);
    elf_version(EV_CURRENT);
    elf = elf_begin(fd, ELF_C_READ, NULL);
    assert_int_equal(elf_getshdrstrndx(elf, &names), 0);
    while ((scn = elf_nextscn(elf, scn))) {
        GElf_Shdr header;

        gelf_getshdr(scn, &header);
        if (!strcmp(elf_strptr(elf, names, header.sh_name), name))
            code = (struct code){header.sh_offset, header.sh_offset + header.sh_size};
    }
    elf_end(elf);
    close(fd);
    return code;
}

static struct stile__symbol_module *open_module(struct stile__symbolizer *s, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stile__symbol_module *m;

    assert_true(fd >= 0);
    m = stile__symbolizer_module_open(s, path, fd, NULL, 0);
    close(fd);
    assert_non_null(m);
    return m;
}

static const char *name_at(struct stile__symbol_module *m, uint64_t offset)
{
    const struct stile__symbol_frame *f;
    size_t n = stile__symbolizer_frames(m, offset, &f);

    return n ? f[n - 1].name : "";
}

/* The fixture has an instruction three deep whose lines are known. */
static void check_inlines(struct stile__symbol_module *m, struct code outer)
{
    bool three = false, two = false, one = false;

    for (uint64_t at = outer.start; at < outer.end; at++) {
        const struct stile__symbol_frame *f;
        size_t n = stile__symbolizer_frames(m, at, &f);

        assert_in_range(n, 1, 3);
        assert_string_equal(f[n - 1].name, "outer");
        assert_string_equal(f[n - 1].system_name, "outer");
        assert_int_equal(f[n - 1].start_line, 300);
        if (n >= 2) {
            assert_string_equal(f[n - 2].name, "middle");
            assert_int_equal(f[n - 2].start_line, 200);
            assert_int_equal(f[n - 1].line, 303);
            assert_non_null(strstr(f[n - 1].filename, "inline_fixture.c"));
        }
        if (n == 3) {
            assert_string_equal(f[0].name, "inner");
            assert_int_equal(f[1].line, 203);
            three |= f[0].line == 102 || f[0].line == 103;
            assert_non_null(strstr(f[0].filename, "inline_fixture.c"));
        }
        two |= n == 2 && f[0].line >= 202 && f[0].line <= 204;
        one |= n == 1 && f[0].line >= 301 && f[0].line <= 305;
    }
    assert_true(three && two && one);
}

static void test_inlines(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("inline"));
    struct stile__symbol_coverage c = stile__symbolizer_coverage(m);
    struct code quiet = code_of(FIXTURE("inline"), "quiet");
    const struct stile__symbol_frame *f, *again;

    (void)state;
    assert_true(c.debug_info && c.symtab);
    check_inlines(m, code_of(FIXTURE("inline"), "outer"));
    assert_int_equal(stile__symbolizer_frames(m, quiet.start, &f), 1);
    assert_string_equal(f->name, "quiet");
    assert_int_equal(f->start_line, 400);
    assert_int_equal(stile__symbolizer_frames(m, quiet.start, &again), 1);
    assert_ptr_equal(f, again); /* kept, not made anew */
    stile__symbolizer_free(s);
}

/* A module that is looked for by its build id: by its file, which proves it, else below the root of debug files. */
/* Names alone are to be had before debug information was read, and after. */
static void test_name_by_symbol(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("inline"));
    struct code outer = code_of(FIXTURE("inline"), "outer");
    const struct stile__symbol_frame *f;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_true(stile__symbolizer_name(m, outer.start, &f));
        assert_string_equal(f->name, "outer");
        assert_string_equal(f->system_name, "outer");
        assert_string_equal(f->filename, "");
        assert_int_equal(f->line, 0);
        assert_false(stile__symbolizer_name(m, 0, &f));
        assert_null(f);
        check_inlines(m, outer);
    }
    stile__symbolizer_free(s);
}

static void test_find(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m;
    const struct stile__symbol_frame *f;
    uint8_t id[20];
    bool other = false;
    int fd = open(FIXTURE("high"), O_RDONLY | O_CLOEXEC);
    char *hex = command_output("readelf -n " FIXTURE("high") " | sed -n 's/.*Build ID: //p'");
    char *symbol = command_output("readelf -sW " FIXTURE("high") " | awk '$8 == \"quiet\" { print $2 }'");
    uint64_t address = strtoull(symbol, NULL, 16);

    (void)state;
    for (size_t i = 0; i < sizeof(id); i++)
        sscanf(hex + 2 * i, "%2hhx", &id[i]);
    m = stile__symbolizer_module_find(s, FIXTURE("high"), fd, id, sizeof(id), &other);
    assert_non_null(m);
    assert_false(other);
    assert_int_equal(stile__symbolizer_frames_linked(m, address, &f), 1);
    assert_string_equal(f->name, "quiet");
    assert_int_equal(stile__symbolizer_frames(m, code_of(FIXTURE("high"), "quiet").start, &f), 1);
    assert_string_equal(f->name, "quiet");
    assert_int_equal(stile__symbolizer_frames(m, address, &f), 0); /* the file has no such offset */
    id[19] ^= 1;
    assert_null(stile__symbolizer_module_find(s, FIXTURE("high"), fd, id, sizeof(id), &other));
    assert_true(other);
    other = false;
    assert_null(stile__symbolizer_module_find(s, FIXTURE("high"), fd, id, 0, &other)); /* it has one */
    assert_true(other);
    other = false;
    assert_null(stile__symbolizer_module_find(s, NULL, -1, id, sizeof(id), &other));
    assert_false(other);
    close(fd);
    free(hex);
    free(symbol);
    stile__symbolizer_free(s);
}

static void test_outside_of_symbols(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("names"));
    struct code sized = code_of(FIXTURE("names"), "sized"), sizeless = code_of(FIXTURE("names"), "sizeless");
    const struct stile__symbol_frame *f;

    (void)state;
    assert_string_equal(name_at(m, sized.end - 1), "sized");
    assert_int_equal(sized.end, sizeless.start);
    assert_int_equal(stile__symbolizer_frames(m, sizeless.start, &f), 0);
    assert_null(f);
    assert_int_equal(stile__symbolizer_frames(m, sizeless.start + 1, &f), 0);
    assert_int_equal(stile__symbolizer_frames(m, 0, &f), 0);
    assert_int_equal(stile__symbolizer_frames(m, UINT64_MAX, &f), 0);
    stile__symbolizer_free(s);
}

static void test_choice_of_names(void **state)
{
    static const struct {
        const char *symbol, *name, *system_name;
    } cases[] = {
        {"__plain", "plain", "plain"},
        {"aa_weak", "zz_global", "zz_global"},
        {"versioned@@STILE_1", "versioned_first", "versioned"},
        {"_ZN7mycrate3foo17h0123456789abcdefE", "mycrate::foo", "_ZN7mycrate3foo17h0123456789abcdefE"},
        {"_RNvC7mycrate3bar", "mycrate::bar", "_RNvC7mycrate3bar"},
    };
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("names"));

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct stile__symbol_frame *f;

        assert_int_equal(stile__symbolizer_frames(m, code_of(FIXTURE("names"), cases[i].symbol).start, &f),
                         1);
        assert_string_equal(f->name, cases[i].name);
        assert_string_equal(f->system_name, cases[i].system_name);
    }
    stile__symbolizer_free(s);
}

static void test_cplusplus(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("template"));
    struct code twice = code_of(FIXTURE("template"), "_ZN7fixture5twiceIiEET_S1_");
    bool inlined = false;

    (void)state;
    for (uint64_t at = twice.start; at < twice.end; at++) {
        const struct stile__symbol_frame *f;
        size_t n = stile__symbolizer_frames(m, at, &f);

        assert_in_range(n, 1, 2);
        assert_string_equal(f[n - 1].name, "int fixture::twice<int>(int)");
        assert_string_equal(f[n - 1].system_name, "_ZN7fixture5twiceIiEET_S1_");
        if (n == 2)
            inlined |= !strcmp(f[0].name, "int fixture::doubled<int>(int)");
    }
    assert_true(inlined);
    assert_string_equal(name_at(m, code_of(FIXTURE("template"), "_ZN7fixture5twiceIlEET_S1_").start),
                        "long fixture::twice<long>(long)");
    assert_string_equal(name_at(m, code_of(FIXTURE("template"), "_ZN12_GLOBAL__N_16hiddenEi").start),
                        "(anonymous namespace)::hidden(int)");
    stile__symbolizer_free(s);
}

static void test_dynsym_only(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("stripped"));
    struct stile__symbol_coverage c = stile__symbolizer_coverage(m);
    struct code outer = code_of(FIXTURE("stripped"), "outer");
    struct code quiet = code_of(STILE_FIXTURES "/fixture_inline.so", "quiet"); /* same code, same place */
    const struct stile__symbol_frame *f;

    (void)state;
    assert_false(c.debug_info || c.symtab);
    assert_int_equal(stile__symbolizer_frames(m, outer.start, &f), 1);
    assert_string_equal(f->name, "outer");
    assert_string_equal(f->filename, "");
    assert_int_equal(f->line, 0);
    assert_int_equal(stile__symbolizer_frames(m, outer.end - 1, &f), 1);
    assert_int_equal(stile__symbolizer_frames(m, quiet.start, &f), 0);
    stile__symbolizer_free(s);
}

static void test_debuglink(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("linked"));
    struct stile__symbol_coverage c = stile__symbolizer_coverage(m);

    (void)state;
    assert_true(c.debug_info && c.symtab);
    check_inlines(m, code_of(FIXTURE("linked"), "outer"));
    stile__symbolizer_free(s);
}

/* Without build ids the link's checksum decides. */
static void test_debuglink_checksum(void **state)
{
    const char *directory = STILE_SCRATCH "/crc";
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m = open_module(s, FIXTURE("crc"));
    int fd;

    (void)state;
    assert_true(stile__symbolizer_coverage(m).debug_info);
    check_inlines(m, code_of(FIXTURE("crc"), "outer"));
    /* The same debug file but for one byte more, in the folder .debug. */
    free(command_output("mkdir -p " STILE_SCRATCH "/crc/.debug && cd " STILE_SCRATCH "/crc && cp " FIXTURE(
        "crc") " . && cp " STILE_FIXTURES "/fixture_crc.debug .debug && echo >>.debug/fixture_crc.debug"));
    m = open_module(s, STILE_SCRATCH "/crc/fixture_crc.so");
    assert_false(stile__symbolizer_coverage(m).debug_info);
    free(command_output("cp " STILE_FIXTURES "/fixture_crc.debug " STILE_SCRATCH "/crc/.debug"));
    m = open_module(s, STILE_SCRATCH "/crc/fixture_crc.so");
    assert_true(stile__symbolizer_coverage(m).debug_info);
    /* path need not be what fd was opened from, but it must be there. */
    fd = open(FIXTURE("crc"), O_RDONLY | O_CLOEXEC);
    m = stile__symbolizer_module_open(s, directory, fd, NULL, 0);
    close(fd);
    assert_false(stile__symbolizer_coverage(m).debug_info);
    stile__symbolizer_free(s);
}

/* Puts file where a debug file of fixture_stripped belongs below root. */
static void install_by_build_id(const char *root, const char *file)
{
    char *hex = command_output("readelf -n " FIXTURE("stripped") " | sed -n 's/.*Build ID: //p'");
    char command[4096];

    hex[strcspn(hex, "\n")] = '\0';
    assert_int_equal(strlen(hex), 40);
    snprintf(command, sizeof(command), "d=%s/.build-id/%.2s && mkdir -p $d && cp %s $d/%s.debug", root, hex,
             file, hex + 2);
    free(command_output(command));
    free(hex);
}

static void test_build_id(void **state)
{
    const char *good = STILE_SCRATCH "/root_good", *bad = STILE_SCRATCH "/root_bad";
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m;

    (void)state;
    install_by_build_id(good, STILE_FIXTURES "/fixture_stripped.kept");
    install_by_build_id(bad, STILE_FIXTURES "/fixture_names.so"); /* of another build id */
    assert_int_equal(stile__symbolizer_debug_root_set(s, good), 0);
    m = open_module(s, FIXTURE("stripped"));
    assert_true(stile__symbolizer_coverage(m).debug_info && stile__symbolizer_coverage(m).symtab);
    check_inlines(m, code_of(FIXTURE("stripped"), "outer"));
    assert_int_equal(stile__symbolizer_debug_root_set(s, bad), 0);
    m = open_module(s, FIXTURE("stripped"));
    assert_false(stile__symbolizer_coverage(m).debug_info || stile__symbolizer_coverage(m).symtab);
    stile__symbolizer_free(s);
}

static void test_vdso(void **state)
{
    const void *vdso = (const void *)getauxval(AT_SYSINFO_EHDR);
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct stile__symbol_module *m;
    unsigned long start = 0, end = 0;
    bool named = false;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");

    (void)state;
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
            break;
    fclose(maps);
    if (!vdso)
        skip();
    assert_ptr_equal(vdso, start);
    m = stile__symbolizer_module_open(s, NULL, -1, vdso, end - start);
    for (uint64_t at = 0; at < end - start; at++)
        named |= strstr(name_at(m, at), "clock_gettime") != NULL;
    assert_true(named);
    stile__symbolizer_free(s);
}

/* Asks for some places all over the module; what comes back does not matter, that it comes back does. */
static void probe(const void *bytes, size_t size, size_t step)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    int fd = memory_file(bytes, size);
    struct stile__symbol_module *m = stile__symbolizer_module_open(s, "/nowhere", fd, NULL, 0);
    const struct stile__symbol_frame *f;

    close(fd);
    assert_non_null(m);
    for (uint64_t at = 0; at < size + 100; at += step) {
        size_t n = stile__symbolizer_frames(m, at, &f);

        for (size_t i = 0; i < n; i++)
            assert_true(f[i].name && f[i].system_name && f[i].filename && strlen(f[i].name) < 1 << 20);
    }
    stile__symbolizer_free(s);
}

static void test_truncations(void **state)
{
    struct bytes elf = file_load(FIXTURE("inline"));

    (void)state;
    for (size_t cut = 0; cut < elf.size; cut += 997)
        probe(elf.data, cut, 97);
    for (size_t cut = 0; cut < 200; cut++)
        probe(elf.data, cut, 97);
    free(elf.data);
}

static void test_garbage(void **state)
{
    struct bytes elf = file_load(FIXTURE("template"));
    uint8_t *copy = malloc(elf.size), *noise = malloc(65536);
    uint64_t random = 3;

    (void)state;
    assert_true(copy && noise);
    for (size_t i = 0; i < 65536; i++)
        noise[i] = (uint8_t)next_number(&random);
    probe(noise, 65536, 997);
    memcpy(noise, elf.data, 64); /* an ELF header and then nothing sensible */
    probe(noise, 65536, 997);
    for (int round = 0; round < 1500; round++) {
        memcpy(copy, elf.data, elf.size);
        for (int i = 0; i < 1 + round % 8; i++) {
            size_t at = next_number(&random) % (round % 3 ? elf.size : 512);

            copy[at] = round % 2 ? 0xff : (uint8_t)next_number(&random);
        }
        probe(copy, elf.size, 61);
    }
    /* The section headers hold the sizes: damage those one byte at a time. */
    for (size_t at = elf.size > 3000 ? elf.size - 3000 : 0; at < elf.size; at += 5) {
        memcpy(copy, elf.data, elf.size);
        copy[at] ^= 0xff;
        probe(copy, elf.size, 211);
    }
    free(copy);
    free(noise);
    free(elf.data);
}

/* libdw reads texts up to a NUL that it does not look for: without one it must not be asked. */
static void test_unterminated_texts(void **state)
{
    static const char *const sections[] = {".debug_str", ".debug_line_str"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bytes elf = file_load(FIXTURE("template"));
        struct code end = section_of(FIXTURE("template"), sections[i]);
        struct stile__symbolizer *s = stile__symbolizer_new();
        struct stile__symbol_module *m;
        int fd;

        assert_in_range(end.end, 1, elf.size);
        assert_int_equal(elf.data[end.end - 1], 0);
        elf.data[end.end - 1] = 'x';
        fd = memory_file(elf.data, elf.size);
        m = stile__symbolizer_module_open(s, "/nowhere", fd, NULL, 0);
        close(fd);
        assert_false(stile__symbolizer_coverage(m).debug_info);
        assert_true(stile__symbolizer_coverage(m).symtab);
        stile__symbolizer_free(s);
        free(elf.data);
    }
}

static void test_not_elf(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    const struct stile__symbol_frame *f;
    struct stile__symbol_module *m;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)state;
    m = stile__symbolizer_module_open(s, "/dev/null", null, NULL, 0);
    close(null);
    assert_non_null(m);
    assert_int_equal(stile__symbolizer_frames(m, 0, &f), 0);
    m = stile__symbolizer_module_open(s, "/closed", 9999, NULL, 0);
    assert_non_null(m);
    assert_int_equal(stile__symbolizer_frames(m, 0, &f), 0);
    m = stile__symbolizer_module_open(s, NULL, -1, NULL, 0);
    assert_non_null(m);
    assert_false(stile__symbolizer_coverage(m).debug_info);
    stile__symbolizer_free(s);
}

static int open_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_keeps_no_descriptor(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    int before = open_descriptors();

    (void)state;
    stile__symbolizer_coverage(open_module(s, FIXTURE("inline")));
    stile__symbolizer_coverage(open_module(s, FIXTURE("linked")));
    stile__symbolizer_coverage(open_module(s, "/proc/self/exe"));
    assert_int_equal(open_descriptors(), before);
    for (int i = 0; i < 300; i++) /* of which nobody asks for lines yet */
        open_module(s, FIXTURE("inline"));
    assert_true(open_descriptors() - before < 200);
    stile__symbolizer_free(s);
    assert_int_equal(open_descriptors(), before);
}

/* Ten thousand addresses of the C library take a tenth of a second; with libdw asked anew for each, half a minute. */
static void test_is_fast(void **state)
{
    struct stile__symbolizer *s = stile__symbolizer_new();
    struct timespec start, end;
    struct stile__symbol_module *m;
    const struct stile__symbol_frame *f;
    size_t named = 0;

    (void)state;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    m = open_module(s, "/lib/x86_64-linux-gnu/libc.so.6");
    for (uint64_t i = 0; i < 10000; i++)
        named += stile__symbolizer_frames(m, 0x30000 + i * 0x80, &f) > 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    print_message("10000 addresses, %zu named: %.3f s\n", named,
                  (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    assert_true(named > 1000);
    assert_true(end.tv_sec - start.tv_sec < 3); /* sanitizers and busy machines included */
    stile__symbolizer_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps_no_descriptor), /* first: later ones open more than there may be */
        cmocka_unit_test(test_inlines),
        cmocka_unit_test(test_name_by_symbol),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_outside_of_symbols),
        cmocka_unit_test(test_choice_of_names),
        cmocka_unit_test(test_cplusplus),
        cmocka_unit_test(test_dynsym_only),
        cmocka_unit_test(test_debuglink),
        cmocka_unit_test(test_debuglink_checksum),
        cmocka_unit_test(test_build_id),
        cmocka_unit_test(test_vdso),
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_unterminated_texts),
        cmocka_unit_test(test_not_elf),
        cmocka_unit_test(test_is_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
