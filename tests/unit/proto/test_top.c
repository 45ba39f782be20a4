/* cli/top.c and proto/node_table.c: sums, sorting, arguments, and the same numbers as `go tool pprof`. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/top.h"
#include "proto/node_table.h"

#define PROFILE STILE_SCRATCH "/top.pb.gz"

static int status; /* of the last top() */
static char *out, *errors;

/* Runs `stile top` with stdout and stderr caught. */
static void run(int argc, char **argv, const char *stdout_path)
{
    int saved[2] = {dup(1), dup(2)};
    int fds[2] = {stdout_path ? open(stdout_path, O_WRONLY | O_CLOEXEC) : memory_file("", 0),
                  memory_file("", 0)};
    char **texts[2] = {&out, &errors};

    fflush(NULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(dup2(fds[i], i + 1), i + 1);
    status = stile__cmd_top(argc, argv);
    fflush(NULL);
    clearerr(stdout);
    for (int i = 0; i < 2; i++) {
        struct bytes b = {0};

        assert_int_equal(dup2(saved[i], i + 1), i + 1);
        close(saved[i]);
        if (i == 1 || !stdout_path)
            b = fd_load(fds[i]);
        free(*texts[i]);
        *texts[i] = b.data ? (char *)b.data : calloc(1, 1);
        (*texts[i])[b.size] = '\0';
        close(fds[i]);
    }
}

#define TOP(...)                                                                                             \
    do {                                                                                                     \
        char *args[] = {"top", __VA_ARGS__, NULL};                                                           \
        run((int)(sizeof(args) / sizeof(args[0])) - 1, args, NULL);                                          \
    } while (0)

static int store_profile(void **state)
{
    struct stile__builder *b = sample_profile();

    (void)state;
    profile_store(b, PROFILE);
    stile__builder_free(b);
    return 0;
}

static void test_functions(void **state)
{
    (void)state;
    TOP(PROFILE);
    assert_int_equal(status, 0);
    assert_string_equal(errors, "");
    assert_non_null(strstr(out, "File: app\nBuild ID: abcd\nType: cpu\n"));
    assert_non_null(strstr(out, "Duration: 2s, Total samples = 150ms (7.50%)\n"
                                "Showing nodes accounting for 150ms, 100% of 150ms total\n"
                                "      flat  flat%   sum%        cum   cum%   samples\n"
                                "      50ms 33.33% 33.33%      150ms   100%         5  main\n"
                                "      40ms 26.67% 60.00%       40ms 26.67%         4  [app]\n"
                                "      40ms 26.67% 86.67%       40ms 26.67%         4  leaf\n"
                                "      20ms 13.33%   100%       60ms 40.00%         2  work\n"));
}

static void test_lines(void **state)
{
    (void)state;
    TOP("--lines", PROFILE);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out,
                           "      50ms 33.33% 33.33%      150ms   100%         5  main /src/app.c:12\n"
                           "      40ms 26.67% 60.00%       40ms 26.67%         4  app+0x4000\n"
                           "      40ms 26.67% 86.67%       40ms 26.67%         4  leaf /src/leaf.h:2\n"
                           "      20ms 13.33%   100%       50ms 33.33%         2  work /src/app.c:25\n"
                           "         0     0%   100%       40ms 26.67%         0  work /src/app.c:22\n"));
}

static void test_cum_and_limit(void **state)
{
    (void)state;
    TOP("--cum", "-n", "2", PROFILE);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out, "Showing nodes accounting for 70ms, 46.67% of 150ms total\n"
                                "Showing top 2 nodes out of 4\n"
                                "      flat  flat%   sum%        cum   cum%   samples\n"
                                "      50ms 33.33% 33.33%      150ms   100%         5  main\n"
                                "      20ms 13.33% 46.67%       60ms 40.00%         2  work\n"));
    assert_null(strstr(out, "leaf"));
}

static void test_sample_type(void **state)
{
    (void)state;
    TOP("--sample-type", "samples", PROFILE);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out, "Type: samples\n"));
    assert_non_null(strstr(out, "         5 33.33% 33.33%         15   100%  main\n"));
    TOP("--sample-type=heap", PROFILE);
    assert_int_equal(status, 2);
    assert_string_equal(errors, "stile top: " PROFILE " has no sample type 'heap', only samples, cpu\n");
}

static void test_arguments(void **state)
{
    static const struct {
        const char *argument, *error;
    } cases[] = {
        {"--wat", "stile top: unknown option '--wat'; see 'stile top --help'\n"},
        {"-n", "stile top: -n needs a value; see 'stile top --help'\n"},
        {"-nx", "stile top: -n takes a number, not 'x'\n"},
        {"-n-1", "stile top: -n takes a number, not '-1'\n"},
        {"--sample-type", "stile top: --sample-type needs a value; see 'stile top --help'\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        TOP((char *)cases[i].argument);
        assert_int_equal(status, 2);
        assert_string_equal(errors, cases[i].error);
        assert_string_equal(out, "");
    }
    run(1, (char *[]){"top", NULL}, NULL);
    assert_int_equal(status, 2);
    assert_string_equal(errors, "stile top: no profile given; see 'stile top --help'\n");
    TOP("a", "b");
    assert_int_equal(status, 2);
    TOP("--help");
    assert_int_equal(status, 0);
    assert_string_equal(errors, "");
    assert_memory_equal(out, "Usage: stile top ", 17);
}

static void test_bad_files(void **state)
{
    (void)state;
    TOP("/nonexistent");
    assert_int_equal(status, 2);
    assert_string_equal(errors, "stile top: /nonexistent: No such file or directory\n");
    assert_string_equal(out, "");
}

static void test_output_errors(void **state)
{
    int ends[2];
    char path[64];

    (void)state;
    run(2, (char *[]){"top", PROFILE, NULL}, "/dev/full");
    assert_int_equal(status, 1);
    assert_string_equal(errors, "stile top: cannot write: No space left on device\n");
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[1]);
    int writer = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(writer >= 0);
    close(ends[0]); /* the reader goes away */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", writer);
    {
        int saved = dup(1), saved_errors = dup(2), sink = memory_file("", 0);

        fflush(NULL);
        dup2(writer, 1);
        dup2(sink, 2);
        status = stile__cmd_top(2, (char *[]){"top", PROFILE, NULL});
        clearerr(stdout);
        dup2(saved, 1);
        dup2(saved_errors, 2);
        assert_int_equal(lseek(sink, 0, SEEK_END), 0); /* and nothing is said about it */
        close(saved);
        close(saved_errors);
        close(sink);
    }
    assert_int_equal(status, 0);
    close(writer);
    close(ends[1]);
}

