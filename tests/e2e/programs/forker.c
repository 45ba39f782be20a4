/* Children of every kind, waited for one after the other; says in JSON which ended how.
 * `forker PROGRAM [ARG...]`: what the vfork and posix_spawn children execute. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

extern char **environ;

WORK static uint64_t work_in_parent(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_in_child(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_in_grandchild(uint64_t ns)
{
    return burn(ns);
}

static void report(const char *what, pid_t pid)
{
    int status = -1;
    pid_t got = waitpid(pid, &status, 0);
    printf(", \"%s\": {\"pid\": %d, \"waited\": %d, \"status\": %d}", what, (int)pid, (int)got, status);
}

static void fork_children(void)
{
    pid_t pid;

    fflush(stdout);
    if ((pid = fork()) == 0) {
        work_in_child(300 * MS);
        _exit(3);
    }
    report("fork_exit_raw", pid);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        work_in_child(300 * MS);
        exit(4);
    }
    report("fork_exit", pid);
    fflush(stdout);
    if ((pid = fork()) == 0)
        _exit(5);
    report("fork_idle", pid);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        int status = 0;
        pid_t grandchild = fork();
        if (grandchild == 0) {
            work_in_grandchild(300 * MS);
            _exit(11);
        }
        waitpid(grandchild, &status, 0);
        _exit(WEXITSTATUS(status) + 1);
    }
    report("fork_fork", pid);
}

static void vfork_children(char **args)
{
    pid_t pid;

    if ((pid = vfork()) == 0)
        _exit(6);
    report("vfork_exit", pid);
    if ((pid = vfork()) == 0) {
        execv(args[0], args);
        _exit(7);
    }
    report("vfork_exec", pid);
    if ((pid = vfork()) == 0) {
        execl("/nonexistent/program", "program", (char *)NULL);
        _exit(8);
    }
    report("vfork_failed_exec", pid);
    if (posix_spawn(&pid, args[0], NULL, NULL, args, environ) == 0)
        report("spawn", pid);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    printf("{\"pid\": %d", (int)getpid());
    fork_children();
    vfork_children(argv + 1);
    work_in_parent(400 * MS);
    printf("}\n");
    return 9;
}
