/* collector/perf_map.c: whatever the text says, an address has the latest name that was given to it, or none. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/perf_map.h"

static struct perf_map map;

static void parse_bytes(const char *text, size_t size)
{
    char *copy = malloc(size + (size == 0)); /* no larger: the sanitizer sees what is read behind it */
    assert_non_null(copy);
    memcpy(copy, text, size);
    perf_map_free(&map);
    assert_null(perf_map_parse(&map, copy, size));
}

static void parse(const char *text)
{
    parse_bytes(text, strlen(text));
}

static void finds(uint64_t address, const char *name)
{
    const char *found = perf_map_find(&map, address);
    if (name == NULL)
        assert_null(found);
    else if (found == NULL)
        fail_msg("%llx has no name, not %s", (unsigned long long)address, name);
    else
        assert_string_equal(found, name);
}

static int free_map(void **state)
{
    (void)state;
    perf_map_free(&map);
    return 0;
}

static void test_ranges(void **state)
{
    (void)state;
    finds(0x1000, NULL);
    parse("");
    finds(0x1000, NULL);
    parse("2000 10 LazyCompile:*second  (file.js:1:2)\n0x1000 0x10 first\n7FFFABCDEF00 A0 third\n");
    assert_int_equal(map.lines, 3);
    assert_int_equal(map.skipped, 0);
    finds(0, NULL);
    finds(0xfff, NULL);
    finds(0x1000, "first");
    finds(0x100f, "first");
    finds(0x1010, NULL);
    finds(0x1fff, NULL);
    finds(0x2000, "LazyCompile:*second  (file.js:1:2)");
    finds(0x2010, NULL);
    finds(0x7fffabcdef9f, "third");
    finds(0x7fffabcdefa0, NULL);
    finds(UINT64_MAX, NULL);
}

static void test_bad_lines(void **state)
{
    (void)state;
    parse("\n"
          "1000\n"
          "1000 10\n"
          "1000 10 \n"
          "1000 10\t \r\n"
          "x 10 a\n"
          "1000 1g a\n"
          "0x 10 a\n"
          "1000 0x a\n"
          "-1000 10 a\n"
          "1000 0 nothing\n"
          "10000000000000000 10 more than 64 bits\n"
          "1000 10000000000000000 more than 64 bits\n"
          "ffffffffffffff00 101 wraps\n"
          "3000 10 good\n"
          "1000 10 being writt");
    assert_int_equal(map.lines, 15);
    assert_int_equal(map.skipped, 14);
    assert_int_equal(map.n_ranges, 1);
    finds(0x1000, NULL);
    finds(0xffffffffffffff00, NULL);
    finds(0, NULL);
    finds(0x3000, "good");
    parse("  1000\t0000000000000000000010   a \t\r\n"
          "ffffffffffffff00 ff to the end\n");
    assert_int_equal(map.skipped, 0);
    finds(0x100f, "a");
    finds(0xfffffffffffffffe, "to the end");
    finds(UINT64_MAX, NULL);
}

static void test_names(void **state)
{
    static const char nul[] = "1000 10 a\0b\n";
    char text[PERF_MAP_NAME_MAX + 64], *at = text;
    (void)state;
    parse_bytes(nul, sizeof nul - 1);
    finds(0x1000, "a?b");
    parse("1000 10 \x1b[31mred\x7f\a\n2000 10 gr\xc3\xbc\xc3\x9f\xc2\x9b\xc2\xa0\n3000 10 \xff\xc2\n");
    finds(0x1000, "?[31mred??");
    finds(0x2000, "gr\xc3\xbc\xc3\x9f??\xc2\xa0");
    finds(0x3000, "\xff\xc2");
    /* Cut, but not within a character: at the last byte of the room, an umlaut begins. */
    at += sprintf(text, "1000 10 ");
    memset(at, 'x', PERF_MAP_NAME_MAX - 1);
    strcpy(at + PERF_MAP_NAME_MAX - 1, "\xc3\xbc and more\n2000 10 next\n");
    parse(text);
    assert_int_equal(strlen(perf_map_find(&map, 0x1000)), PERF_MAP_NAME_MAX - 1);
    finds(0x2000, "next");
    /* What only looks like the inside of a character has no beginning to be cut at. */
    memset(at, 0x80, PERF_MAP_NAME_MAX + 1);
    parse(text);
    finds(0x1000, NULL);
    finds(0x2000, "next");
}

