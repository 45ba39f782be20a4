/* Children of all kinds, made deep on a stack: `deep_children WAY MS`, where WAY is
 *   fork       children that return through all frames they were forked in, work deep, and have children that do the same
 *   threads    the same from one of several threads that work deep
 *   exec       vfork and exec, vfork and _exit, posix_spawn, system, popen, clone as libc does it, of programs that do little
 * Each child's status says whether all its returns and results were right; 48 children at most, two and their children at once. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deep.h"

#define OUTER    100 /* frames above the loop */
#define CHILDREN 12
#define AT_ONCE  2
#define WORKING  1 /* threads beside the one that forks */

extern char **environ;

static uint64_t work_ns;
static bool is_child;
static unsigned generation;
static pid_t running[AT_ONCE];
static unsigned n_running, n_right;

static void work(uint64_t ns)
{
    uint64_t x = ns;
    for (uint64_t begin = thread_cpu_ns(); thread_cpu_ns() - begin < ns; x = deep_step(x))
        deep_do(NULL, 100, x);
}

WORK static void child_reap(void)
{
    int status = -1;
    pid_t pid = running[0];
    memmove(running, running + 1, --n_running * sizeof *running);
    deep_check(waitpid(pid, &status, 0) == pid);
    n_right += WIFEXITED(status) && WEXITSTATUS(status) == 40 + (pid & 7);
}

/* Both return through the frames that they have in common. */
static void fork_here(void *arg)
{
    (void)arg;
    pid_t pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        is_child = true;
        generation++;
        n_running = n_right = 0;
    } else {
        running[n_running++] = pid;
    }
}

static void fork_some(void *arg)
{
    struct deep d = {fork_here, NULL};
    unsigned n = generation == 0 ? CHILDREN : 1;
    (void)arg;
    for (unsigned i = 0; i < n; i++) {
        uint64_t x = i * 77 + 5;
        unsigned mine = generation;
        work(work_ns / CHILDREN / 4);
        deep_do(&d, 20 + 10 * i, x);
        if (generation != mine) { /* the child comes back here, too */
            work(30 * MS);
            n = generation < 2 ? 1 : 0; /* of its own */
            i = (unsigned)-1;
            if (n == 0)
                return;
            continue;
        }
        work(work_ns / CHILDREN / 4);
        if (n_running == AT_ONCE)
            child_reap();
    }
    while (n_running > 0)
        child_reap();
    if (generation == 1)
        deep_check(n_right == 1);
}

/* The end of a child, after it has returned from where it was forked. */
static void child_end(void)
{
    if (!is_child)
        return;
    work(20 * MS);
    exit(deep_wrong == 0 ? 40 + (getpid() & 7) : 1);
}

static void *forking_thread(void *arg)
{
    struct deep d = {fork_some, arg};
    deep_do(&d, OUTER, 9);
    child_end();
    return NULL;
}

static _Atomic bool threads_end;

static void *working_thread(void *arg)
{
    uint64_t x = (uintptr_t)arg;
    while (!threads_end) {
        deep_do(NULL, 150, x);
        x = deep_step(x);
    }
    return NULL;
}

static void run_threads(void)
{
    pthread_t forking, working[WORKING];
    for (uintptr_t i = 0; i < WORKING; i++)
        if (pthread_create(&working[i], NULL, working_thread, (void *)(i + 1)) != 0)
            abort();
    if (pthread_create(&forking, NULL, forking_thread, NULL) != 0)
        abort();
    pthread_join(forking, NULL);
    threads_end = true;
    for (int i = 0; i < WORKING; i++)
        pthread_join(working[i], NULL);
}

static char *const tool[] = {"/bin/sh", "-c", "exit 7", NULL};

static int waited(pid_t pid)
{
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void vfork_exec(void *result)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execv(tool[0], tool);
        _exit(9);
    }
    *(int *)result = waited(pid);
}

/* The child works in its parent's memory, on frames of its own. */
static void vfork_exit(void *result)
{
    pid_t pid = vfork();
    if (pid == 0) {
        deep_do(NULL, 30, 3);
        _exit(7);
    }
    *(int *)result = waited(pid);
}

static void spawn(void *result)
{
    pid_t pid = 0;
    *(int *)result = posix_spawn(&pid, tool[0], NULL, NULL, tool, environ) == 0 ? waited(pid) : -1;
}

static void system_call(void *result)
{
    int status = system("exit 7");
    *(int *)result = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void popen_close(void *result)
{
    FILE *f = popen("echo 7", "r");
    int number = -1;
    if (f == NULL || fscanf(f, "%d", &number) != 1 || pclose(f) != 0)
        number = -1;
    *(int *)result = number;
}

static int clone_main(void *arg)
{
    (void)arg;
    deep_do(NULL, 60, 3);
    execv(tool[0], tool);
    _exit(9);
}

static void clone_vfork(void *result)
{
    char stack[65536] __attribute__((aligned(16)));
    *(int *)result = waited(clone(clone_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL));
}

static void exec_some(void *arg)
{
    static void (*const ways[])(void *) = {vfork_exec,  vfork_exit,  spawn,
                                           system_call, popen_close, clone_vfork};
    const unsigned n_ways = sizeof ways / sizeof *ways, n = 8 * n_ways;
    (void)arg;
    for (unsigned i = 0; i < n; i++) {
        int result = -1;
        struct deep d = {ways[i % n_ways], &result};
        work(work_ns / n);
        deep_do(&d, 20 + 3 * i, i + 1);
        n_right += result == 7;
    }
    deep_check(n_right == n);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    work_ns = strtoull(argv[2], NULL, 10) * MS;
    if (strcmp(argv[1], "threads") == 0) {
        run_threads();
    } else if (strcmp(argv[1], "exec") == 0) {
        struct deep d = {exec_some, NULL};
        deep_do(&d, OUTER, 9);
    } else {
        forking_thread(NULL);
    }
    printf("wrong %ld, right children %u\n", deep_wrong, n_right);
    return 0;
}
