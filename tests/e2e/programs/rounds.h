/* What the programs of the barrier cases share: rounds for as long as CPU time is left, work on each frame, so
 * that samples find stacks of every depth, and checks. What they print does not depend on how many rounds there
 * were. */
#ifndef STILE_E2E_ROUNDS_H
#define STILE_E2E_ROUNDS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "work.h"

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what))                                                                                         \
            check_failed(__FILE__, __LINE__, #what);                                                         \
    } while (0)

static inline void check_failed(const char *file, int line, const char *what)
{
    printf("%s:%d: not so: %s\n", file, line, what);
    fflush(stdout);
    abort();
}

static inline uint64_t process_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A number below n, from a generator that starts with any number. */
static inline unsigned random_below(uint64_t *state, unsigned n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33) % n;
}

/* Which all numbers are told apart by. */
static inline uint64_t mix(uint64_t n)
{
    n = (n + 1) * 0x9e3779b97f4a7c15u;
    return (n ^ (n >> 29)) * 0xbf58476d1ce4e5b9u;
}

/* A few microseconds. */
static inline __attribute__((always_inline)) void work_a_little(void)
{
    uint64_t x = 1;
    for (int i = 0; i < 3000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
}

#endif
