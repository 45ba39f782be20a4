/* agent/target.c: names that are made of other names, and where a file cannot be. */
#include "tests/unit/support.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/target.h"

static void expands(const char *path, const char *expected)
{
    char out[256];
    assert_int_equal(stile__target_expand(path, out, sizeof out), 0);
    assert_string_equal(out, expected);
}

static void test_expand(void **state)
{
    char pid[32], both[128], out[64];

    (void)state;
    snprintf(pid, sizeof pid, "%d", getpid());
    expands("x.pb", "x.pb");
    expands("", "");
    expands("%p", pid);
    expands("%e", program_invocation_short_name);
    expands("100%%.pb", "100%.pb");
    expands("%x%", "%x%");
    expands("%%p", "%p");
    snprintf(both, sizeof both, "a%sb%s.%s", pid, pid, program_invocation_short_name);
    expands("a%pb%p.%e", both);

    long long before = (long long)time(NULL);
    assert_int_equal(stile__target_expand("%t", out, sizeof out), 0);
    char *end;
    long long seconds = strtoll(out, &end, 10);
    assert_int_equal(*end, '\0');
    assert_true(seconds >= before && seconds <= (long long)time(NULL));
}

static void test_expand_too_long(void **state)
{
    char out[5] = "????";
    (void)state;
    assert_int_equal(stile__target_expand("abcd", out, sizeof out), 0);
    assert_string_equal(out, "abcd");
    assert_int_equal(stile__target_expand("abcde", out, sizeof out), -ENAMETOOLONG);
    assert_int_equal(stile__target_expand("%e", out, sizeof out), -ENAMETOOLONG);
    assert_int_equal(stile__target_expand("abc%p", out, 4), -ENAMETOOLONG);
}

static void test_good_targets(void **state)
{
    (void)state;
    file_write(scratch_path("old.pb"), "old", 3);
    assert_int_equal(stile__target_check(scratch_path("old.pb")), 0);
    assert_int_equal(stile__target_check(scratch_path("new.pb")), 0);
    assert_int_equal(chdir(scratch_path(".")), 0);
    assert_int_equal(stile__target_check("new.pb"), 0);
    assert_int_equal(access("new.pb", F_OK), -1); /* a look leaves nothing behind */
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    file_write(scratch_path("file.pb"), "", 0);
    assert_int_equal(mkdir(scratch_path("dir.pb"), 0700), 0);
    assert_int_equal(stile__target_check(scratch_path("dir.pb")), -EISDIR);
    assert_int_equal(symlink("file.pb", scratch_path("link.pb")), 0);
    assert_int_equal(stile__target_check(scratch_path("link.pb")), -ELOOP);
    assert_int_equal(symlink("nowhere", scratch_path("dangling.pb")), 0);
    assert_int_equal(stile__target_check(scratch_path("dangling.pb")), -ELOOP);
    assert_int_equal(mkfifo(scratch_path("fifo.pb"), 0600), 0);
    assert_int_equal(stile__target_check(scratch_path("fifo.pb")), -EINVAL);
    assert_int_equal(stile__target_check("/dev/null"), -EINVAL);
}

static void test_where_no_file_can_be(void **state)
{
    static char name[PATH_MAX + 16];
    (void)state;
    assert_int_equal(stile__target_check(scratch_path("missing/x.pb")), -ENOENT);
    file_write(scratch_path("plain"), "", 0);
    assert_int_equal(stile__target_check(scratch_path("plain/x.pb")), -ENOTDIR);
    memset(name, 'a', sizeof name - 1);
    assert_int_equal(stile__target_check(name), -ENAMETOOLONG);
}

/* Relative to the directory itself, so that no permission above it matters. */
static void as_nobody(void *unused)
{
    (void)unused;
    CHILD_CHECK(chdir(scratch_path("closed")) == 0);
    if (geteuid() == 0)
        CHILD_CHECK(setresuid(65534, 65534, 65534) == 0);
    CHILD_CHECK(stile__target_check("x.pb") == -EACCES);
}

static void test_unwritable_directory(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path("closed"), 0700), 0);
    assert_int_equal(chmod(scratch_path("closed"), 0555), 0);
    assert_int_equal(in_child(as_nobody, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_expand_too_long),
        cmocka_unit_test_setup_teardown(test_good_targets, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_file, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_where_no_file_can_be, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_unwritable_directory, scratch_set_up, scratch_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
