/* std::terminate, in programs of their own: what is noted, and that the program's handlers are as they were. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/support.h"

static char said[8192], complained[8192];

static void read_all(int fd, char *to, size_t n)
{
    size_t have = 0;
    ssize_t r;
    while (have < n - 1 && (r = read(fd, to + have, n - 1 - have)) > 0)
        have += (size_t)r;
    to[have] = '\0';
    close(fd);
}

/* Runs it with the probe loaded; returns its wait status. */
static int run(char *const *argv, const char *variable)
{
    int out[2], err[2], status;
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        dup2(out[1], 1);
        dup2(err[1], 2);
        setenv("LD_PRELOAD", getenv("STILE_TEST_PROBE"), 1);
        if (variable != NULL)
            setenv(variable, "1", 1);
        alarm(60);
        execv(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    read_all(out[0], said, sizeof said);
    read_all(err[0], complained, sizeof complained);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int run_case(const char *name, const char *variable)
{
    char *argv[] = {(char *)(uintptr_t)test_setting("STILE_TEST_CASES"), (char *)(uintptr_t)name, NULL};
    return run(argv, variable);
}

/* The case aborts, and this is what it says on standard output; the runtime's own message is there, too. */
static void aborts(const char *name, const char *variable, const char *says, const char *complains)
{
    int status = run_case(name, variable);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("%s: status %x: %s%s", name, (unsigned)status, said, complained);
    if (strcmp(said, says) != 0 || strstr(complained, complains) == NULL)
        fail_msg("%s: it says %s and %s", name, said, complained);
}

static void test_types(void **state)
{
    (void)state;
    aborts("runtime_error", NULL, "note 2 <St13runtime_error> <plain>\n", "terminate called after throwing");
    aborts("second", NULL, "note 2 <N12_GLOBAL__N_16secondE> <not at the beginning>\n",
           "not at the beginning");
    aborts("virtual_base", NULL, "note 2 <N12_GLOBAL__N_112virtual_baseE> <through a virtual base>\n",
           "through");
    aborts("ambiguous", NULL, "note 2 <N12_GLOBAL__N_19ambiguousE> <>\n", "ambiguous");
    aborts("hidden", NULL, "note 2 <N12_GLOBAL__N_16hiddenE> <>\n", "hidden");
    aborts("int", NULL, "note 2 <i> <>\n", "'int'");
    aborts("string", NULL, "note 2 <PKc> <>\n", "char const*");
    aborts("pointer", NULL, "note 2 <PSt13runtime_error> <>\n", "runtime_error*");
}

static void test_ways(void **state)
{
    (void)state;
    aborts("rethrown", NULL, "note 2 <St12out_of_range> <once more>\n", "once more");
    aborts("pointer_rethrown", NULL, "note 2 <N12_GLOBAL__N_16secondE> <not at the beginning>\n", "not at");
    aborts("noexcept", NULL, "note 2 <St11logic_error> <from a destructor>\n", "from a destructor");
    aborts("thread", NULL, "note 2 <St11range_error> <in a thread>\n", "in a thread");
    aborts("foreign", NULL, "note 1 <> <>\n", "terminate called");
    aborts("foreign_thrown", NULL, "own handler\nnote 1 <> <>\n", "");
    aborts("joinable", NULL, "note 1 <> <>\n", "without an active exception");
    aborts("none", NULL, "note 1 <> <>\n", "without an active exception");
}

static void test_bounded(void **state)
{
    (void)state;
    static const char begin[] = "note 2 <N12_GLOBAL__N_19long_textE> <x";
    assert_true(WIFSIGNALED(run_case("long_text", NULL)));
    assert_memory_equal(said, begin, sizeof begin - 1);
    assert_int_equal(strlen(said), sizeof begin - 1 + 1022 + 2);
}

static void test_bad_what(void **state)
{
    (void)state;
    aborts("crashing", NULL, "note 1 <N12_GLOBAL__N_18crashingE> <>\n", "");
    aborts("nested", NULL, "note 1 <N12_GLOBAL__N_16nestedE> <>\n", "terminate called");
}

static void test_own_handlers(void **state)
{
    (void)state;
    aborts("own", NULL, "own handler\nnote 2 <St13runtime_error> <for its own>\n", "");
    assert_string_equal(complained, "");
    aborts("int", "SET_BEFORE", "own handler\nnote 2 <i> <>\n", "");
    aborts("throwing_handler", NULL, "throwing handler\nnote 2 <St13runtime_error> <first>\n", "");
    assert_int_equal(run_case("caught", NULL), 0);
    assert_string_equal(said, "all caught\n");
}

static void test_plugin(void **state)
{
    (void)state;
    char *argv[] = {(char *)(uintptr_t)test_setting("STILE_TEST_LOADS"),
                    (char *)(uintptr_t)test_setting("STILE_TEST_PLUGIN"), "second", NULL};
    int status = run(argv, NULL);
    assert_string_equal(said, "note 2 <N12_GLOBAL__N_16secondE> <not at the beginning>\n");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    argv[2] = "own";
    status = run(argv, NULL);
    assert_string_equal(said, "own handler\nnote 2 <St13runtime_error> <for its own>\n");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),        cmocka_unit_test(test_ways),   cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_own_handlers), cmocka_unit_test(test_plugin), cmocka_unit_test(test_bad_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
