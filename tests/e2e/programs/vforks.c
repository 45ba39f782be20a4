/* Children that share their parent's memory, many of them, between pieces of work: `vforks ROUNDS`. Says how each kind ended,
 * how often what is to run at the exit ran, and how much CPU time the parent itself has used. */
#include <inttypes.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

extern char **environ;

static volatile unsigned shared; /* written by children in the parent's memory */
static _Atomic bool over;

WORK static uint64_t work_in_parent(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_in_thread(uint64_t ns)
{
    return burn(ns);
}

static void at_end(void)
{
    static const char line[] = "at exit\n";
    if (write(STDOUT_FILENO, line, sizeof line - 1) < 0)
        _exit(98);
}

static int status_of(pid_t pid)
{
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t child_exits(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        shared++;
        _exit(6);
    }
    return pid;
}

static pid_t child_exits_past_libc(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        shared++;
        syscall(SYS_exit_group, 8);
    }
    return pid;
}

static pid_t child_fails_to_exec(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/nonexistent/program", "program", (char *)NULL);
        shared++;
        _exit(9);
    }
    return pid;
}

static pid_t child_execs(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 10", (char *)NULL);
        _exit(97);
    }
    return pid;
}

static pid_t child_spawned(void)
{
    char *args[] = {"sh", "-c", "exit 11", NULL};
    pid_t pid;
    return posix_spawn(&pid, "/bin/sh", NULL, NULL, args, environ) == 0 ? pid : -1;
}

static void *thread_main(void *unused)
{
    (void)unused;
    while (!over)
        work_in_thread(MS);
    return NULL;
}

int main(int argc, char **argv)
{
    static pid_t (*const kinds[])(void) = {child_exits, child_exits_past_libc, child_fails_to_exec,
                                           child_execs, child_spawned};
    static const int wanted[] = {6, 8, 9, 10, 11};
    const int rounds = argc > 1 ? atoi(argv[1]) : 10;
    unsigned right = 0;
    struct rusage usage;
    pthread_t t;

    atexit(at_end);
    if (pthread_create(&t, NULL, thread_main, NULL) != 0)
        return 1;
    for (int i = 0; i < rounds; i++)
        for (unsigned k = 0; k < 5; k++) {
            right += status_of(kinds[k]()) == wanted[k];
            work_in_parent(2 * MS);
        }
    over = true;
    pthread_join(t, NULL);
    getrusage(RUSAGE_SELF, &usage);
    printf("%u right, %u shared, %d children left\n", right, shared, (int)waitpid(-1, NULL, WNOHANG));
    fflush(stdout);
    fprintf(stderr, "%" PRIu64 "\n",
            ((uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
             (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)) *
                1000u);
    return 12;
}
