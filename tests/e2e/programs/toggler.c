/* Sends itself the toggle's signal at known places: `toggler SIGNAL STEP...`. Says in JSON how much CPU time work_on and
 * work_off used, and how much all background threads did.
 *   t        the signal, to the process        on=MS  work_on     off=MS  work_off      sleep=MS
 *   spin=N   N background threads, in work_thread, until `join`           churn=MS  threads come and go while it lasts
 *   many=N   the signal N times in a row       handle   a handler of the program's for the signal     fork   goes on
 *   in a child, for which the parent waits     exec     goes on after an exec of itself */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

#define MAX_THREADS 16

static _Atomic int stop;
static pthread_t threads[MAX_THREADS];
static int n_threads;
static uint64_t on_ns, off_ns, handled;
static _Atomic uint64_t thread_ns;

WORK static uint64_t work_on(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_off(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_thread(uint64_t ns)
{
    return burn(ns);
}

static void *spinner(void *arg)
{
    while (!stop)
        thread_ns += work_thread(MS);
    return arg;
}

static void *short_life(void *arg)
{
    thread_ns += work_thread(MS / 5);
    return arg;
}

static void handler(int number)
{
    (void)number;
    handled++;
}

static void churn(uint64_t ns)
{
    struct timespec now, begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        pthread_t some[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&some[i], NULL, short_life, NULL) != 0)
                exit(3);
        for (int i = 0; i < 4; i++)
            pthread_join(some[i], NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((uint64_t)(now.tv_sec - begin.tv_sec) * 1000000000u + (uint64_t)now.tv_nsec -
                 (uint64_t)begin.tv_nsec <
             ns);
}

static void threads_start(int n)
{
    stop = 0;
    for (n_threads = 0; n_threads < n && n_threads < MAX_THREADS; n_threads++)
        if (pthread_create(&threads[n_threads], NULL, spinner, NULL) != 0)
            exit(3);
}

static void threads_join(void)
{
    stop = 1;
    while (n_threads > 0)
        pthread_join(threads[--n_threads], NULL);
}

int main(int argc, char **argv)
{
    int number = argc > 1 ? atoi(argv[1]) : 0;
    for (int i = 2; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        uint64_t n = value != NULL ? strtoull(value + 1, NULL, 10) : 0;
        if (strcmp(argv[i], "t") == 0)
            kill(getpid(), number);
        else if (strncmp(argv[i], "many", 4) == 0)
            for (; n > 0; n--)
                kill(getpid(), number);
        else if (strncmp(argv[i], "on", 2) == 0)
            on_ns += work_on(n * MS);
        else if (strncmp(argv[i], "off", 3) == 0)
            off_ns += work_off(n * MS);
        else if (strncmp(argv[i], "sleep", 5) == 0)
            usleep((useconds_t)n * 1000);
        else if (strncmp(argv[i], "spin", 4) == 0)
            threads_start((int)n);
        else if (strcmp(argv[i], "join") == 0)
            threads_join();
        else if (strncmp(argv[i], "churn", 5) == 0)
            churn(n * MS);
        else if (strcmp(argv[i], "handle") == 0)
            signal(number, handler);
        else if (strcmp(argv[i], "fork") == 0) {
            pid_t pid = fork();
            if (pid != 0) {
                int status;
                waitpid(pid, &status, 0);
                return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
            }
        } else if (strcmp(argv[i], "exec") == 0) {
            argv[i] = argv[1];
            argv[i - 1] = argv[0];
            execv("/proc/self/exe", argv + i - 1);
        } else
            return 2;
    }
    printf("{\"pid\": %d, \"on\": %llu, \"off\": %llu, \"threads\": %llu, \"handled\": %llu}\n",
           (int)getpid(), (unsigned long long)on_ns, (unsigned long long)off_ns,
           (unsigned long long)thread_ns, (unsigned long long)handled);
    return 0;
}
