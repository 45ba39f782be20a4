/* Threads that follow one another on the same stack memory: `deep_threads WAY MS`, where WAY is
 *   given   all have the one stack that the program made
 *   cached  libc gives the next one the stack of the last
 *   ends    as cached, and they end from within: pthread_exit, and cancelled
 * Kinds of threads take turns, and each goes deep through functions of its own: a_..., b_... No stack has both. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "deep.h"

#define STACK (512u << 10)
#define DEPTH 200

static uint64_t until_ns;
static bool ends;

/* Two recursions whose frames are of the same size, so that slots and return addresses lie in the same places. */
#define KIND(k)                                                                                              \
    WORK static uint64_t k##_end(uint64_t x)                                                                 \
    {                                                                                                        \
        return burn(x % 7 == 0 ? MS / 2 : MS / 20) != 0 ? x : 0;                                             \
    }                                                                                                        \
    WORK static uint64_t k##_down(unsigned depth, uint64_t x)                                                \
    {                                                                                                        \
        volatile uint64_t canary[3] = {x, x + 1, x + 2};                                                     \
        uint64_t below = depth > 1 ? k##_down(depth - 1, deep_step(x)) : k##_end(x);                         \
        deep_check(canary[0] == x && canary[1] == x + 1 && canary[2] == x + 2);                              \
        return deep_fold(below, x);                                                                          \
    }                                                                                                        \
    WORK static void k##_leave(uint64_t x)                                                                   \
    {                                                                                                        \
        volatile uint64_t canary = x;                                                                        \
        k##_end(x);                                                                                          \
        if (ends && x % 3 == 0)                                                                              \
            pthread_exit(NULL);                                                                              \
        if (ends && x % 3 == 1) {                                                                            \
            pthread_cancel(pthread_self());                                                                  \
            pthread_testcancel();                                                                            \
        }                                                                                                    \
        deep_check(canary == x);                                                                             \
    }                                                                                                        \
    WORK static void k##_leave_deep(unsigned depth, uint64_t x)                                              \
    {                                                                                                        \
        volatile uint64_t canary = x;                                                                        \
        if (depth > 1)                                                                                       \
            k##_leave_deep(depth - 1, x);                                                                    \
        else                                                                                                 \
            k##_leave(x);                                                                                    \
        deep_check(canary == x);                                                                             \
    }                                                                                                        \
    WORK static void *k##_main(void *arg)                                                                    \
    {                                                                                                        \
        uint64_t first = (uintptr_t)arg;                                                                     \
        for (uint64_t x = first; x < first + 5; x++)                                                         \
            deep_check(k##_down(DEPTH, x) == deep_expected(DEPTH, x));                                       \
        k##_leave_deep(60, first);                                                                           \
        return NULL;                                                                                         \
    }
KIND(a)
KIND(b)

int main(int argc, char **argv)
{
    pthread_attr_t attr;

    if (argc < 3)
        return 2;
    until_ns = process_cpu_ns() + strtoull(argv[2], NULL, 10) * MS;
    ends = strcmp(argv[1], "ends") == 0;
    pthread_attr_init(&attr);
    if (strcmp(argv[1], "given") == 0) {
        void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED || pthread_attr_setstack(&attr, stack, STACK) != 0)
            return 1;
    }
    for (uintptr_t i = 0; i < 20 || process_cpu_ns() < until_ns; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attr, i % 2 == 0 ? a_main : b_main, (void *)i) != 0 ||
            pthread_join(thread, NULL) != 0)
            return 1;
    }
    printf("wrong %ld\n", deep_wrong);
    return 0;
}
