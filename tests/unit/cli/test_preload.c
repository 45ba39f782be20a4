/* cli/preload.c: why a command was not profiled, from its file. */
#include "tests/unit/support.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/preload.h"

static const char *program(const char *name, const void *bytes, size_t n, mode_t mode)
{
    const char *path = scratch_path(name);
    file_write(path, bytes, n);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void says(const char *command, const char *word)
{
    const char *why = stile__preload_obstacle(command);
    assert_non_null(why);
    if (strstr(why, word) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", command, why, word);
}

#define UNKNOWN "did not load libstile"

static void test_static_program(void **state)
{
    const char *path = getenv("STILE_TEST_STATIC");
    (void)state;
    if (path == NULL)
        skip(); /* no libc.a to make one with */
    says(path, "statically linked");
}

static void test_script(void **state)
{
    (void)state;
    says(program("script", "#!/bin/sh\n", 10, 0700), "interpreter");
}

static void test_setuid(void **state)
{
    (void)state;
    says(program("suid", "\177ELF", 4, 04700), "setuid");
    says(program("sgid", "\177ELF", 4, 02710), "setgid");
}

static void test_32_bits(void **state)
{
    static const uint8_t header[20] = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT};
    (void)state;
    says(program("old", header, sizeof header, 0700), "32-bit");
}

static void test_nothing_to_see(void **state)
{
    static const uint8_t cut[20] = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
    (void)state;
    says("/proc/self/exe", UNKNOWN);
    says(program("empty", "", 0, 0700), UNKNOWN);
    says(program("text", "words", 5, 0700), UNKNOWN);
    says(program("cut", cut, sizeof cut, 0700), UNKNOWN);
    says(scratch_path("missing"), UNKNOWN);
    says("no-such-command-anywhere", UNKNOWN);
    says("", UNKNOWN);
}

static void test_by_path(void **state)
{
    char value[4200];
    (void)state;
    program("in-path", "#!/bin/sh\n", 10, 0700);
    program("not-executable", "#!/bin/sh\n", 10, 0600);
    const char *before = getenv("PATH");
    snprintf(value, sizeof value, "/nonexistent:%s", scratch_path("."));
    char *kept = strdup(before != NULL ? before : "");
    setenv("PATH", value, 1);
    says("in-path", "interpreter");
    if (geteuid() != 0)
        says("not-executable", UNKNOWN);
    setenv("PATH", kept, 1);
    free(kept);
}

static void test_value(void **state)
{
    char value[8192], small[8];
    (void)state;
    unsetenv("LD_PRELOAD");
    assert_int_equal(stile__preload_value(value, sizeof value), 0);
    assert_int_equal(value[0], '/');
    assert_non_null(strstr(strrchr(value, '/'), "libstile.so"));
    assert_int_equal(access(value, R_OK), 0);
    size_t alone = strlen(value);
    setenv("LD_PRELOAD", "/a/b.so", 1);
    assert_int_equal(stile__preload_value(value, sizeof value), 0);
    assert_string_equal(value + alone, ":/a/b.so");
    stderr_begin();
    int err = stile__preload_value(small, sizeof small);
    char *said = stderr_end();
    assert_int_equal(err, -ENAMETOOLONG);
    assert_string_equal(said, "stile record: LD_PRELOAD is too long\n");
    free(said);
    unsetenv("LD_PRELOAD");
}

static int set_up(void **state)
{
    (void)state;
    scratch_make();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_static_program), cmocka_unit_test(test_script),
        cmocka_unit_test(test_setuid),         cmocka_unit_test(test_32_bits),
        cmocka_unit_test(test_nothing_to_see), cmocka_unit_test(test_by_path),
        cmocka_unit_test(test_value),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
