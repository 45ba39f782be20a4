/* undisturbed SECONDS: threads that wait all the time in calls that any signal breaks off, and count how often that happens; one that
 * computes. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WAITERS 12

static _Atomic int stop;
static _Atomic long calls, broken;

static void *wait_shortly(void *arg)
{
    struct timespec short_time = {0, 100000};
    while (!stop) {
        for (volatile int i = 0; i < 3000; i++)
            ;
        broken += poll(NULL, 0, 1) < 0 && errno == EINTR;
        broken += nanosleep(&short_time, NULL) < 0 && errno == EINTR;
        calls += 2;
    }
    return arg;
}

static void *compute(void *arg)
{
    for (volatile unsigned long n = 0; !stop; n++)
        ;
    return arg;
}

int main(int argc, char **argv)
{
    struct timespec end, now;
    pthread_t t[WAITERS + 1];
    for (int i = 0; i <= WAITERS; i++)
        pthread_create(&t[i], NULL, i < WAITERS ? wait_shortly : compute, NULL);
    printf("ready\n");
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += argc > 1 ? atoi(argv[1]) : 1;
    do {
        struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
    stop = 1;
    for (int i = 0; i <= WAITERS; i++)
        pthread_join(t[i], NULL);
    printf("calls: %d, broken off: %ld\n", calls > 0, (long)broken);
    return 0;
}
