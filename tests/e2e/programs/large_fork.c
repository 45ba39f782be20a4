/* Makes children of a process with so many pages that a child takes many ticks to make: `large_fork CHILDREN`, so many in each of
 * the ways that there are. The pages are the zero page, mapped again and again: the kernel copies its tables. Prints how
 * many children came back, by way, and on standard error how often a thread that looked found SIGPROF blocked, and open, during fork. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

#define PIECE  (256u << 20)
#define PIECES 6
#define SLOW_NS                                                                                              \
    (8 * MS) /* of CPU time for a fork: two of the kernel's ticks, eighty at ten thousand a second */
#define PAGE      4096u
#define LOOKS     20 /* during forks, so many of which are made for that at most: */
#define LOOKS_MAX 60
#define CHILD_MS  20

extern char **environ;

WORK static uint64_t work_of_child(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_between(uint64_t ns)
{
    return burn(ns);
}

static int child_main(void *unused)
{
    (void)unused;
    work_of_child(CHILD_MS * MS);
    _exit(5);
}

/* Odd while the main thread forks. */
static _Atomic unsigned forking;
static _Atomic bool over;
static _Atomic unsigned seen[2]; /* open, blocked */

static bool blocked_now(pid_t tid)
{
    char path[64], line[256];
    uint64_t mask = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        exit(3);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "SigBlk: %lx", &mask) == 1)
            break;
    fclose(f);
    return (mask >> (SIGPROF - 1) & 1) != 0;
}

static void *watch_main(void *unused)
{
    while (!over) {
        unsigned before = forking;
        bool blocked = blocked_now(getpid());
        if (before % 2 == 1 && forking == before)
            seen[blocked]++;
    }
    return unused;
}

/* Waits for a child whose status is right. */
static unsigned comes_back(pid_t pid, int expected)
{
    int status = -1;
    work_between(5 * MS);
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == expected;
}

static unsigned by_fork(void)
{
    forking++;
    pid_t pid = fork();
    if (pid == 0)
        child_main(NULL);
    forking++;
    return comes_back(pid, 5);
}

static unsigned by_clone(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    return comes_back(clone(child_main, stack + sizeof stack, SIGCHLD, NULL), 5);
}

/* Past libc. */
static unsigned by_system_call(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        child_main(NULL);
    return comes_back(pid, 5);
}

static unsigned by_vfork(void)
{
    pid_t pid = vfork();
    if (pid == 0)
        _exit(6);
    return comes_back(pid, 6);
}

static unsigned by_spawn(void)
{
    char *argv[] = {"true", NULL};
    pid_t pid = -1;
    return posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) == 0 && comes_back(pid, 0);
}

/* Adds pages until a fork takes its time. */
static void pages_add(void)
{
    for (int i = 0; i < PIECES; i++) {
        char *at =
            mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED || madvise(at, PIECE, MADV_NOHUGEPAGE) != 0)
            exit(3);
        *at = 1; /* who has no page of his own has nothing that a fork copies */
        if (madvise(at, PIECE, MADV_POPULATE_READ) != 0) /* older kernels */
            for (size_t p = PAGE; p < PIECE; p += PAGE)
                (void)*(volatile char *)(at + p);
        uint64_t begin = thread_cpu_ns();
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        uint64_t ns = thread_cpu_ns() - begin;
        waitpid(pid, NULL, 0);
        if (ns > SLOW_NS)
            return;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned (*make)(void);
    } ways[] = {
        {"fork", by_fork},   {"clone", by_clone}, {"system call", by_system_call},
        {"vfork", by_vfork}, {"spawn", by_spawn},
    };
    pthread_t watcher;
    if (argc < 2)
        return 2;
    pages_add();
    if (pthread_create(&watcher, NULL, watch_main, NULL) != 0)
        return 3;
    for (unsigned w = 0; w < sizeof ways / sizeof *ways; w++) {
        unsigned back = 0;
        for (int i = atoi(argv[1]); i > 0; i--)
            back += ways[w].make();
        printf("%s %u\n", ways[w].name, back);
        fflush(stdout);
        if (ways[w].make == by_fork) {
            for (int i = 0; i < LOOKS_MAX && seen[0] + seen[1] < LOOKS; i++)
                by_fork();
            over = true;
            pthread_join(watcher, NULL);
        }
    }
    fprintf(stderr, "%u %u\n", seen[1], seen[0]);
    return 0;
}
