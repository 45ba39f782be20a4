/* cli/command_check.c: what a command's file says of how it can be profiled. Files are whatever somebody wrote. */
#include "tests/unit/support.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command_check.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"

/* A 64-bit program as it is on the disk: one segment with all of it, and what the loader reads. */
struct image {
    Elf64_Ehdr eh;
    Elf64_Phdr load, interpreter, dynamic;
    Elf64_Dyn entries[4];
    char loader[512], strings[64];
};

static struct image sound(void)
{
    struct image i = {.loader = LOADER, .strings = "\0libc.so.6\0libm.so.6"};
    memcpy(i.eh.e_ident, ELFMAG, SELFMAG);
    i.eh.e_ident[EI_CLASS] = ELFCLASS64;
    i.eh.e_ident[EI_DATA] = ELFDATA2LSB;
    i.eh.e_ident[EI_VERSION] = EV_CURRENT;
    i.eh.e_type = ET_DYN;
    i.eh.e_machine = EM_X86_64;
    i.eh.e_phoff = offsetof(struct image, load);
    i.eh.e_phentsize = sizeof i.load;
    i.eh.e_phnum = 3;
    i.load = (Elf64_Phdr){.p_type = PT_LOAD, .p_vaddr = 0x1000, .p_filesz = sizeof i, .p_memsz = sizeof i};
    i.interpreter = (Elf64_Phdr){
        .p_type = PT_INTERP, .p_offset = offsetof(struct image, loader), .p_filesz = sizeof LOADER};
    i.dynamic = (Elf64_Phdr){
        .p_type = PT_DYNAMIC, .p_offset = offsetof(struct image, entries), .p_filesz = sizeof i.entries};
    i.entries[0] = (Elf64_Dyn){.d_tag = DT_NEEDED, .d_un.d_val = 1};
    i.entries[1] = (Elf64_Dyn){.d_tag = DT_STRTAB, .d_un.d_ptr = 0x1000 + offsetof(struct image, strings)};
    i.entries[2] = (Elf64_Dyn){.d_tag = DT_STRSZ, .d_un.d_val = sizeof i.strings};
    return i;
}

static const char *program(const char *name, const void *bytes, size_t n, mode_t mode)
{
    const char *path = scratch_path(name);
    file_write(path, bytes, n);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static enum stile__command_kind kind_of(const void *bytes, size_t n)
{
    static struct stile__command c;
    stile__command_look(&c, program("program", bytes, n, 0700));
    return c.kind;
}

#define KIND(image) kind_of(&(image), sizeof(image))

static void test_plain(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    (void)state;
    assert_int_equal(KIND(i), STILE__COMMAND_PLAIN);
    stile__command_look(&c, LOADER);
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    stile__command_look(&c, "sh");
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    assert_int_equal(c.file[0], '/');
}

static void test_sanitized(void **state)
{
    static const char *const names[] = {"libasan.so.8", "libclang_rt.asan-x86_64.so"};
    struct image i = sound();
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        snprintf(i.strings + 1, sizeof i.strings - 1, "%s", names[k]);
        assert_int_equal(KIND(i), STILE__COMMAND_ASAN);
    }
    snprintf(i.strings + 1, sizeof i.strings - 1, "libnotasan.so");
    assert_int_equal(KIND(i), STILE__COMMAND_PLAIN);
}

static void test_static(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    const char *path = getenv("STILE_TEST_STATIC");
    (void)state;
    i.interpreter.p_type = PT_NOTE;
    assert_int_equal(KIND(i), STILE__COMMAND_STATIC);
    if (path == NULL)
        skip(); /* no libc.a to make one with */
    stile__command_look(&c, path);
    assert_int_equal(c.kind, STILE__COMMAND_STATIC);
}

static void test_other_machines(void **state)
{
    struct image i = sound();
    (void)state;
    i.eh.e_ident[EI_CLASS] = ELFCLASS32; /* with this machine: x32 */
    assert_int_equal(kind_of(&i, 20), STILE__COMMAND_32_BIT);
    i.eh.e_machine = EM_386;
    assert_int_equal(kind_of(&i, 20), STILE__COMMAND_32_BIT);
    i.eh.e_machine = EM_ARM;
    assert_int_equal(kind_of(&i, 20), STILE__COMMAND_FOREIGN);
    i = sound();
    i.eh.e_machine = EM_AARCH64;
    assert_int_equal(KIND(i), STILE__COMMAND_FOREIGN);
}

