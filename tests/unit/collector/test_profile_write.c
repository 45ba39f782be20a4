/* collector/profile_write.c: a whole file or none, and never anybody else's. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/look_up.h"
#include "profiler/collector/profile_write.h"
#include "proto/reader.h"

static struct hand_made h;
static char names_path[64]; /* of the names of code compiled at run time; "" unless a test makes it */

int a_name_to_find(int x);
__attribute__((noinline, visibility("default"))) int a_name_to_find(int x)
{
    return printf("%d", x) + 1;
}

static int set_up(void **state)
{
    uint64_t frames[] = {(uintptr_t)&a_name_to_find + 4, (uintptr_t)&set_up + 1, 0x1234};
    (void)state;
    scratch_make();
    hand_made_new(&h);
    snprintf(h.process->command, sizeof h.process->command, "./app --fast");
    hand_made_tick(&h, frames, 3, STILE__REASON_NONE, 3);
    hand_made_tick(&h, frames, 1, STILE__REASON_TRUNCATED, 2);
    process_drain(h.process);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    unlink(names_path);
    names_path[0] = '\0';
    scratch_remove();
    return 0;
}

/* Files in the scratch directory: what is aside while it is written must not stay. */
static unsigned files(void)
{
    unsigned n = 0;
    DIR *d = opendir(scratch_path("."));
    struct dirent *e;
    while ((e = readdir(d)) != NULL)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static const char *name_at(const struct stile__profile *p, const Perftools__Profiles__Sample *s, size_t i)
{
    const Perftools__Profiles__Location *l =
        p->pb->location[stile__profile_location_index(p, s->location_id[i])];
    return l->n_line == 0
               ? ""
               : stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
}

static bool has_comment(const struct stile__profile *p, const char *text)
{
    for (size_t i = 0; i < p->pb->n_comment; i++)
        if (strstr(stile__profile_string(p, p->pb->comment[i]), text) != NULL)
            return true;
    return false;
}

static void content_check(const char *path, bool named)
{
    struct stile__profile *p;
    char err[512], self[4096] = "";

    if (stile__profile_read(path, &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    assert_int_equal(p->pb->n_sample_type, 2);
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[1]->type), "cpu");
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[1]->unit), "nanoseconds");
    assert_int_equal(p->pb->period, 10000000);
    assert_int_equal(p->pb->time_nanos, 1700000000000000000);
    assert_non_null(realpath("/proc/self/exe", self));
    assert_string_equal(stile__profile_string(p, p->pb->mapping[0]->filename), self);
    assert_int_equal(p->pb->n_sample, 2);
    const Perftools__Profiles__Sample *s = p->pb->sample[0];
    assert_int_equal(s->value[0], 3);
    assert_int_equal(s->value[1], 30000000);
    assert_int_equal(s->n_location_id, 3);
    if (named)
        assert_string_equal(name_at(p, s, 0), "a_name_to_find");
    else
        assert_non_null(strstr(name_at(p, s, 0), "unit_collector_profile_write+0x"));
    assert_string_equal(name_at(p, s, 2), "0x1234");
    s = p->pb->sample[1];
    assert_int_equal(s->value[0], 2);
    assert_string_equal(name_at(p, s, s->n_location_id - 1), "[truncated]");
    assert_true(has_comment(p, "command: ./app --fast"));
    assert_true(has_comment(p, "[truncated] 2 ticks, 0.020 s"));
    assert_int_equal(has_comment(p, "names: left out"), !named);
    stile__profile_free(p);
}

