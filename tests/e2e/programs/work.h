/* What the test programs share: burning a measured amount of CPU time in a function of a known name.
 * Every function that a test looks for is marked WORK, so that it is neither inlined, cloned nor merged. */
#ifndef STILE_E2E_WORK_H
#define STILE_E2E_WORK_H

#include <stdint.h>
#include <time.h>

#define WORK __attribute__((noipa))

static inline uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Uses `ns` of the calling thread's CPU time, and a few microseconds more; returns how much it was. */
static inline __attribute__((always_inline)) uint64_t burn(uint64_t ns)
{
    uint64_t begin = thread_cpu_ns(), used = 0, x = begin | 1;
    do {
        for (int i = 0; i < 5000; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(x));
        }
        used = thread_cpu_ns() - begin;
    } while (used < ns);
    return used;
}

#define MS 1000000u

#endif