#ifdef STILE_GO
/* Both tables without the samples column, headers and marks of inlining, line by line. */
static void compare_with_go(const char *options, char *ours)
{
    char command[2048];
    char *go, *row_go, *row_ours, *save_go, *save_ours;
    int rows = 0;

    snprintf(
        command, sizeof(command),
        STILE_GO
        " tool pprof -top -symbolize=none -nodecount=0 -nodefraction=0 %s " PROFILE
        " 2>/dev/null | sed 's/ (partial-inline)$//; s/ (inline)$//' | sed -n '/^ *flat /,$p' | tail -n +2",
        options);
    go = command_output(command);
    ours = strstr(ours, "samples\n");
    assert_non_null(ours);
    row_ours = strtok_r(ours + strlen("samples\n"), "\n", &save_ours);
    for (row_go = strtok_r(go, "\n", &save_go); row_go; row_go = strtok_r(NULL, "\n", &save_go), rows++) {
        char without[1024];

        assert_non_null(row_ours);
        snprintf(without, sizeof(without), "%.42s%s", row_ours, row_ours + 52);
        assert_string_equal(without, row_go);
        row_ours = strtok_r(NULL, "\n", &save_ours);
    }
    assert_null(row_ours);
    assert_true(rows >= 4);
    free(go);
}

/* A profile of many shapes: deep, recursive, inlined, with functions of the same name in several files. */
static void store_random_profile(void)
{
    struct stile__builder *b = stile__builder_new();
    uint64_t random = 5, ids[64], mapping;
    const struct stile__builder_mapping app = {.start = 0x1000, .limit = 0x100000, .filename = "/bin/app"};

    assert_int_equal(stile__builder_sample_type_add(b, "samples", "count"), 0);
    assert_int_equal(stile__builder_sample_type_add(b, "cpu", "nanoseconds"), 0);
    assert_int_equal(stile__builder_mapping_add(b, &app, &mapping), 0);
    for (uint64_t i = 0; i < 64; i++) {
        struct stile__builder_line lines[3];
        char names[3][16], files[3][16];
        size_t n = next_number(&random) % 4;

        for (size_t k = 0; k < n; k++) {
            snprintf(names[k], sizeof(names[k]), "f%u", next_number(&random) % 25);
            snprintf(files[k], sizeof(files[k]), "/d/%u.c", next_number(&random) % 3);
            lines[k] =
                (struct stile__builder_line){names[k], names[k], files[k], 1, next_number(&random) % 5 + 1};
        }
        assert_int_equal(stile__builder_location_add(b, i % 5 ? mapping : 0, 0x2000 + i, lines, n, &ids[i]),
                         0);
    }
    /* Never seen, and seen without value: neither has a row. */
    assert_int_equal(
        stile__builder_location_add(b, 0, 0, &(struct stile__builder_line){.name = "never"}, 1, &ids[0]), 0);
    assert_int_equal(
        stile__builder_location_add(b, 0, 0, &(struct stile__builder_line){.name = "zero"}, 1, &ids[0]), 0);
    assert_int_equal(stile__builder_sample_add(b, ids, 1, (int64_t[]){0, 0}, NULL, 0), 0);
    for (int i = 0; i < 3000; i++) {
        uint64_t stack[20];
        size_t depth = 1 + next_number(&random) % 20;
        int64_t count = next_number(&random) % 4;

        for (size_t k = 0; k < depth; k++)
            stack[k] = ids[next_number(&random) % 64];
        assert_int_equal(
            stile__builder_sample_add(b, stack, depth, (int64_t[]){count, count * 1000003}, NULL, 0), 0);
    }
    profile_store(b, PROFILE);
    stile__builder_free(b);
}

static void test_same_as_go(void **state)
{
    (void)state;
    TOP("-n", "0", PROFILE);
    compare_with_go("", out);
    TOP("-n", "0", "--cum", PROFILE);
    compare_with_go("-cum", out);
    store_random_profile();
    TOP("-n", "0", PROFILE);
    compare_with_go("", out);
    TOP("-n", "0", "--cum", PROFILE);
    compare_with_go("-cum", out);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),     cmocka_unit_test(test_lines),
        cmocka_unit_test(test_cum_and_limit), cmocka_unit_test(test_sample_type),
        cmocka_unit_test(test_arguments),     cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_output_errors),
#ifdef STILE_GO
        cmocka_unit_test(test_same_as_go),
#endif
    };

    return cmocka_run_group_tests(tests, store_profile, NULL);
}