static void test_a_file(void **state)
{
    struct stat st;
    unsigned descriptors = count_descriptors();
    (void)state;
    assert_int_equal(profile_write(h.process, scratch_path("x.pb.gz"), true), 0);
    content_check(scratch_path("x.pb.gz"), true);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    content_check(scratch_path("x.pb"), false);
    char *gzip = file_text(scratch_path("x.pb.gz")), *plain = file_text(scratch_path("x.pb"));
    assert_memory_equal(gzip, "\x1f\x8b", 2);
    assert_memory_not_equal(plain, "\x1f\x8b", 2);
    free(gzip);
    free(plain);
    assert_int_equal(files(), 2);
    assert_int_equal(stat(scratch_path("x.pb"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(count_descriptors(), descriptors);
}

/* The kernel gives a thread's id to a later one: what is the same of both is one sample, of another stack or name it is not. */
static void test_id_used_again(void **state)
{
    struct stile__profile *p;
    char err[512];
    uint64_t frames[] = {(uintptr_t)&a_name_to_find + 4, (uintptr_t)&set_up + 1, 0x1234};
    (void)state;
    atomic_store(&h.slot->generation, 2);
    hand_made_tick(&h, frames, 3, STILE__REASON_NONE, 4);
    hand_made_tick(&h, frames, 2, STILE__REASON_NONE, 5);
    process_drain(h.process);
    atomic_store(&h.slot->generation, 3);
    hand_made_tick(&h, frames, 3, STILE__REASON_NONE, 6);
    process_drain(h.process);
    assert_int_equal(h.process->n_threads, 3);
    snprintf(h.process->threads[2].comm, sizeof h.process->threads[2].comm, "another");
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_int_equal(p->pb->n_sample, 4);
    int64_t ticks[] = {3 + 4, 2, 5, 6};
    for (size_t i = 0; i < 4; i++) {
        size_t k = 0;
        while (k < 4 && p->pb->sample[k]->value[0] != ticks[i])
            k++;
        assert_true(k < 4);
        assert_int_equal(p->pb->sample[k]->value[1], ticks[i] * 10000000);
    }
    stile__profile_free(p);
}

static void test_replaces_a_file(void **state)
{
    (void)state;
    file_write(scratch_path("x.pb"), "old", 3);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    content_check(scratch_path("x.pb"), false);
    assert_int_equal(files(), 1);
}

static void test_planted_links(void **state)
{
    (void)state;
    file_write(scratch_path("victim"), "precious", 8);
    assert_int_equal(symlink("victim", scratch_path("x.pb")), 0);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), -ELOOP);
    char *text = file_text(scratch_path("victim"));
    assert_string_equal(text, "precious");
    free(text);
    assert_int_equal(symlink("not-there", scratch_path("y.pb")), 0);
    assert_int_equal(profile_write(h.process, scratch_path("y.pb"), false), -ELOOP);
    assert_int_equal(mkfifo(scratch_path("z.pb"), 0600), 0);
    assert_int_equal(profile_write(h.process, scratch_path("z.pb"), false), -EINVAL);
    assert_int_equal(files(), 4);
}

static void test_where_no_file_can_be(void **state)
{
    (void)state;
    assert_int_equal(profile_write(h.process, scratch_path("missing/x.pb"), false), -ENOENT);
    assert_int_equal(mkdir(scratch_path("d.pb"), 0700), 0);
    assert_true(profile_write(h.process, scratch_path("d.pb"), false) < 0);
    assert_int_equal(files(), 1);
}

/* The file of that process, whose names had no time. */
static void late_check(const char *path, bool *named)
{
    struct stile__profile *p;
    char err[512];
    CHILD_CHECK(stile__profile_read(path, &p, err, sizeof err) == 0);
    CHILD_CHECK(p->pb->n_sample == 2);
    CHILD_CHECK(
        has_comment(p, "names: time was up; lines and inlined functions are left out for 2 of 2 places"));
    const Perftools__Profiles__Sample *s = p->pb->sample[0];
    *named = strcmp(name_at(p, s, 0), "a_name_to_find") == 0;
    CHILD_CHECK(*named || strstr(name_at(p, s, 0), "unit_collector_profile_write+0x") != NULL);
    for (size_t i = 0; i < p->pb->n_location; i++)
        CHILD_CHECK(p->pb->location[i]->n_line == 1 && p->pb->location[i]->line[0]->line == 0);
    CHILD_CHECK(!p->pb->mapping[0]->has_line_numbers);
    stile__profile_free(p);
}

/* Files that come later get names, which take little, but no lines. */
static void without_time(void *unused)
{
    bool named = false;
    (void)unused;
    look_up_until(1);
    for (int i = 1; i < 100 && !(named && i > 2); i++) {
        CHILD_CHECK(profile_write(h.process, scratch_path("x.pb"), true) == 0);
        CHILD_CHECK(look_up_lines_late() == 2 * (uint32_t)i);
        late_check(scratch_path("x.pb"), &named);
    }
    CHILD_CHECK(named);
}

static void test_names_without_time(void **state)
{
    (void)state;
    assert_int_equal(in_child(without_time, NULL), 0);
}

static void ample_time(void *unused)
{
    (void)unused;
    look_up_until(now_mono_ns() + 600000000000u);
    CHILD_CHECK(profile_write(h.process, scratch_path("x.pb"), true) == 0);
    CHILD_CHECK(look_up_lines_late() == 0);
}

static void test_names_in_time(void **state)
{
    (void)state;
    assert_int_equal(in_child(ample_time, NULL), 0);
    content_check(scratch_path("x.pb"), true);
}

/* Where no thread is to be had. */
static void without_threads(void *us)
{
    const struct rlimit none = {0, 0};
    const bool ample = *(uint64_t *)us > 1000000;
    CHILD_CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
    CHILD_CHECK(geteuid() != 0 || setresuid(65534, 65534, 65534) == 0);
    CHILD_CHECK(fork() == -1);
    look_up_until(now_mono_ns() + *(uint64_t *)us * 1000);
    struct look_up *l = look_up_new(&h.process->mappings, &h.process->tree);
    CHILD_CHECK(l != NULL);
    struct look_up_late late = look_up_late_of(l);
    CHILD_CHECK(late.places == 2 && late.nameless == 0);
    CHILD_CHECK(late.lines == (ample ? 0 : 2));
    look_up_free(l);
}

/* Names in any case, and lines as far as there is time: to open a file takes longer than the second one allows. */
static void test_names_without_threads(void **state)
{
    uint64_t ample = 600000000, little = 20;
    (void)state;
    assert_int_equal(in_child(without_threads, &ample), 0);
    assert_int_equal(in_child(without_threads, &little), 0);
}

static void file_too_large(void *unused)
{
    struct rlimit limit = {100, RLIM_INFINITY};
    (void)unused;
    signal(SIGXFSZ, SIG_IGN);
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD_CHECK(profile_write(h.process, scratch_path("x.pb"), false) == -EFBIG);
}

static void test_too_little_room(void **state)
{
    (void)state;
    file_write(scratch_path("x.pb"), "old", 3);
    assert_int_equal(in_child(file_too_large, NULL), 0);
    char *text = file_text(scratch_path("x.pb"));
    assert_string_equal(text, "old"); /* the earlier file stands */
    free(text);
    assert_int_equal(files(), 1);
}

static void disk_full(void *unused)
{
    char filler[4096];
    (void)unused;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("stile", scratch_path("."), "tmpfs", 0, "size=16k") != 0)
        _exit(77); /* not permitted here */
    memset(filler, 'x', sizeof filler);
    FILE *f = fopen(scratch_path("filler"), "we");
    CHILD_CHECK(f != NULL);
    while (fwrite(filler, 1, sizeof filler, f) == sizeof filler && fflush(f) == 0)
        ;
    fclose(f);
    CHILD_CHECK(profile_write(h.process, scratch_path("x.pb"), false) == -ENOSPC);
    CHILD_CHECK(access(scratch_path("x.pb"), F_OK) != 0);
    CHILD_CHECK(files() == 1);
}