static void test_loaders(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    (void)state;
    snprintf(i.loader, sizeof i.loader, "%s", scratch_path("none"));
    i.interpreter.p_filesz = strlen(i.loader) + 1;
    stile__command_look(&c, program("program", &i, sizeof i, 0700));
    assert_int_equal(c.kind, STILE__COMMAND_INCOMPLETE);
    assert_string_equal(c.file, i.loader);
    snprintf(i.loader, sizeof i.loader, "%s", program("ld-musl-x86_64.so.1", "", 0, 0700));
    i.interpreter.p_filesz = strlen(i.loader) + 1;
    assert_int_equal(KIND(i), STILE__COMMAND_OTHER_LIBC);
}

static void test_privileged(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    const char *path = program("suid", &i, sizeof i, 04755);
    (void)state;
    stile__command_look(&c, path);
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN); /* it is our own */
    if (getuid() != 0)
        skip(); /* nobody else's can be made */
    assert_int_equal(chown(path, 65534, 0), 0);
    assert_int_equal(chmod(path, 04755), 0); /* taken away by chown */
    stile__command_look(&c, path);
    assert_int_equal(c.kind, STILE__COMMAND_PRIVILEGED);
    assert_int_equal(chown(path, 0, 65534), 0);
    assert_int_equal(chmod(path, 02755), 0);
    stile__command_look(&c, path);
    assert_int_equal(c.kind, STILE__COMMAND_PRIVILEGED);
    assert_int_equal(chmod(path, 02745), 0); /* without the group's x it means something else */
    stile__command_look(&c, path);
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
}

static void script(struct stile__command *c, const char *line)
{
    stile__command_look(c, program("script", line, strlen(line), 0700));
}

static void test_scripts(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    char line[512];
    (void)state;
    i.interpreter.p_type = PT_NOTE;
    const char *interpreter = program("interpreter", &i, sizeof i, 0700);
    script(&c, "#!/bin/sh\n");
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    assert_true(c.script);
    assert_string_equal(c.file, "/bin/sh");
    snprintf(line, sizeof line, "#! \t%s -x\nmore", interpreter);
    script(&c, line);
    assert_int_equal(c.kind, STILE__COMMAND_STATIC);
    assert_string_equal(c.file, interpreter);
    snprintf(line, sizeof line, "#!%s", scratch_path("none"));
    script(&c, line);
    assert_int_equal(c.kind, STILE__COMMAND_INCOMPLETE);
    snprintf(line, sizeof line, "#!%s\n", scratch_path("script")); /* itself: the kernel gives up, too */
    script(&c, line);
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    memset(line, 'x', sizeof line - 1);
    memcpy(line, "#!/", 3);
    line[sizeof line - 1] = '\0';
    script(&c, line);
    script(&c, "#!");
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    script(&c, "#! \n/bin/sh");
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
}

static void test_by_path(void **state)
{
    struct image i = sound();
    static struct stile__command c;
    char value[4200], wanted[4200];
    (void)state;
    i.interpreter.p_type = PT_NOTE;
    program("in-path", &i, sizeof i, 0700);
    program("not-executable", &i, sizeof i, 0600);
    const char *before = getenv("PATH");
    char *kept = strdup(before != NULL ? before : "");
    snprintf(value, sizeof value, "/nonexistent:%s", scratch_path("."));
    snprintf(wanted, sizeof wanted, "%s/in-path", scratch_path("."));
    setenv("PATH", value, 1);
    stile__command_look(&c, "in-path");
    assert_int_equal(c.kind, STILE__COMMAND_STATIC);
    assert_string_equal(c.file, wanted);
    stile__command_look(&c, "not-executable");
    assert_string_equal(c.file, "");
    unsetenv("PATH");
    stile__command_look(&c, "sh");
    assert_string_equal(c.file, "/bin/sh");
    setenv("PATH", kept, 1);
    free(kept);
}

