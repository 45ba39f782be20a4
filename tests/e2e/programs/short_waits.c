/* Many short waits: one thread asks another through a pipe, which works a little before it answers. Prints how many waits the
 * first one had and how long they took together. short_waits N */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int there[2], back[2], n;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void work(uint64_t ns)
{
    uint64_t end = now_ns() + ns;
    while (now_ns() < end)
        ;
}

static __attribute__((noinline)) void answers(void)
{
    char byte;
    for (int i = 0; i < n; i++) {
        if (read(there[0], &byte, 1) != 1)
            _exit(1);
        work(50000);
        if (write(back[1], &byte, 1) != 1)
            _exit(1);
    }
}

static void *other(void *arg)
{
    answers();
    return arg;
}

static __attribute__((noinline)) uint64_t asks(void)
{
    char byte = 0;
    uint64_t ns = 0;
    for (int i = 0; i < n; i++) {
        if (write(there[1], &byte, 1) != 1)
            _exit(1);
        uint64_t start = now_ns();
        if (read(back[0], &byte, 1) != 1)
            _exit(1);
        ns += now_ns() - start;
    }
    return ns;
}

int main(int argc, char **argv)
{
    pthread_t t;
    n = argc > 1 ? atoi(argv[1]) : 1000;
    if (pipe(there) != 0 || pipe(back) != 0 || pthread_create(&t, NULL, other, NULL) != 0)
        return 1;
    uint64_t ns = asks();
    pthread_join(t, NULL);
    printf("asks %d %llu\n", n, (unsigned long long)ns);
    return 0;
}
