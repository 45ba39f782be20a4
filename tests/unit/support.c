/* What the unit tests share. */
#include "tests/unit/support.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char scratch[2048];

uint64_t next_number(uint64_t *state)
{
    /* splitmix64 (public domain, Vigna) */
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void fill_random(void *to, size_t n, uint64_t *state)
{
    uint8_t *at = to;
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)next_number(state);
}

const char *test_setting(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL)
        fail_msg("%s is not set; run me by ctest", name);
    return value;
}

const char *scratch_make(void)
{
    snprintf(scratch, sizeof scratch, "%s/scratch.XXXXXX", test_setting("STILE_TEST_SCRATCH"));
    assert_non_null(mkdtemp(scratch));
    return scratch;
}

void scratch_remove(void)
{
    DIR *d = opendir(scratch);
    struct dirent *e;
    char path[4096];

    while (d != NULL && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", scratch, e->d_name);
        if (unlink(path) != 0)
            rmdir(path);
    }
    if (d != NULL)
        closedir(d);
    assert_int_equal(rmdir(scratch), 0);
}

int scratch_set_up(void **state)
{
    (void)state;
    scratch_make();
    return 0;
}

int scratch_tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

const char *scratch_path(const char *name)
{
    static char paths[8][4096];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

char *file_text(const char *path)
{
    size_t have = 0, cap = 1u << 16, n;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return NULL;
    char *text = malloc(cap);
    assert_non_null(text);
    while ((n = fread(text + have, 1, cap - have - 1, f)) > 0) {
        have += n;
        if (cap - have < 2) {
            cap *= 2;
            text = realloc(text, cap);
            assert_non_null(text);
        }
    }
    text[have] = '\0';
    fclose(f);
    return text;
}

void file_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

bool file_awaited(const char *path)
{
    for (int i = 0; i < 3000; i++) {
        if (access(path, F_OK) == 0)
            return true;
        usleep(10000);
    }
    return false;
}

static unsigned count_entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    struct dirent *e;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

unsigned count_descriptors(void)
{
    return count_entries("/proc/self/fd") - 1;
}

unsigned count_threads(void)
{
    return count_entries("/proc/self/task");
}

unsigned count_map_lines(void)
{
    unsigned n = 0;
    char *text = file_text("/proc/self/maps");
    for (const char *c = text; *c != '\0'; c++)
        n += *c == '\n';
    free(text);
    return n;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t process_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

__attribute__((noinline)) void spin_ns(uint64_t cpu_ns)
{
    volatile uint64_t sink = 0;
    for (uint64_t end = thread_cpu_ns() + cpu_ns; thread_cpu_ns() < end;)
        for (int i = 0; i < 20000; i++)
            sink += (uint64_t)i;
}

static int stderr_before = -1;

void stderr_begin(void)
{
    int fd = open(scratch_path("stderr"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    stderr_before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    assert_true(stderr_before >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
}

char *stderr_end(void)
{
    assert_int_equal(dup2(stderr_before, STDERR_FILENO), STDERR_FILENO);
    close(stderr_before);
    char *text = file_text(scratch_path("stderr"));
    assert_non_null(text);
    return text;
}

void handler_install_raw(int signal, void (*handler)(int, siginfo_t *, void *))
{
    struct {
        void (*handler)(int, siginfo_t *, void *);
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } raw;
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    /* Past our own hook, for which this would be a handler of the program's. */
    int (*libc_sigaction)(int, const struct sigaction *, struct sigaction *);
    *(void **)&libc_sigaction = dlsym(RTLD_NEXT, "sigaction");
    assert_int_equal(libc_sigaction(signal, &sa, NULL), 0);
    assert_int_equal(syscall(SYS_rt_sigaction, signal, NULL, &raw, sizeof raw.mask), 0);
    raw.handler = handler;
    raw.mask = ~0ull;
    assert_int_equal(syscall(SYS_rt_sigaction, signal, &raw, NULL, sizeof raw.mask), 0);
}

int in_child(void (*fn)(void *arg), void *arg)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
        for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
            signal(crashes[i], SIG_DFL); /* cmocka would go on with its tests in here */
        fn(arg);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) != pid)
        assert_int_equal(errno, EINTR);
    return status;
}

_Noreturn void child_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: in the child: %s does not hold\n", file, line, what);
    _exit(100);
}
