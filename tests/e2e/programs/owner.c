/* Owns SIGPROF, as a program with a profiler of its own does: `owner MS [fork|exec]` runs a SIGPROF timer for MS of CPU
 * time and says in JSON how often its handler ran and how often its timer was due; with a second word also in a child,
 * which is waited for. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

static volatile sig_atomic_t ticks, strange;

static void on_prof(int signal, siginfo_t *info, void *context)
{
    (void)context;
    ticks++;
    strange += signal != SIGPROF || info->si_code != SI_KERNEL; /* a timer of setitimer's says that */
}

WORK static uint64_t work_owner(uint64_t ns)
{
    return burn(ns);
}

static void work(uint64_t ns)
{
    struct sigaction act, seen;
    struct itimerval timer = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};

    memset(&act, 0, sizeof act);
    act.sa_sigaction = on_prof;
    act.sa_flags = SA_SIGINFO | SA_RESTART;
    ticks = strange = 0;
    if (sigaction(SIGPROF, &act, NULL) != 0 || setitimer(ITIMER_PROF, &timer, NULL) != 0)
        exit(3);
    uint64_t used = work_owner(ns);
    setitimer(ITIMER_PROF, &off, NULL);
    sigaction(SIGPROF, NULL, &seen);
    printf("{\"pid\": %d, \"ticks\": %d, \"due\": %d, \"strange\": %d, \"own\": %d, \"used\": %llu}\n",
           (int)getpid(), (int)ticks, (int)(used / (20 * MS)), (int)strange, seen.sa_sigaction == on_prof,
           (unsigned long long)used);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t ns = argc > 1 ? strtoull(argv[1], NULL, 10) * MS : 0;
    if (argc < 2)
        return 2;
    work(ns);
    if (argc > 2) {
        pid_t pid = fork();
        if (pid == 0) {
            if (strcmp(argv[2], "exec") == 0)
                execl("/proc/self/exe", argv[0], argv[1], (char *)NULL);
            work(ns);
            exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    return 0;
}
