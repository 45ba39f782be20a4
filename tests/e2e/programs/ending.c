/* Works for a while and then ends in the way that it is told: `ending MS WAY [ARG...]`. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "work.h"

#define STATUS 7

WORK static uint64_t work_before_end(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_in_thread(uint64_t ns)
{
    return burn(ns);
}

/* Work to be interrupted: the bound is only there so that nothing stays behind if nobody does. */
WORK static uint64_t work_until_killed(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_after_failed_exec(uint64_t ns)
{
    return burn(ns);
}

static void *thread_main(void *arg)
{
    (void)arg;
    work_in_thread(60000ull * MS);
    return NULL;
}

static void start_threads(int n)
{
    pthread_t t;
    for (int i = 0; i < n; i++)
        if (pthread_create(&t, NULL, thread_main, NULL) != 0)
            exit(1);
}

static void write_for_ever(void)
{
    static const char line[] = "a line that nobody reads to its end, and then another one, and another one\n";
    for (long i = 0; i < 10000000; i++)
        if (write(STDOUT_FILENO, line, sizeof line - 1) < 0)
            exit(1);
}

static int *volatile nowhere;

static void say(const char *what)
{
    puts(what);
    fflush(stdout);
}

/* Takes the way that needs more than a call; returns if it knows none of that name. */
static void take_odd_way(const char *way, char **args)
{
    if (strcmp(way, "raise") == 0) {
        raise(atoi(args[0]));
    } else if (strcmp(way, "exec") == 0) {
        execv(args[0], args);
        perror(args[0]);
    } else if (strcmp(way, "failed-exec") == 0) {
        execl("/nonexistent/program", "program", (char *)NULL);
        work_after_failed_exec(200 * MS);
        exit(STATUS);
    } else if (strcmp(way, "threads") == 0) {
        exit(STATUS);
    } else if (strcmp(way, "linger") == 0) {
        work_until_killed(30000ull * MS);
    } else if (strcmp(way, "sleep") == 0) {
        sleep(30);
    } else if (strcmp(way, "chatter") == 0) {
        write_for_ever();
    } else if (strcmp(way, "segv") == 0) {
        *nowhere = 1;
    } else if (strcmp(way, "pthread_exit") == 0) {
        pthread_exit(NULL);
    } else if (strcmp(way, "raw_exit_group") == 0) {
        syscall(SYS_exit_group, STATUS);
    }
}

int main(int argc, char **argv)
{
    const char *way = argc > 2 ? argv[2] : "return";
    uint64_t ms = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;

    if (strcmp(way, "threads") == 0 || strcmp(way, "threads-return") == 0)
        start_threads(2);
    say("working");
    work_before_end(ms * MS);
    say("done");

    if (strcmp(way, "return") == 0 || strcmp(way, "threads-return") == 0)
        return STATUS;
    if (strcmp(way, "exit") == 0)
        exit(STATUS);
    if (strcmp(way, "_exit") == 0)
        _exit(STATUS);
    if (strcmp(way, "quick_exit") == 0)
        quick_exit(STATUS);
    if (strcmp(way, "abort") == 0)
        abort();
    take_odd_way(way, argv + 3);
    return 99;
}
