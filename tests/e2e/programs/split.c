/* A known split of CPU time: `split THREADS TOTAL_MS`. Thread i of n gets i+1 parts of the total, and each
 * spends it 50:30:20 in spin_a, spin_b, spin_c. Says in JSON what every thread really spent where, by its own
 * CPU clock, and what getrusage says of the process.
 *
 * The functions take turns in rounds of ten turns, shuffled, so that no sampling period can fall in step. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "work.h"

#define MAX_THREADS 64
#define TURNS       10
#define TURN_NS     (5 * MS)

struct thread {
    pthread_t handle;
    int index;
    pid_t tid;
    uint64_t budget;
    uint64_t total;    /* the thread's own clock at its end */
    uint64_t spent[3]; /* spin_a, spin_b, spin_c */
};

WORK static uint64_t spin_a(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_b(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_c(uint64_t ns)
{
    return burn(ns);
}

static uint64_t (*const spin[3])(uint64_t) = {spin_a, spin_b, spin_c};

static void shuffle(int *turn, unsigned *seed)
{
    for (int i = TURNS - 1; i > 0; i--) {
        int j = rand_r(seed) % (i + 1), t = turn[i];
        turn[i] = turn[j];
        turn[j] = t;
    }
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    int turn[TURNS] = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2};
    unsigned seed = 17u + (unsigned)t->index;
    char name[16];

    snprintf(name, sizeof name, "split-%d", t->index);
    pthread_setname_np(pthread_self(), name);
    t->tid = gettid();
    for (uint64_t rounds = t->budget / (TURNS * TURN_NS); rounds > 0; rounds--) {
        shuffle(turn, &seed);
        for (int i = 0; i < TURNS; i++)
            t->spent[turn[i]] += spin[turn[i]](TURN_NS);
    }
    t->total = thread_cpu_ns();
    return NULL;
}

int main(int argc, char **argv)
{
    static struct thread threads[MAX_THREADS];
    int n = argc > 1 ? atoi(argv[1]) : 2;
    uint64_t total = (argc > 2 ? strtoull(argv[2], NULL, 10) : 4000) * MS;
    struct rusage use;

    if (n < 1 || n > MAX_THREADS)
        return 2;
    for (int i = 0; i < n; i++) {
        threads[i].index = i;
        threads[i].budget = total * (uint64_t)(i + 1) / (uint64_t)(n * (n + 1) / 2);
        if (pthread_create(&threads[i].handle, NULL, thread_main, &threads[i]) != 0)
            return 1;
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i].handle, NULL);

    printf("{\"threads\": [");
    for (int i = 0; i < n; i++)
        printf("%s{\"tid\": %d, \"name\": \"split-%d\", \"total\": %llu, \"spin_a\": %llu, \"spin_b\": %llu, "
               "\"spin_c\": %llu}",
               i ? ", " : "", (int)threads[i].tid, i, (unsigned long long)threads[i].total,
               (unsigned long long)threads[i].spent[0], (unsigned long long)threads[i].spent[1],
               (unsigned long long)threads[i].spent[2]);
    getrusage(RUSAGE_SELF, &use);
    printf("], \"rusage\": %llu}\n",
           (unsigned long long)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000000u +
               (unsigned long long)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1000u);
    return 0;
}
