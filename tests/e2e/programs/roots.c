/* Where stacks begin, from libgcc's unwinder: one line `FILE FILE_OFFSET` for the outermost frame of the main
 * thread, of a constructor, and of a thread. */
#include <execinfo.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "work.h"

/* A file offset, by the one map that holds the address. */
static void print_place(uintptr_t address)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[4096], path[4096];
    uintptr_t start, end, offset;

    while (f && fgets(line, sizeof line, f)) {
        path[0] = '\0';
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNxPTR " %*s %*s %4095s", &start, &end, &offset,
                   path) < 3)
            continue;
        if (address >= start && address < end)
            printf("%s %" PRIuPTR "\n", path, address - start + offset);
    }
    if (f)
        fclose(f);
}

WORK static void print_root(void)
{
    void *frames[64];
    int n = backtrace(frames, 64);
    if (n > 0)
        print_place((uintptr_t)frames[n - 1] - 1);
}

__attribute__((constructor)) static void at_load(void)
{
    print_root();
}

static void *thread_main(void *arg)
{
    print_root();
    return arg;
}

int main(void)
{
    pthread_t t;
    print_root();
    if (pthread_create(&t, NULL, thread_main, NULL) != 0)
        return 1;
    return pthread_join(t, NULL);
}