static void test_later_lines_count(void **state)
{
    (void)state;
    parse("1000 100 old\n1000 100 new\n");
    finds(0x1000, "new");
    finds(0x10ff, "new");
    assert_int_equal(map.n_ranges, 1);
    parse("1000 100 old\n1040 20 new\n1080 100 newer\n0ff0 20 newest\n");
    finds(0xff0, "newest");
    finds(0x100f, "newest");
    finds(0x1010, "old");
    finds(0x103f, "old");
    finds(0x1040, "new");
    finds(0x105f, "new");
    finds(0x1060, "old");
    finds(0x1080, "newer");
    finds(0x117f, "newer");
    finds(0x1180, NULL);
    parse("1040 20 inside\n1000 100 over\n1050 8 again\n");
    finds(0x104f, "over");
    finds(0x1057, "again");
    finds(0x1058, "over");
    assert_int_equal(map.n_ranges, 3);
}

/* Against the rule itself: the last line that has the address. */
static void test_any_lines(void **state)
{
    uint64_t seed = 7, from[60], to[60];
    (void)state;
    for (unsigned round = 0; round < 400; round++) {
        char text[60 * 32], name[16];
        size_t n = 0;
        for (unsigned i = 0; i < 60; i++) {
            from[i] = next_number(&seed) % 256;
            to[i] = from[i] + next_number(&seed) % (round % 2 != 0 ? 9 : 200);
            n += (size_t)snprintf(text + n, sizeof text - n, "%llx %llx n%u\n", (unsigned long long)from[i],
                                  (unsigned long long)(to[i] - from[i]), i);
        }
        parse(text);
        assert_true(map.n_ranges <= 2 * map.lines);
        for (uint64_t address = 0; address < 500; address++) {
            unsigned i = 60;
            while (i-- > 0 && (address < from[i] || address >= to[i]))
                ;
            snprintf(name, sizeof name, "n%u", i);
            finds(address, i == UINT32_MAX ? NULL : name);
        }
    }
}

/* Neither order, nor nesting, nor addresses that are used again and again take more than n log n: anything with a square
 * in it would take minutes here. */
static void test_many_lines(void **state)
{
    enum { LINES = 400000 };
    (void)state;
    for (unsigned shape = 0; shape < 4; shape++) {
        char *text = malloc(LINES * 40ull), *at = text;
        uint64_t begin = thread_cpu_ns();
        assert_non_null(text);
        for (unsigned i = 0; i < LINES; i++) {
            unsigned start = shape == 0 ? i * 16 : shape == 1 ? (LINES - i) * 16 : shape == 2 ? i : 0;
            unsigned size = shape < 2 ? 16 : shape == 2 ? 2 * (LINES - i) : i + 1;
            at += sprintf(at, "%x %x f%u\n", start + 0x10000000, size, i);
        }
        perf_map_free(&map);
        assert_null(perf_map_parse(&map, text, (size_t)(at - text)));
        assert_int_equal(map.skipped, 0);
        finds(0x10000000, shape == 0 ? "f0" : shape == 1 ? NULL : shape == 2 ? "f0" : "f399999");
        assert_true(thread_cpu_ns() - begin < (UNDER_SANITIZER ? 40ull : 8ull) * 1000000000u);
    }
}

static void test_too_many_lines(void **state)
{
    size_t n = (4u << 20) + 1;
    char *text = malloc(n);
    (void)state;
    assert_non_null(text);
    memset(text, '\n', n);
    assert_string_equal(perf_map_parse(&map, text, n), "it has more than 4 million lines");
    finds(0, NULL);
    assert_int_equal(map.lines, 0);
}

/* --- The file of a process */

static struct hand_made h;
static char path[64];

