/* Very many children of a short life: `brood fork|exec|spawn|clone N AT_ONCE US`: N children, AT_ONCE of them at a time, each uses
 * US microseconds of CPU time. Says in JSON what the kernel counted of them and of itself, and how many ended well.
 * `brood burn US`: what an executed child does. */
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

extern char **environ;

WORK static uint64_t work_in_brood(uint64_t ns)
{
    return burn(ns);
}

static uint64_t used(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

/* A child's pid, or -1. */
static pid_t child_start(const char *how, const char *self, const char *us)
{
    char *const argv[] = {(char *)self, "burn", (char *)us, NULL};
    pid_t pid = -1;
    if (strcmp(how, "spawn") == 0)
        return posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0 ? pid : -1;
    /* A bare clone: nobody in libc hears of it. */
    pid = strcmp(how, "clone") == 0 ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
    if (pid != 0)
        return pid;
    if (strcmp(how, "exec") == 0) {
        execv(self, argv);
        _exit(127);
    }
    work_in_brood(strtoull(us, NULL, 10) * 1000);
    _exit(7);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "burn") == 0) {
        work_in_brood(strtoull(argv[2], NULL, 10) * 1000);
        return 7;
    }
    if (argc != 5)
        return 2;
    int n = atoi(argv[2]), at_once = atoi(argv[3]), running = 0, status;
    int well = 0;
    for (int started = 0; started < n || running > 0;) {
        if (started < n && running < at_once) {
            if (child_start(argv[1], argv[0], argv[4]) < 0)
                return 1;
            started++;
            running++;
            continue;
        }
        if (wait(&status) < 0)
            return 1;
        running--;
        well += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    printf("{\"well\": %d, \"children\": %llu, \"self\": %llu}\n", well,
           (unsigned long long)used(RUSAGE_CHILDREN), (unsigned long long)used(RUSAGE_SELF));
    return 0;
}
