/* Starts, flushes and stops profiles from several threads at once, while others work: `starts DIRECTORY HZ PROFILES`. Prints
 * whether all was answered as it has to be; what was not, by name, on standard error. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stile.h"
#include "work.h"

#define CALLERS 3

static const char *directory;
static unsigned hz, wanted;
static _Atomic bool over;
static _Atomic unsigned started, stopped, flushed, odd, numbers;

WORK static uint64_t work_beside(uint64_t ns)
{
    return burn(ns);
}

static void *work_main(void *unused)
{
    while (!over)
        work_beside(MS);
    return unused;
}

/* Counts a success, or one of the answers that another one's call explains. */
static void told(int result, int expected, _Atomic unsigned *succeeded)
{
    if (result == 0)
        atomic_fetch_add(succeeded, 1);
    else if (result != expected) {
        fprintf(stderr, "%s\n", strerrorname_np(-result));
        atomic_fetch_add(&odd, 1);
    }
}

static void *call_main(void *unused)
{
    for (unsigned i = 0; started < wanted; i++) {
        char path[4096];
        struct stile_profile_options o = {.size = sizeof o, .path = path, .hz = hz};
        snprintf(path, sizeof path, "%s/%u.pb.gz", directory, atomic_fetch_add(&numbers, 1));
        int result = stile_profile_start(&o);
        told(result, -EALREADY, &started);
        work_beside(5 * MS);
        told(stile_profile_flush(), -ESRCH, &flushed);
        if (result == 0 || i % 4 == 0) /* somebody else's, it may be */
            told(stile_profile_stop(), -ESRCH, &stopped);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[CALLERS + 2];
    if (argc < 4)
        return 2;
    directory = argv[1];
    hz = (unsigned)strtoul(argv[2], NULL, 10);
    wanted = (unsigned)strtoul(argv[3], NULL, 10);
    for (int i = 0; i < CALLERS + 2; i++)
        if (pthread_create(&threads[i], NULL, i < CALLERS ? call_main : work_main, NULL) != 0)
            return 3;
    for (int i = 0; i < CALLERS + 2; i++) {
        pthread_join(threads[i], NULL);
        if (i == CALLERS - 1)
            over = true;
    }
    puts(odd == 0 && started >= wanted && started == stopped ? "as it has to be" : "not so");
    return 0;
}