static int set_up(void **state)
{
    (void)state;
    hand_made_new(&h);
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    unlink(path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    hand_made_free(&h);
    return free_map(NULL);
}

static void write_map(const char *text)
{
    file_write(path, text, strlen(text));
}

static const char *try_read(void)
{
    unsigned descriptors = count_descriptors();
    perf_map_free(&map);
    const struct perf_map_owner owner = perf_map_owner(h.process);
    const char *why = perf_map_read(&map, &owner);
    assert_int_equal(count_descriptors(), descriptors);
    if (why != NULL)
        assert_null(map.text);
    return why;
}

static void test_a_file(void **state)
{
    (void)state;
    assert_null(try_read()); /* none is no error */
    finds(0x1000, NULL);
    write_map("");
    assert_null(try_read());
    write_map("1000 10 mine\n");
    assert_null(try_read());
    finds(0x1000, "mine");
    h.process->own_pid++; /* as the program sees itself */
    assert_null(try_read());
    finds(0x1000, NULL);
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    assert_int_equal(symlink("/proc/self/status", path), 0);
    assert_string_equal(try_read(), "it is a symbolic link");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_string_equal(try_read(), "it is not a regular file"); /* and did not wait for a writer */
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_string_equal(try_read(), "it is not a regular file");
    rmdir(path);
}

static void test_whose_file_it_is(void **state)
{
    (void)state;
    write_map("1000 10 mine\n");
    assert_int_equal(h.process->uid, geteuid());
    h.process->uid = geteuid() + 1;
    if (geteuid() == 0) {
        assert_null(try_read()); /* root may write anybody's */
        assert_int_equal(chown(path, 12345, 0), 0);
    }
    assert_string_equal(try_read(), "it belongs to another user");
    h.process->uid = geteuid() == 0 ? 12345 : geteuid();
    assert_null(try_read());
    finds(0x1000, "mine");
}

static void test_older_than_the_program(void **state)
{
    struct timespec times[2] = {{.tv_sec = 1600000000}, {.tv_sec = 1600000000}};
    (void)state;
    write_map("1000 10 a pid ago\n");
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    h.process->from_birth = false;
    assert_null(try_read());
    h.process->from_birth = true;
    assert_string_equal(try_read(), "it is older than the program");
    times[1].tv_sec = 1700000000; /* when the region says that it began */
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    h.process->start_unix_ns += 60000000000ull; /* a later piece's time */
    assert_null(try_read());
    finds(0x1000, "a pid ago");
}

static void test_too_large(void **state)
{
    (void)state;
    write_map("1000 10 mine\n");
    assert_int_equal(truncate(path, (256 << 20) + 1), 0);
    assert_string_equal(try_read(), "it is larger than 256 MiB");
}

/* Makes the process another one, which a child of ours is. */
static void process_is(pid_t pid)
{
    close(h.process->pidfd);
    h.process->pid = h.process->own_pid = pid;
    h.process->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(h.process->pidfd >= 0);
    unlink(path);
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)pid);
}

static void test_of_a_dead_process(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    process_is(pid);
    write_map("1000 10 left behind\n");
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_null(try_read());
    finds(0x1000, "left behind");
    unlink(path);
    assert_null(try_read());
    finds(0x1000, NULL);
}

static void own_tmp(void *told)
{
    char own[64];
    snprintf(own, sizeof own, "/tmp/perf-%d.map", (int)getpid());
    char word = 'x';
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("stile", "/tmp", "tmpfs", 0, NULL) == 0) {
        FILE *f = fopen(own, "we");
        word = f != NULL && fputs("1000 10 in its own place\n", f) >= 0 && fclose(f) == 0 ? 'y' : 'n';
    }
    if (write(*(int *)told, &word, 1) == 1)
        pause();
    _exit(0);
}

static void test_in_a_place_of_its_own(void **state)
{
    int told[2];
    char word = 'n';
    (void)state;
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0)
        own_tmp(&told[1]);
    process_is(pid);
    write_map("1000 10 in ours\n");
    ssize_t n = read(told[0], &word, 1);
    const char *why = try_read(), *found = perf_map_find(&map, 0x1000);
    char *own = strdup(found != NULL ? found : "");
    /* The process is dead, and the pid that it had belongs to this one: its place is somebody else's. */
    pid_t dead = fork();
    if (dead == 0)
        _exit(0);
    close(h.process->pidfd);
    h.process->pidfd = (int)syscall(SYS_pidfd_open, dead, 0);
    waitpid(dead, NULL, 0);
    const char *why_dead = try_read();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(told[0]);
    close(told[1]);
    assert_int_equal(n, 1);
    if (word == 'x') {
        free(own);
        skip(); /* not permitted here */
    }
    assert_int_equal(word, 'y');
    assert_null(why);
    assert_string_equal(own, "in its own place");
    free(own);
    assert_null(why_dead);
    finds(0x1000, "in ours");
}

#define TEXT(name)    cmocka_unit_test_teardown(name, free_map)
#define ON_DISK(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEXT(test_ranges),
        TEXT(test_bad_lines),
        TEXT(test_names),
        TEXT(test_later_lines_count),
        TEXT(test_any_lines),
        TEXT(test_many_lines),
        TEXT(test_too_many_lines),
        ON_DISK(test_a_file),
        ON_DISK(test_what_is_no_file),
        ON_DISK(test_whose_file_it_is),
        ON_DISK(test_older_than_the_program),
        ON_DISK(test_too_large),
        ON_DISK(test_of_a_dead_process),
        ON_DISK(test_in_a_place_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