static void test_nothing_to_see(void **state)
{
    static struct stile__command c;
    char *name = malloc(3 * PATH_MAX);
    (void)state;
    assert_non_null(name);
    assert_int_equal(kind_of("", 0), STILE__COMMAND_PLAIN);
    assert_int_equal(kind_of("words", 5), STILE__COMMAND_PLAIN);
    assert_int_equal(mkfifo(scratch_path("fifo"), 0700), 0);
    memset(name, 'x', 3 * PATH_MAX - 1);
    name[3 * PATH_MAX - 1] = '\0';
    const char *const commands[] = {scratch_path("fifo"),
                                    scratch_path("missing"),
                                    "/",
                                    "",
                                    "no-such-command-anywhere",
                                    "/dev/null",
                                    name};
    for (size_t k = 0; k < sizeof commands / sizeof *commands; k++) {
        stile__command_look(&c, commands[k]);
        assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    }
    *name = '/';
    stile__command_look(&c, name);
    assert_int_equal(c.kind, STILE__COMMAND_PLAIN);
    free(name);
}

/* Every length of the file, and every number in it at its worst: no fault, no endless loop, and never a wrong word about
 * what can be seen. */
static void test_hostile(void **state)
{
    static const uint64_t worst[] = {
        0, 1, 7, 0xffff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX - 8, UINT64_MAX};
    const struct image good = sound();
    uint64_t random = 1;
    (void)state;
    for (size_t n = 0; n < sizeof good; n++)
        kind_of(&good, n);
    for (size_t at = EI_NIDENT; at + 8 <= offsetof(struct image, strings); at += 4)
        for (size_t k = 0; k < sizeof worst / sizeof *worst; k++) {
            struct image bad = good;
            memcpy((char *)&bad + at, &worst[k], 8);
            KIND(bad);
        }
    for (unsigned k = 0; k < 2000; k++) {
        struct image bad = good;
        for (unsigned c = 0; c <= k % 8; c++)
            fill_random((char *)&bad + next_number(&random) % (sizeof bad - 8), 1 + next_number(&random) % 8,
                        &random);
        KIND(bad);
    }
}

static char *said_of(const char *path, bool *told)
{
    static struct stile__command c;
    stderr_begin();
    *told = stile__command_check(&c, path);
    return stderr_end();
}

static void test_words(void **state)
{
    struct image i = sound();
    bool told;
    (void)state;
    char *said = said_of(program("plain", &i, sizeof i, 0700), &told);
    assert_false(told);
    assert_string_equal(said, "");
    free(said);
    i.interpreter.p_type = PT_NOTE;
    said = said_of(program("alone", &i, sizeof i, 0700), &told);
    assert_true(told);
    assert_non_null(strstr(said, "alone: it is statically linked"));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    free(said);
}

static void environment_of(void *kind)
{
    const struct stile__command c = {.kind = *(enum stile__command_kind *)kind};
    const bool none = c.kind == STILE__COMMAND_32_BIT || c.kind == STILE__COMMAND_FOREIGN ||
                      c.kind == STILE__COMMAND_OTHER_LIBC;
    setenv("LD_PRELOAD", "before", 1);
    setenv("ASAN_OPTIONS", "a=1", 1);
    stile__command_environment(&c, "after");
    CHILD_CHECK(strcmp(getenv("LD_PRELOAD"), none ? "before" : "after") == 0);
    CHILD_CHECK(strcmp(getenv("ASAN_OPTIONS"),
                       c.kind == STILE__COMMAND_ASAN ? "a=1:verify_asan_link_order=0" : "a=1") == 0);
    unsetenv("ASAN_OPTIONS");
    stile__command_environment(&c, "after");
    CHILD_CHECK((getenv("ASAN_OPTIONS") != NULL) == (c.kind == STILE__COMMAND_ASAN));
}

static void test_environment(void **state)
{
    (void)state;
    for (enum stile__command_kind kind = STILE__COMMAND_PLAIN; kind <= STILE__COMMAND_INCOMPLETE; kind++)
        assert_int_equal(in_child(environment_of, &kind), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_sanitized),
        cmocka_unit_test(test_static),         cmocka_unit_test(test_other_machines),
        cmocka_unit_test(test_loaders),        cmocka_unit_test(test_privileged),
        cmocka_unit_test(test_scripts),        cmocka_unit_test(test_by_path),
        cmocka_unit_test(test_nothing_to_see), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_words),          cmocka_unit_test(test_environment),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
