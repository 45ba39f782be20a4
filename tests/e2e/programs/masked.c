/* Blocks all signals, as careful programs do around their workers, and checks that it sees the masks that
 * it set. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "work.h"

struct worker {
    pthread_t handle;
    bool inherited, kept; /* the mask was full at the start; it is what was set last */
    uint64_t used;
};

WORK static uint64_t spin_masked(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_open(uint64_t ns)
{
    return burn(ns);
}

/* SIGKILL, SIGSTOP and the C library's own two cannot be blocked, whatever was asked for. */
static bool mask_is(bool full)
{
    sigset_t now;
    if (pthread_sigmask(SIG_SETMASK, NULL, &now) != 0)
        return false;
    for (int s = 1; s <= SIGRTMAX; s++) {
        if (s == SIGKILL || s == SIGSTOP || (s > 31 && s < SIGRTMIN))
            continue;
        if ((sigismember(&now, s) == 1) != full)
            return false;
    }
    return true;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    sigset_t all;

    w->inherited = mask_is(true);
    w->used = spin_masked(300 * MS);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    w->used += spin_masked(300 * MS);
    w->kept = mask_is(true);
    return NULL;
}

int main(void)
{
    struct worker workers[2];
    sigset_t all, before, old;
    bool start_empty = mask_is(false), all_blocked, old_full, back;

    memset(workers, 0, sizeof workers);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    all_blocked = mask_is(true);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&workers[i].handle, NULL, worker_main, &workers[i]) != 0)
            return 1;
    pthread_sigmask(SIG_SETMASK, &before, &old);
    old_full = sigismember(&old, SIGPROF) == 1 && sigismember(&old, SIGTERM) == 1;
    back = mask_is(false);
    uint64_t used = spin_open(300 * MS);
    for (int i = 0; i < 2; i++)
        pthread_join(workers[i].handle, NULL);
    printf("start_empty %d all_blocked %d old_full %d back %d inherited %d %d kept %d %d\n", start_empty,
           all_blocked, old_full, back, workers[0].inherited, workers[1].inherited, workers[0].kept,
           workers[1].kept);
    fprintf(stderr, "%llu %llu\n", (unsigned long long)(workers[0].used + workers[1].used),
            (unsigned long long)used);
    return 0;
}
