/* Threads that sleep and threads that work, and what memory is resident then:
 *
 *   idle SLEEPING WORKING SECONDS
 *
 * Prints KiB: resident memory, of which anonymous, of which shared (a profiler's region); and how many threads there are. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STACK_BYTES ((size_t)64 << 10)

static _Atomic int ready;
static _Atomic bool over;
static sem_t end;

static void *sleeping(void *unused)
{
    (void)unused;
    atomic_fetch_add(&ready, 1);
    while (sem_wait(&end) != 0)
        ;
    return NULL;
}

static void *working(void *unused)
{
    volatile unsigned long sum = 0;
    (void)unused;
    atomic_fetch_add(&ready, 1);
    while (!atomic_load_explicit(&over, memory_order_relaxed))
        for (int i = 0; i < 1000; i++)
            sum += (unsigned long)i;
    return NULL;
}

static long rollup_kib(const char *field)
{
    char line[128], name[32];
    long kib = 0, value;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%31[^:]: %ld", name, &value) == 2 && strcmp(name, field) == 0)
            kib = value;
    if (f != NULL)
        fclose(f);
    return kib;
}

int main(int argc, char **argv)
{
    int sleepers = argc > 1 ? atoi(argv[1]) : 0, workers = argc > 2 ? atoi(argv[2]) : 0;
    double seconds = argc > 3 ? atof(argv[3]) : 1;
    struct timespec nap = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)},
                    moment = {0, 1000000};
    pthread_t *threads = calloc((size_t)(sleepers + workers) + 1, sizeof *threads);
    pthread_attr_t attr;
    int begun = 0;
    sem_init(&end, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (int i = 0; i < sleepers + workers && threads != NULL; i++)
        begun += pthread_create(&threads[begun], &attr, i < sleepers ? sleeping : working, NULL) == 0;
    while (atomic_load(&ready) < begun)
        nanosleep(&moment, NULL);
    nanosleep(&nap, NULL);
    printf("%ld %ld %ld %d\n", rollup_kib("Rss"), rollup_kib("Anonymous"),
           rollup_kib("Shared_Clean") + rollup_kib("Shared_Dirty"), begun);
    atomic_store(&over, true);
    for (int i = 0; i < sleepers; i++)
        sem_post(&end);
    for (int i = 0; i < begun; i++)
        pthread_join(threads[i], NULL);
    return begun == sleepers + workers ? 0 : 1;
}
