/* proto/debug_file.c: what dwz split off is found by build id, by path and relative to the debug file. */
#include "support.h"

#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/debug_file.h"

#define SCRATCH STILE_SCRATCH "/alt"
#define TARGET  STILE_FIXTURES "/fixture_names.so"

/* The build id of TARGET; its hex form is to be freed. */
static size_t build_id(uint8_t id[64], char **hex)
{
    struct stile__elf_file f;
    const uint8_t *bytes;
    size_t size;

    assert_int_equal(stile__elf_file_open(&f, open(TARGET, O_RDONLY | O_CLOEXEC)), 0);
    size = stile__elf_file_build_id(&f, &bytes);
    assert_int_equal(size, 20);
    memcpy(id, bytes, size);
    stile__elf_file_close(&f);
    *hex = calloc(1, 2 * size + 1);
    for (size_t i = 0; i < size; i++)
        sprintf(*hex + 2 * i, "%02x", id[i]);
    return size;
}

/* Makes SCRATCH/main.debug, whose .gnu_debugaltlink names `link` and TARGET's build id, or one that differs. */
static void main_make(const char *link, bool other_id)
{
    uint8_t section[PATH_MAX + 64], id[64];
    size_t n = strlen(link) + 1, size;
    char *hex;

    size = build_id(id, &hex);
    free(hex);
    id[0] ^= other_id;
    memcpy(section, link, n);
    memcpy(section + n, id, size);
    free(command_output("mkdir -p " SCRATCH "/sub " SCRATCH "/root"));
    file_store(SCRATCH "/section", section, n + size);
    free(command_output("objcopy --add-section .gnu_debugaltlink=" SCRATCH "/section " STILE_FIXTURES
                        "/fixture_inline.so " SCRATCH "/main.debug"));
}

/* What opening the alternative file of SCRATCH/main.debug yields. */
static int alt_open(const char *path)
{
    struct stile__elf_file main_file, alt;
    Dwarf *dwarf;
    int err;

    assert_int_equal(stile__elf_file_open(&main_file, open(SCRATCH "/main.debug", O_RDONLY | O_CLOEXEC)), 0);
    dwarf = dwarf_begin_elf(main_file.elf, DWARF_C_READ, NULL);
    assert_non_null(dwarf);
    err = stile__debug_file_open_alt(dwarf, path, SCRATCH "/root", &alt);
    assert_int_equal(err == 0, alt.elf != NULL);
    stile__elf_file_close(&alt);
    dwarf_end(dwarf);
    stile__elf_file_close(&main_file);
    return err;
}

static void test_by_path(void **state)
{
    (void)state;
    main_make(TARGET, false);
    assert_int_equal(alt_open(SCRATCH "/main.debug"), 0);
    main_make(TARGET, true);
    assert_int_equal(alt_open(SCRATCH "/main.debug"), -ENOENT);
    main_make("/nonexistent", false);
    assert_int_equal(alt_open(SCRATCH "/main.debug"), -ENOENT);
}

/* Relative to where the debug file really is, not to a link to it. */
static void test_relative(void **state)
{
    (void)state;
    main_make("sub/shared.debug", false);
    free(command_output("cp " TARGET " " SCRATCH "/sub/shared.debug && ln -sf " SCRATCH "/main.debug " SCRATCH
                        "/root/link.debug"));
    assert_int_equal(alt_open(SCRATCH "/root/link.debug"), 0);
    assert_int_equal(alt_open(NULL), -ENOENT);
}

static void test_by_build_id(void **state)
{
    char command[2 * PATH_MAX];
    uint8_t id[64];
    char *hex;

    (void)state;
    main_make("/nonexistent", false);
    build_id(id, &hex);
    snprintf(command, sizeof(command),
             "d=" SCRATCH "/root/.build-id/%.2s && mkdir -p $d && cp " TARGET " $d/%s.debug", hex, hex + 2);
    free(command_output(command));
    assert_int_equal(alt_open(NULL), 0);
    free(command_output("rm -r " SCRATCH "/root/.build-id"));
    free(hex);
}

static void test_none(void **state)
{
    (void)state;
    free(command_output("mkdir -p " SCRATCH " && cp " STILE_FIXTURES "/fixture_inline.so " SCRATCH
                        "/main.debug"));
    assert_int_equal(alt_open(SCRATCH "/main.debug"), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_path),
        cmocka_unit_test(test_relative),
        cmocka_unit_test(test_by_build_id),
        cmocka_unit_test(test_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
