/* collector/elf_file.c: what unwinding needs of a file, and nothing believed. */
#include "tests/unit/support.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "profiler/collector/elf_file.h"

static char self[4096];

static uint64_t own_bias(void)
{
    return _r_debug.r_map->l_addr; /* the first in the list is the executable */
}

static void self_open(struct elf_file *f)
{
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    elf_file_open(f, fd, NULL, 0);
}

static void test_build_id(void **state)
{
    char command[4200], line[512], expected[256] = "";
    struct elf_file f;

    (void)state;
    snprintf(command, sizeof command, "readelf -n '%s' 2>/dev/null", self);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    while (fgets(line, sizeof line, p) != NULL)
        sscanf(line, " Build ID: %255s", expected);
    pclose(p);
    if (expected[0] == '\0')
        skip(); /* no readelf, or a linker that gives no ids */
    self_open(&f);
    assert_string_equal(f.build_id, expected);
    elf_file_close(&f);
}

__attribute__((noinline)) static int first_function(int x)
{
    return printf("%d\n", x) * 2;
}

__attribute__((noinline)) static int second_function(int x)
{
    char text[64];
    return snprintf(text, sizeof text, "%d", x) + (x > 3 ? second_function(x - 1) : first_function(x));
}

static void test_functions(void **state)
{
    static int (*const functions[])(int) = {first_function, second_function};
    struct elf_file f;
    uint64_t start;

    (void)state;
    self_open(&f);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        uint64_t vaddr = (uintptr_t)functions[i] - own_bias();
        for (uint64_t into = 0; into < 16; into += 5) {
            assert_true(elf_file_function(&f, vaddr + into, &start));
            assert_int_equal(start, vaddr);
        }
    }
    uint64_t vaddr = (uintptr_t)&test_functions - own_bias();
    assert_true(elf_file_function(&f, vaddr + 30, &start));
    assert_int_equal(start, vaddr);
    assert_false(elf_file_function(&f, 0, &start));
    assert_false(elf_file_function(&f, UINT64_MAX, &start));
    assert_false(elf_file_function(&f, elf_file_limit(&f), &start));
    elf_file_close(&f);
}

static void test_addresses(void **state)
{
    static const uint64_t constant = 0x0123456789abcdefull;
    struct elf_file f;
    uint64_t word, vaddr;

    (void)state;
    self_open(&f);
    assert_true(elf_file_read_word(&f, (uintptr_t)&constant - own_bias(), &word));
    assert_int_equal(word, constant);
    assert_true(elf_file_read_word(&f, (uintptr_t)&test_addresses - own_bias(), &word));
    assert_memory_equal(&word, (void *)(uintptr_t)&test_addresses, sizeof word);
    assert_false(elf_file_read_word(&f, UINT64_MAX - 3, &word));
    assert_false(elf_file_read_word(&f, elf_file_limit(&f), &word));
    for (unsigned i = 0; i < f.n_segments; i++)
        if (f.segments[i].exec) {
            assert_true(elf_file_vaddr(&f, f.segments[i].offset + 8, &vaddr));
            assert_int_equal(vaddr, f.segments[i].vaddr + 8);
        }
    assert_false(elf_file_vaddr(&f, (uint64_t)1 << 40, &vaddr));
    elf_file_close(&f);
}

/* All that can be asked of a file, whatever it is. */
static void ask(struct elf_file *f, uint64_t *numbers)
{
    uint64_t word;
    assert_true(strlen(f->build_id) < sizeof f->build_id);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t address = next_number(numbers) >> next_number(numbers) % 64;
        elf_file_function(f, address, &word);
        elf_file_read_word(f, address, &word);
        elf_file_vaddr(f, address, &word);
        if (f->eh_frame.bytes != NULL)
            elf_file_read_word(f, f->eh_frame.vaddr + f->eh_frame.size - 1 - i, &word);
    }
    elf_file_limit(f);
}

/* The vdso: a whole ELF file of a few KiB. To be freed. */
static uint8_t *vdso_copy(size_t *size)
{
    const uint8_t *image = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    char key[64];
    unsigned long start, end;
    char *maps = file_text("/proc/self/maps");
    snprintf(key, sizeof key, "%lx-", (unsigned long)(uintptr_t)image);
    char *line = strstr(maps, key);
    assert_non_null(line);
    assert_int_equal(sscanf(line, "%lx-%lx", &start, &end), 2);
    free(maps);
    *size = end - start;
    uint8_t *copy = malloc(*size);
    assert_non_null(copy);
    memcpy(copy, image, *size);
    return copy;
}

