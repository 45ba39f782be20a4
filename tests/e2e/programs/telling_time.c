/* Works in two threads until it is killed, and says every few milliseconds what its clocks are: CLOCK_MONOTONIC and its CPU
 * time, in nanoseconds. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "work.h"

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

WORK static uint64_t work_until_killed(uint64_t ns)
{
    return burn(ns);
}

/* The bound is there so that nothing stays behind if nobody kills it. */
static void *thread_main(void *unused)
{
    (void)unused;
    work_until_killed(20000ull * MS);
    return NULL;
}

int main(void)
{
    char line[64];
    pthread_t t;
    if (pthread_create(&t, NULL, thread_main, NULL) != 0)
        return 1;
    for (int i = 0; i < 10000; i++) {
        uint64_t cpu =
            clock_ns(CLOCK_PROCESS_CPUTIME_ID); /* first, so that it is not too much for the other one */
        int n = snprintf(line, sizeof line, "%" PRIu64 " %" PRIu64 "\n", clock_ns(CLOCK_MONOTONIC), cpu);
        if (write(STDOUT_FILENO, line, (size_t)n) != n)
            return 1;
        work_until_killed(2 * MS);
    }
    return 0;
}
