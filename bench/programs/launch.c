/* Runs a command and says what it used, whoever stands between it and the benchmark's driver:
 *
 *   launch [-a] [-c CPU] FILE [NAME=VALUE]... COMMAND [ARGUMENT]...
 *
 * With -c the command, and what it starts, is kept to that processor. FILE gets "STATUS WALL USER SYSTEM MAXRSS START END": the wait status, seconds, seconds of CPU time of the command and all
 * that it waited for, KiB of the largest of them, and CLOCK_MONOTONIC in seconds at both ends. The variables are the
 * command's alone: a library that is preloaded into it is not preloaded here.
 *
 * With -a it adopts what the command leaves behind, such as a collector, and ends after the last of these, so that their
 * CPU time is in that of its children and is nobody else's; a second line in FILE has KiB of the largest. */
#include <errno.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

static int usage(void)
{
    fputs("launch [-a] [-c CPU] FILE [NAME=VALUE]... COMMAND [ARGUMENT]...\n", stderr);
    return 2;
}

static int complain(const char *what)
{
    fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
    return 2;
}

static int keep_to(const char *cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(strtoul(cpu, NULL, 10), &one);
    return sched_setaffinity(0, sizeof one, &one);
}

/* Waits for the command; what was adopted may end before it. Returns its status, and KiB of the largest of the others. */
static int wait_for(pid_t command, struct rusage *used, long *others)
{
    int status;
    for (;;) {
        pid_t pid = wait4(-1, &status, 0, used);
        if (pid == command)
            return status;
        if (pid < 0 && errno != EINTR)
            return -1;
        if (pid > 0 && used->ru_maxrss > *others)
            *others = used->ru_maxrss;
    }
}

static void wait_for_adopted(long *largest)
{
    struct rusage used;
    int status;
    for (;;) {
        pid_t pid = wait4(-1, &status, 0, &used);
        if (pid < 0 && errno != EINTR)
            return;
        if (pid > 0 && used.ru_maxrss > *largest)
            *largest = used.ru_maxrss;
    }
}

static int run(FILE *f, char **argv, int adopts)
{
    pid_t pid;
    struct rusage used;
    long others = 0;
    double start = now();
    int err = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (err != 0) {
        fprintf(stderr, "launch: %s: %s\n", argv[0], strerror(err));
        return 127;
    }
    int status = wait_for(pid, &used, &others);
    double end = now();
    fprintf(f, "%d %.9f %.6f %.6f %ld %.9f %.9f\n", status, end - start, seconds(&used.ru_utime),
            seconds(&used.ru_stime), used.ru_maxrss, start, end);
    fflush(f);
    if (adopts) {
        wait_for_adopted(&others);
        fprintf(f, "%ld\n", others);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int adopts = 0, option;
    while ((option = getopt(argc, argv, "+ac:")) != -1) {
        if (option == 'a') {
            adopts = 1;
            if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
                return complain("prctl");
        } else if (option != 'c')
            return usage();
        else if (keep_to(optarg) != 0)
            return complain(optarg);
    }
    int first = optind + 1;
    for (; first < argc && strchr(argv[first], '=') != NULL; first++)
        putenv(argv[first]);
    if (first >= argc)
        return usage();
    FILE *f = fopen(argv[optind], "we");
    if (f == NULL)
        return complain(argv[optind]);
    int status = run(f, argv + first, adopts);
    return fclose(f) == 0 ? status : 2;
}