static void test_disk_full(void **state)
{
    (void)state;
    int status = in_child(disk_full, NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

/* --- Names of code that was compiled at run time */

struct run_time_code {
    char *anonymous, *memfd; /* a page of code each */
    uint64_t unnamed;        /* an address in our own file that no symbol has: behind all code */
};

static void run_time_code_make(struct run_time_code *c)
{
    int fd = memfd_create("code", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4096), 0);
    c->anonymous = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    c->memfd = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    assert_true(c->anonymous != MAP_FAILED && c->memfd != MAP_FAILED);
    close(fd);
    uint32_t own = mappings_find(&h.process->mappings, (uintptr_t)&a_name_to_find);
    c->unnamed = h.process->mappings.all[own].end - 8;
    snprintf(names_path, sizeof names_path, "/tmp/perf-%d.map", (int)getpid());
}

/* A stack of all kinds of code: two places in one function, memory with a name, a file's, and what is nowhere. */
static void run_time_code_tick(const struct run_time_code *c, uint64_t into)
{
    uint64_t frames[] = {(uintptr_t)c->anonymous + 0x10 + into, (uintptr_t)c->memfd + into,
                         (uintptr_t)&a_name_to_find + 4, c->unnamed, 0x1234};
    hand_made_tick(&h, frames, 5, STILE__REASON_NONE, 1);
}

static void run_time_code_check(const struct run_time_code *c, bool named)
{
    struct stile__profile *p;
    char err[512], memfd[64];
    int32_t functions[2];
    unsigned found = 0;

    if (stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        if (s->n_location_id != 5)
            continue;
        const Perftools__Profiles__Location *l =
            p->pb->location[stile__profile_location_index(p, s->location_id[0])];
        functions[found++] = (int32_t)l->line[0]->function_id;
        const Perftools__Profiles__Mapping *m = p->pb->mapping[l->mapping_id - 1];
        assert_string_equal(stile__profile_string(p, m->filename), "[anon]");
        assert_int_equal(m->memory_start, (uintptr_t)c->anonymous);
        assert_int_equal(m->has_functions, named);
        assert_false(m->has_filenames || m->has_line_numbers || m->has_inline_frames);
        snprintf(memfd, sizeof memfd, "memfd:code+0x%x", found == 1 ? 0 : 8);
        assert_string_equal(name_at(p, s, 1), named ? "in memory of a name" : memfd);
        assert_non_null(strstr(name_at(p, s, 3), "unit_collector_profile_write+0x"));
        assert_string_equal(name_at(p, s, 4), named ? "nowhere" : "0x1234");
        if (named) {
            assert_string_equal(name_at(p, s, 0), "JS:*hot /x.js:1:2");
            assert_string_equal(name_at(p, s, 2), "a_name_to_find"); /* its file knows better */
        }
    }
    assert_int_equal(found, 2);
    assert_int_equal(functions[0] == functions[1], named);
    assert_int_equal(has_comment(p, "names of run-time code: 5 lines of /tmp/perf-"), named);
    stile__profile_free(p);
}

static void test_run_time_code(void **state)
{
    struct run_time_code c;
    (void)state;
    run_time_code_make(&c);
    run_time_code_tick(&c, 0);
    run_time_code_tick(&c, 8);
    process_drain(h.process);
    unlink(names_path);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), true), 0);
    run_time_code_check(&c, false);
    FILE *f = fopen(names_path, "we");
    assert_non_null(f);
    fprintf(f, "%lx 1000 code of earlier\n%lx 20 JS:*hot /x.js:1:2\n%lx 1000 in memory of a name\n",
            (long)c.anonymous, (long)c.anonymous + 0x10, (long)c.memfd);
    fprintf(f, "%lx 1000000 not this one\n1234 1 nowhere\n", (long)&a_name_to_find & ~0xfffffl);
    fclose(f);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), true), 0);
    run_time_code_check(&c, true);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    run_time_code_check(&c, false);
    /* What is wrong with a file is told. */
    assert_int_equal(truncate(names_path, 1 << 30), 0);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), true), 0);
    run_time_code_check(&c, false);
    struct stile__profile *p;
    char err[512];
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_true(has_comment(p, ".map left out: it is larger than 256 MiB"));
    stile__profile_free(p);
    munmap(c.anonymous, 4096);
    munmap(c.memfd, 4096);
}

