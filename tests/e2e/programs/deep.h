/* What programs do deep on a stack, and check: a recursion of three functions whose frames differ, in an order that the data
 * says. A return that leads elsewhere gives another result, finds another canary, or crashes. */
#ifndef STILE_E2E_DEEP_H
#define STILE_E2E_DEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "work.h"

/* What is called at the bottom, between the way down and the way up. */
struct deep {
    void (*bottom)(void *arg);
    void *arg;
};

static long deep_wrong; /* changed atomically: frames and results that were not as they should be */

static inline uint64_t deep_step(uint64_t x)
{
    return x * 6364136223846793005u + 1442695040888963407u;
}

static inline unsigned deep_which(uint64_t x)
{
    return (unsigned)(x >> 40) % 3;
}

static inline uint64_t deep_fold(uint64_t below, uint64_t x)
{
    return (below ^ x) * 0x9e3779b97f4a7c15u + deep_which(x);
}

static inline void deep_check(bool right)
{
    if (!right)
        __atomic_fetch_add(&deep_wrong, 1, __ATOMIC_RELAXED);
}

WORK __attribute__((unused)) static uint64_t deep_a(const struct deep *d, unsigned depth, uint64_t x);
WORK __attribute__((unused)) static uint64_t deep_b(const struct deep *d, unsigned depth, uint64_t x);
WORK __attribute__((unused)) static uint64_t deep_c(const struct deep *d, unsigned depth, uint64_t x);

#define DEEP_NEXT(d, depth, x)                                                                               \
    (deep_which(x) == 0   ? deep_a((d), (depth), (x))                                                        \
     : deep_which(x) == 1 ? deep_b((d), (depth), (x))                                                        \
                          : deep_c((d), (depth), (x)))

#define DEEP_FRAME(name, words, which)                                                                       \
    static uint64_t name(const struct deep *d, unsigned depth, uint64_t x)                                   \
    {                                                                                                        \
        volatile uint64_t canary[words];                                                                     \
        uint64_t below = x;                                                                                  \
        for (unsigned i = 0; i < (words); i++)                                                               \
            canary[i] = x + i;                                                                               \
        if (depth > 1)                                                                                       \
            below = DEEP_NEXT(d, depth - 1, deep_step(x));                                                   \
        else if (d != NULL)                                                                                  \
            d->bottom(d->arg);                                                                               \
        bool right = deep_which(x) == (which);                                                               \
        for (unsigned i = 0; i < (words); i++)                                                               \
            right &= canary[i] == x + i;                                                                     \
        deep_check(right);                                                                                   \
        return deep_fold(below, x);                                                                          \
    }
DEEP_FRAME(deep_a, 1, 0)
DEEP_FRAME(deep_b, 6, 1)
DEEP_FRAME(deep_c, 15, 2)

/* The same without a stack. */
static inline uint64_t deep_expected(unsigned depth, uint64_t x)
{
    uint64_t all[512], r = 0;
    if (depth > 512)
        abort();
    for (unsigned i = 0; i < depth; i++, x = deep_step(x))
        r = all[i] = x;
    for (unsigned i = depth; i-- > 0;)
        r = deep_fold(r, all[i]);
    return r;
}

/* Goes down so many frames, 512 at most, calls d's bottom, if there is a d, and comes back. */
static inline void deep_do(const struct deep *d, unsigned depth, uint64_t x)
{
    deep_check(DEEP_NEXT(d, depth, x) == deep_expected(depth, x));
}

static inline uint64_t process_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
