/* agent/log.c: lines go to standard error, and nowhere else. */
#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

static uint64_t pending(void)
{
    sigset_t set;
    uint64_t bits = 0;
    CHILD_CHECK(sigpending(&set) == 0);
    for (int signal = 1; signal < 32; signal++)
        bits |= (uint64_t)sigismember(&set, signal) << signal;
    return bits;
}

static void into_a_pipe_without_a_reader(void *unused)
{
    int ends[2];
    (void)unused;
    CHILD_CHECK(pipe2(ends, O_CLOEXEC) == 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    stile__log_init();
    close(ends[0]);
    stile__log("nobody reads this");
    CHILD_CHECK(pending() == 0);
    CHILD_CHECK(write(STDERR_FILENO, "", 1) < 0); /* the program's own, and its own death */
}

static void into_a_file_at_its_limit(void *unused)
{
    const struct rlimit none = {0, 0};
    sigset_t set;
    (void)unused;
    CHILD_CHECK(dup2(open(scratch_path("full"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600), STDERR_FILENO) >= 0);
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    stile__log_init();
    stile__log("there is no room");
    CHILD_CHECK(pending() == 0);
    /* One that the program waits for itself stays. */
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    CHILD_CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHILD_CHECK(write(STDERR_FILENO, "x", 1) < 0 && pending() == 1u << SIGXFSZ);
    stile__log("there is no room");
    CHILD_CHECK(pending() == 1u << SIGXFSZ);
}

/* A line costs the program nothing, whatever its standard error is. */
static void test_signals_of_writing(void **state)
{
    (void)state;
    assert_int_equal(in_child(into_a_pipe_without_a_reader, NULL), SIGPIPE);
    assert_int_equal(in_child(into_a_file_at_its_limit, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_signals_of_writing),
        cmocka_unit_test(test_long_line_is_one_line),
        cmocka_unit_test(test_not_into_a_file_of_the_program),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