/* What barriers did is told if there may be any. */
static void test_barriers(void **state)
{
    struct stile__profile *p;
    char err[512];
    (void)state;
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_false(has_comment(p, "barriers"));
    stile__profile_free(p);
    h.process->barriers = STILE__BARRIERS_ALL;
    atomic_store(&h.region->barriers_state, STILE__BARRIERS_GO);
    h.process->barrier_totals = (struct barrier_totals){1234, 1200, 20, 3};
    h.process->frames_saved = 45678;
    h.process->frames_by_libunwind = 7;
    hand_made_tick(&h, NULL, 0, STILE__REASON_STACK_LOCKED, 5);
    process_drain(h.process);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_true(has_comment(p, "stack barriers: all; placed 1234, hit 1200, retired 20, restored 3; "
                               "frames saved 45678 of 45689; "
                               "samples without a stack because it was locked 5"));
    stile__profile_free(p);
    h.process->barriers = STILE__BARRIERS_AUTO;
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_true(has_comment(p, "stack barriers: auto; placed"));
    stile__profile_free(p);
    stile__barriers_state_off(h.region, STILE__BARRIERS_OFF_SHADOW_STACK);
    assert_int_equal(profile_write(h.process, scratch_path("x.pb"), false), 0);
    assert_int_equal(stile__profile_read(scratch_path("x.pb"), &p, err, sizeof err), 0);
    assert_true(has_comment(p, "stack barriers: auto; off: the program has a shadow stack; placed 1234,"));
    stile__profile_free(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_file),
        TEST(test_id_used_again),
        TEST(test_replaces_a_file),
        TEST(test_planted_links),
        TEST(test_where_no_file_can_be),
        TEST(test_too_little_room),
        TEST(test_disk_full),
        TEST(test_run_time_code),
        TEST(test_barriers),
        TEST(test_names_without_time),
        TEST(test_names_in_time),
        TEST(test_names_without_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
