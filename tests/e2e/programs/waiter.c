/* Asks for any child in every way there is, and says what it was told; it has none of its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

WORK static uint64_t work_before_waiting(uint64_t ns)
{
    return burn(ns);
}

static void tell(const char *what, long result)
{
    const char *name = result < 0 ? strerrorname_np(errno) : "";
    printf("%s: %ld %s\n", what, result, name);
}

int main(void)
{
    struct rusage use;
    siginfo_t info;
    int status;

    work_before_waiting(200 * MS);
    tell("wait", wait(&status));
    tell("waitpid(-1)", waitpid(-1, &status, 0));
    tell("waitpid(-1, WNOHANG)", waitpid(-1, &status, WNOHANG));
    tell("waitpid(-1, WUNTRACED)", waitpid(-1, &status, WUNTRACED | WCONTINUED));
    tell("waitpid(-1, __WALL)", waitpid(-1, &status, __WALL));
    tell("waitpid(-1, __WCLONE)", waitpid(-1, &status, __WCLONE));
    tell("waitpid(0)", waitpid(0, &status, 0));
    tell("waitpid(-pgrp)", waitpid(-getpgrp(), &status, 0));
    tell("wait3", wait3(&status, 0, &use));
    tell("wait4(-1)", wait4(-1, &status, WNOHANG, &use));
    tell("waitid(P_ALL)", waitid(P_ALL, 0, &info, WEXITED));
    tell("waitid(P_ALL, WNOHANG)", waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG));
    tell("waitid(P_ALL, __WALL)", waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL));
    tell("waitid(P_PGID)", waitid(P_PGID, 0, &info, WEXITED));
    return 0;
}
