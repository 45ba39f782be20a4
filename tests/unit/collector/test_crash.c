/* collector/crash.c, naming.c and report_text.c: names for a program that crashes, the rest of a report that it could not
 * write, and a report of one that could write nothing. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/crash.h"
#include "profiler/collector/naming.h"
#include "profiler/collector/report_text.h"

static struct hand_made h;
static struct process *p;
static char *file; /* of the crash output */

static int set_up(void **state)
{
    (void)state;
    hand_made_waits_new(&h, 1000, 3600000000000ull);
    p = h.process;
    stile__stack_begin(&h.slot->status);
    atomic_store(&h.region->crash_wanted, 1);
    snprintf(p->crash.path, sizeof p->crash.path, "%s/crash.txt", scratch_make());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    scratch_remove();
    free(file);
    file = NULL;
    return 0;
}

/* From here on the process is one that has ended. */
static void die(void)
{
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    close(p->pidfd);
    p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(p->pidfd >= 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
    assert_true(process_dead(p));
}

/* The report of a program that is this one: what it crashed in has a name that the test knows. */
static size_t report_write(char *to, size_t size)
{
    struct report_text t = {0};
    const uint64_t frames[] = {hand_made_frame(1), 0x10};
    report_text_add(&t, STILE__REPORT_BEGIN "1 (test): SIGSEGV (SEGV_MAPERR) at 0x0\n");
    report_text_thread(&t, 5, "a\nname");
    report_text_add(&t, "crashed:\n");
    report_text_frames(&t, p, frames, 2, STILE__REASON_TRUNCATED);
    report_text_modules(&t, p);
    report_text_add(&t, STILE__REPORT_END);
    assert_true(t.n < size);
    memcpy(to, t.bytes, t.n);
    to[t.n] = '\0';
    size_t n = t.n;
    report_text_free(&t);
    return n;
}

static size_t report_leave(uint32_t state)
{
    char text[65536];
    size_t n = report_write(text, sizeof text);
    memcpy(stile__region_report(h.region, p->size), text, n);
    atomic_store(&h.region->report_len, (uint32_t)n);
    atomic_store(&h.region->crash_state, state);
    return n;
}

static void rounds(bool client)
{
    for (int i = 0; i < 6000; i++) {
        crash_round(p, client);
        if (p->answering == 0 && p->crash.writer == 0)
            return;
        usleep(5000);
    }
    fail_msg("it goes on for half a minute");
}

static const char *answer(void)
{
    static char text[1 << 20];
    uint32_t n = atomic_load(&h.region->answer_len);
    assert_true(n < sizeof text && n <= p->size.report);
    memcpy(text, stile__region_answer(h.region, p->size), n);
    text[n] = '\0';
    return text;
}

static const char *written(void)
{
    free(file);
    file = file_text(p->crash.path);
    return file;
}

static void test_names(void **state)
{
    (void)state;
    report_leave(STILE__CRASH_BEGUN);
    crash_round(p, false);
    assert_true(crash_urgent(p));
    assert_int_equal(p->answering, 0);
    report_leave(STILE__CRASH_WRITTEN);
    crash_round(p, false);
    assert_int_equal(atomic_load(&h.region->answer) & ~STILE__ANSWER_DONE, STILE__ANSWER_CRASH);
    rounds(false);
    assert_int_equal(atomic_load(&h.region->answer), STILE__ANSWER_CRASH | STILE__ANSWER_DONE);
    const char *text = answer();
    assert_memory_equal(text, STILE__REPORT_NAMES "thread 5 \"a?name\" crashed:\n",
                        strlen(STILE__REPORT_NAMES "thread 5 \"a?name\" crashed:\n"));
    assert_non_null(strstr(text, " hand_made_frame at "));
    assert_non_null(strstr(text, "hand_made_waits.c:"));
    assert_non_null(
        strstr(text, "\n  #1 0x10\n  (the stack is not whole: [truncated])\n" STILE__REPORT_NAMED));
    assert_null(written()); /* it is the program's to write */
    atomic_store(&h.region->answer, 0);
    rounds(false);
    assert_int_equal(atomic_load(&h.region->answer), 0); /* once is enough */
    atomic_store(&h.region->crash_state, STILE__CRASH_TOLD);
    assert_false(crash_urgent(p));
}

/* Code that was compiled at run time has its name from where the program's compiler left it. */
static void test_run_time_code(void **state)
{
    static const char map[] = "10 8 compiled just now\n";
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    file_write(path, map, strlen(map));
    report_leave(STILE__CRASH_WRITTEN);
    rounds(false);
    unlink(path);
    assert_non_null(strstr(answer(), "\n  #1 0x10 compiled just now\n"));
}

static void test_names_cut(void **state)
{
    (void)state;
    report_leave(STILE__CRASH_WRITTEN);
    char *first = malloc(p->size.report);
    memset(first, 'x', p->size.report);
    first[p->size.report - 100] = '\0';
    const struct naming what = {.text =
                                    "thread 1 \"x\" crashed:\n  #0 0x10\n  #1 0x11\n  #2 0x12\n  #3 0x13\n",
                                .n = 60,
                                .first = first,
                                .last = STILE__REPORT_NAMED};
    naming_answer(p, &what, STILE__ANSWER_CRASH);
    for (int i = 0; i < 6000 && naming_answering(p); i++)
        usleep(5000);
    uint32_t n = atomic_load(&h.region->answer_len);
    assert_true(n <= p->size.report);
    const char *at = stile__region_answer(h.region, p->size);
    assert_memory_equal(at + n - strlen(STILE__REPORT_NAMED), STILE__REPORT_NAMED,
                        strlen(STILE__REPORT_NAMED));
    assert_non_null(memmem(at, n, "there is no room", 16));
    free(first);
}

/* Whatever kills it: what there is is all. */
static void test_fork_killed(void **state)
{
    (void)state;
    report_leave(STILE__CRASH_WRITTEN);
    crash_round(p, false);
    assert_true(p->answering > 0);
    kill(p->answering, SIGKILL);
    rounds(false);
    assert_int_equal(atomic_load(&h.region->answer), STILE__ANSWER_CRASH | STILE__ANSWER_DONE);
    answer();
}

static void test_hostile(void **state)
{
    uint64_t seed = 3;
    (void)state;
    fill_random(stile__region_report(h.region, p->size), 100000, &seed);
    atomic_store(&h.region->report_len, UINT32_MAX);
    atomic_store(&h.region->report_out, UINT32_MAX);
    atomic_store(&h.region->crash_state, 77);
    rounds(false);
    assert_int_equal(atomic_load(&h.region->answer), 0);
    atomic_store(&h.region->crash_state, STILE__CRASH_WRITTEN);
    rounds(false);
    assert_int_equal(atomic_load(&h.region->answer), STILE__ANSWER_CRASH | STILE__ANSWER_DONE);
    assert_string_equal(answer(), STILE__REPORT_NAMES STILE__REPORT_NAMED);
    process_end(p);
    die();
    rounds(false);
    assert_string_equal(written(),
                        "\nthe program died while it reported: this is all that there is\n" STILE__REPORT_END
                            STILE__REPORT_NAMES STILE__REPORT_NAMED);
}

/* It died after it had written so much, whole or not. */
static void test_rest(void **state)
{
    char text[65536];
    size_t n = report_write(text, sizeof text);
    (void)state;
    file_write(p->crash.path, text, 100);
    report_leave(STILE__CRASH_WRITTEN);
    atomic_store(&h.region->report_out, 100);
    process_end(p);
    die();
    assert_true(crash_pending(p));
    rounds(false);
    assert_false(crash_pending(p));
    assert_memory_equal(written(), text, n);
    assert_memory_equal(file + n, STILE__REPORT_NAMES, strlen(STILE__REPORT_NAMES));
    assert_non_null(strstr(file + n, " hand_made_frame at "));
    assert_non_null(strstr(file + n, STILE__REPORT_NAMED));
}

static void test_rest_of_a_part(void **state)
{
    size_t n = report_leave(STILE__CRASH_BEGUN) / 2;
    struct stat st;
    (void)state;
    atomic_store(&h.region->report_len, (uint32_t)n);
    process_end(p);
    die();
    rounds(false);
    assert_memory_equal(written(), STILE__REPORT_BEGIN, strlen(STILE__REPORT_BEGIN));
    const char *more =
        strstr(file, "\nthe program died while it reported: this is all that there is\n" STILE__REPORT_END
                         STILE__REPORT_NAMES);
    assert_non_null(more);
    assert_int_equal(more - file, n);
    assert_int_equal(stat(p->crash.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* Nothing is written where the program has told all, nor through what somebody has put there. */
static void test_not_written(void **state)
{
    const char *other = scratch_path("other");
    (void)state;
    report_leave(STILE__CRASH_WRITTEN);
    process_end(p);
    die();
    atomic_store(&h.region->crash_state, STILE__CRASH_TOLD);
    rounds(false);
    assert_null(written());
    p->crash.closed = false;
    atomic_store(&h.region->crash_state, STILE__CRASH_WRITTEN);
    file_write(other, "", 0);
    assert_int_equal(symlink(other, p->crash.path), 0);
    rounds(false);
    assert_string_equal(written(), "");
    unlink(p->crash.path);
    p->crash.closed = false;
    assert_int_equal(mkfifo(p->crash.path, 0600), 0);
    int reader = open(p->crash.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    char byte;
    rounds(false);
    assert_true(read(reader, &byte, 1) <= 0);
    close(reader);
    unlink(p->crash.path);
    p->crash.closed = false;
    p->crash.path[0] = '\0';
    rounds(false);
}

/* The command of a `stile record` ended; before that one thread waited, or was sampled. */
static void end_as(int wait_status, bool waits)
{
    const uint64_t frames[] = {hand_made_frame(1), hand_made_frame(2)};
    p->crash.is_command = true;
    if (waits)
        hand_made_wait_begin(&h, STILE__WAIT_POLL, now_mono_ns() - 1500000000);
    else
        hand_made_tick(&h, frames, 2, STILE__REASON_NONE, 1);
    die();
    process_end(p);
    rounds(true);
    assert_true(crash_pending(p)); /* how it ended is said in a moment */
    crash_ended(p, wait_status);
    rounds(true);
    assert_false(crash_pending(p));
}

static void test_own_report(void **state)
{
    (void)state;
    end_as(SIGKILL, true);
    assert_memory_equal(written(), STILE__REPORT_BEGIN, strlen(STILE__REPORT_BEGIN));
    assert_non_null(strstr(file, "): SIGKILL\nreporter: the collector;"));
    assert_non_null(strstr(file, "\nend: killed by signal 9\nthread "));
    assert_non_null(strstr(file, "\" waiting (poll) for 1."));
    const char *names = strstr(file, STILE__REPORT_END STILE__REPORT_NAMES "thread ");
    assert_non_null(names);
    assert_null(strstr(file, "hand_made_frame at ") < names ? file : NULL);
    assert_non_null(strstr(names, "\n  #0 0x"));
    assert_non_null(strstr(names, " hand_made_frame at "));
    assert_non_null(strstr(names, STILE__REPORT_NAMED));
}

static void test_last_sample(void **state)
{
    (void)state;
    end_as(SIGSEGV | 0x80, false);
    assert_non_null(strstr(written(), "): SIGSEGV\n"));
    assert_non_null(strstr(file, "\nend: killed by signal 11, core dumped\n"));
    assert_non_null(strstr(file, "; this is when it was last sampled:\n  #0 0x"));
    assert_non_null(strstr(file, " hand_made_frame at "));
}

static void test_ends_that_are_none(void **state)
{
    (void)state;
    end_as(0, true);
    assert_null(written());
    p->crash.closed = false;
    crash_ended(p, SIGTERM);
    rounds(true);
    assert_null(written());
}

static void test_client_gone(void **state)
{
    (void)state;
    p->crash.is_command = true;
    die();
    process_end(p);
    rounds(false);
    assert_false(crash_pending(p));
    assert_null(written());
}

/* Only what a client has started is its command. */
static void test_begin(void **state)
{
    static const char *texts[STILE__HELLO_TEXTS];
    struct hello_text hello;
    pid_t parent = getppid(), others[] = {1 << 21, 1 << 22};
    (void)state;
    for (int i = 0; i < STILE__HELLO_TEXTS; i++)
        texts[i] = "";
    memcpy(hello.text, texts, sizeof texts);
    hello.text[STILE__HELLO_CWD] = "/some/where";
    hello.text[STILE__HELLO_CRASH_PATH] = "a/b";
    crash_begin(p, &hello, others, 2);
    assert_false(p->crash.is_command);
    assert_string_equal(p->crash.path, "/some/where/a/b");
    hello.text[STILE__HELLO_CRASH_PATH] = "/a/b";
    crash_begin(p, &hello, &parent, 1);
    assert_true(p->crash.is_command);
    assert_string_equal(p->crash.path, "/a/b");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_names),      TEST(test_names_cut),   TEST(test_run_time_code),      TEST(test_fork_killed),
        TEST(test_hostile),    TEST(test_rest),        TEST(test_rest_of_a_part),     TEST(test_not_written),
        TEST(test_own_report), TEST(test_last_sample), TEST(test_ends_that_are_none), TEST(test_client_gone),
        TEST(test_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
