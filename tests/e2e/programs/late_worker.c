/* `late_worker SLEEPERS DEPTH MS`: the last of many threads is the one that works, for so much CPU time, DEPTH frames deep on
 * stacks that are all different. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "work.h"

#define STACK_BYTES (256u << 10)

static volatile uint64_t sink;
static uint64_t budget_ns;
static unsigned depth;

static void *sleep_on(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static unsigned left(unsigned n, unsigned path);

WORK static unsigned right(unsigned n, unsigned path)
{
    unsigned next = path >> 1 | path << 31;
    if (n == 0)
        return (unsigned)burn(20000);
    return 1 + (path & 1 ? left(n - 1, next) : right(n - 1, next));
}

WORK static unsigned left(unsigned n, unsigned path)
{
    unsigned next = path >> 1 | path << 31;
    if (n == 0)
        return (unsigned)burn(20000);
    return 2 + (path & 1 ? left(n - 1, next) : right(n - 1, next));
}

static void *work(void *arg)
{
    unsigned path = 1;
    while (thread_cpu_ns() < budget_ns)
        sink = sink + left(depth, path = path * 1664525u + 1013904223u);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_attr_t small;
    pthread_t thread;
    if (argc != 4)
        return 2;
    depth = (unsigned)atoi(argv[2]);
    budget_ns = strtoull(argv[3], NULL, 10) * MS;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    for (int i = 0; i < atoi(argv[1]); i++)
        if (pthread_create(&thread, &small, sleep_on, NULL) != 0)
            return 3;
    if (pthread_create(&thread, &small, work, NULL) != 0)
        return 3;
    return pthread_join(thread, NULL);
}
