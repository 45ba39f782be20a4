/* A thread whose handler jumps out of its waits, wherever it is in them: also out of what stands before and behind the calls. Started
 * with PROFILE_BLOCK. Prints how many times it was left, and how long it took to stop the profile after that. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "stile.h"

#define MS 1000000ull

static sigjmp_buf out;
static volatile sig_atomic_t armed;
static _Atomic int ending;
static unsigned jumped;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void jump(int signal)
{
    (void)signal;
    if (armed) {
        armed = 0;
        siglongjmp(out, 1);
    }
}

static void *waits(void *arg)
{
    while (!ending) {
        if (sigsetjmp(out, 1) != 0) {
            jumped++;
            continue;
        }
        armed = 1;
        while (!ending)
            usleep(1);
        armed = 0;
    }
    return arg;
}

int main(void)
{
    pthread_t thread;
    const uint64_t end = now_ns() + 1000 * MS;
    unsigned chance = 1;

    signal(SIGUSR1, jump);
    if (pthread_create(&thread, NULL, waits, NULL) != 0)
        return 1;
    while (now_ns() < end) {
        chance = chance * 1103515245 + 12345;
        const uint64_t next = now_ns() + 20000 + (chance >> 16) % 60000;
        while (now_ns() < next)
            ;
        pthread_kill(thread, SIGUSR1);
    }
    ending = 1;
    pthread_join(thread, NULL);
    const uint64_t start = now_ns();
    const int err = stile_profile_stop();
    printf("stop %u %llu\n", jumped, (unsigned long long)(now_ns() - start));
    return err != 0;
}
