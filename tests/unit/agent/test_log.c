/* agent/log.c: lines go to standard error, and nowhere else. */
#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/agent/log.h"

static void test_line(void **state)
{
    (void)state;
    stderr_begin();
    stile__log_init();
    errno = 1234;
    stile__log("%s %d", "answer", 42);
    int kept = errno;
    char *said = stderr_end();
    assert_string_equal(said, "stile: answer 42\n");
    assert_int_equal(kept, 1234);
    free(said);
}

static void test_long_line_is_one_line(void **state)
{
    char word[3000];
    (void)state;
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    stderr_begin();
    stile__log_init();
    stile__log("%s", word);
    char *said = stderr_end();
    size_t n = strlen(said);
    assert_true(n > 512 && n <= 1024);
    assert_ptr_equal(strchr(said, '\n'), said + n - 1);
    free(said);
}

static void test_not_into_a_file_of_the_program(void **state)
{
    (void)state;
    stderr_begin();
    stile__log_init();
    int fd = open(scratch_path("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    stile__log("must not be there");
    close(STDERR_FILENO);
    errno = 1234;
    stile__log("nor be anywhere");
    int kept = errno;
    char *said = stderr_end();
    char *data = file_text(scratch_path("data"));
    assert_string_equal(said, "");
    assert_string_equal(data, "");
    assert_int_equal(kept, 1234);
    free(said);
    free(data);
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
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_long_line_is_one_line),
        cmocka_unit_test(test_not_into_a_file_of_the_program),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
