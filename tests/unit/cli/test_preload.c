/* cli/preload.c: the value of LD_PRELOAD. */
#include "tests/unit/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/preload.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