static void test_truncations(void **state)
{
    uint64_t numbers = 6;
    size_t size;
    struct elf_file f;
    uint8_t *whole = vdso_copy(&size);

    (void)state;
    elf_file_open(&f, -1, whole, size);
    assert_true(f.table_entries > 0 && f.eh_frame.bytes != NULL && f.build_id[0] != '\0');
    elf_file_close(&f);
    for (size_t n = 0; n < size; n += n < 1024 ? 1 : 13) {
        uint8_t *cut = malloc(n + 1);
        assert_non_null(cut);
        memcpy(cut, whole, n);
        elf_file_open(&f, -1, cut, n);
        ask(&f, &numbers);
        elf_file_close(&f);
        int fd = memfd_create("cut", MFD_CLOEXEC);
        assert_int_equal(write(fd, cut, n), n);
        elf_file_open(&f, fd, NULL, 0);
        ask(&f, &numbers);
        elf_file_close(&f);
        free(cut);
    }
    free(whole);
}

static void test_garbage(void **state)
{
    uint64_t numbers = 7;
    size_t size;
    struct elf_file f;
    uint8_t *whole = vdso_copy(&size);

    (void)state;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 3000u : 20000u); round++) {
        uint8_t *bad = malloc(size);
        assert_non_null(bad);
        memcpy(bad, whole, size);
        unsigned changes = 1 + (unsigned)(next_number(&numbers) % 12);
        for (unsigned i = 0; i < changes; i++) /* mostly in the headers: there the offsets stand */
            bad[next_number(&numbers) % (i % 4 == 3 ? size : 512)] = (uint8_t)next_number(&numbers);
        elf_file_open(&f, -1, bad, size);
        ask(&f, &numbers);
        elf_file_close(&f);
        free(bad);
    }
    free(whole);
}

/* A build id longer than any hash: there is no room for it. */
static void test_long_build_id(void **state)
{
    size_t size;
    struct elf_file f;
    uint8_t *bytes = vdso_copy(&size);
    Elf64_Ehdr *eh = (Elf64_Ehdr *)(void *)bytes;
    Elf64_Phdr *ph = (Elf64_Phdr *)(void *)(bytes + eh->e_phoff);

    (void)state;
    for (uint32_t length = 64; length < 200; length += 68) {
        Elf64_Nhdr note = {4, length, NT_GNU_BUILD_ID};
        for (unsigned i = 0; i < eh->e_phnum; i++)
            if (ph[i].p_type == PT_NOTE) {
                ph[i].p_filesz = sizeof note + 4 + length;
                memcpy(bytes + ph[i].p_offset, &note, sizeof note);
                memcpy(bytes + ph[i].p_offset + sizeof note, "GNU", 4);
            }
        elf_file_open(&f, -1, bytes, size);
        assert_int_equal(strlen(f.build_id), length == 64 ? 128 : 0);
        elf_file_close(&f);
    }
    free(bytes);
}

/* A file with two unwind tables, of which the second cannot be read or is no table. */
static void two_tables(uint64_t offset, uint64_t size)
{
    uint64_t numbers = 8, start;
    size_t file_size;
    struct elf_file f;
    uint8_t *bytes = vdso_copy(&file_size);
    Elf64_Ehdr *eh = (Elf64_Ehdr *)(void *)bytes;
    Elf64_Phdr *ph = (Elf64_Phdr *)(void *)(bytes + eh->e_phoff);

    bool changed = false;
    unsigned table = 0;
    for (unsigned i = 0; i < eh->e_phnum; i++)
        if (ph[i].p_type == PT_GNU_EH_FRAME)
            table = i;
    Elf64_Phdr good = ph[table];
    for (unsigned i = 0; i < eh->e_phnum && !changed; i++)
        if (i != table && ph[i].p_type != PT_LOAD) {
            ph[i] = good; /* whichever of the two comes first in the file is the good one */
            unsigned last = i > table ? i : table;
            ph[last].p_offset = offset;
            ph[last].p_filesz = size;
            changed = true;
        }
    assert_true(changed);
    elf_file_open(&f, -1, bytes, file_size);
    ask(&f, &numbers);
    for (uint64_t address = 0; address < file_size; address += 16)
        elf_file_function(&f, address, &start);
    elf_file_close(&f);
    free(bytes);
}

static void second_table_unreadable(void *unused)
{
    (void)unused;
    two_tables(1u << 30, 4096);
}

static void second_table_of_garbage(void *unused)
{
    (void)unused;
    two_tables(4, 16);
}

static void test_two_tables(void **state)
{
    (void)state;
    assert_int_equal(in_child(second_table_unreadable, NULL), 0);
    assert_int_equal(in_child(second_table_of_garbage, NULL), 0);
}

static int set_up(void **state)
{
    (void)state;
    return realpath("/proc/self/exe", self) == NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build_id),      cmocka_unit_test(test_functions),
        cmocka_unit_test(test_addresses),     cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_garbage),       cmocka_unit_test(test_two_tables),
        cmocka_unit_test(test_long_build_id),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
