/* Waits that no hook sees: in stdio, and in a futex by the system call. Prints how long they took, thread by thread, and for how
 * much of that it was ready to run. Then, if asked, waits for ever. unseen_waits [forever] */
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/programs/run_delay.h"

#define ROUNDS 10

static int fds[2];

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct took {
    uint64_t ns, delay;
};

static void *feeds(void *arg)
{
    (void)arg;
    pthread_setname_np(pthread_self(), "feeds");
    for (int i = 0; i < ROUNDS; i++) {
        usleep(30000);
        if (write(fds[1], "line\n", 5) != 5)
            _exit(1);
    }
    return NULL;
}

static void *reads(void *arg)
{
    struct took *t = arg;
    FILE *f = fdopen(fds[0], "r");
    char line[16];
    pthread_setname_np(pthread_self(), "reads");
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = now_ns();
        if (fgets(line, sizeof line, f) == NULL)
            _exit(1);
        t->ns += now_ns() - start;
    }
    t->delay = run_delay();
    return NULL;
}

static void *waits(void *arg)
{
    struct took *t = arg;
    uint32_t word = 0;
    struct timespec ts = {0, 200000000};
    pthread_setname_np(pthread_self(), "waits");
    uint64_t start = now_ns();
    syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ts, NULL, 0);
    t->ns = now_ns() - start;
    t->delay = run_delay();
    return NULL;
}

static __attribute__((noinline)) void for_ever(void)
{
    char byte;
    int never[2];
    if (pipe(never) != 0 || read(never[0], &byte, 1) < 0)
        _exit(1);
}

int main(int argc, char **argv)
{
    struct took read_took = {0, 0}, wait_took = {0, 0};
    pthread_t threads[3];
    if (pipe(fds) != 0)
        return 1;
    pthread_create(&threads[0], NULL, feeds, NULL);
    pthread_create(&threads[1], NULL, reads, &read_took);
    pthread_create(&threads[2], NULL, waits, &wait_took);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("reads %d %" PRIu64 " %" PRIu64 "\nwaits 1 %" PRIu64 " %" PRIu64 "\n", ROUNDS, read_took.ns,
           read_took.delay, wait_took.ns, wait_took.delay);
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "forever") == 0)
        for_ever();
    return 0;
}
