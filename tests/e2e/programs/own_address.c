/* Functions that hand on or keep their own return address after deep work: it has to be the caller's.
 *
 *   own_address read SECONDS     by __builtin_return_address, after work
 *   own_address called SECONDS   with -finstrument-functions: what is told at a function's exit is what was told at its entry
 *   own_address counted SECONDS  the same program with -pg: each function calls mcount first
 *   own_address probed SECONDS   with a return probe of the kernel's on a function of its own
 *
 * Uses so much CPU time, and prints what was wrong: nothing. */
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define UNTOLD  __attribute__((no_instrument_function))
#define DEPTH   120
#define CALLERS 16384

static unsigned long wrong, told;

#ifdef TELLS
static void *sites[CALLERS]; /* where functions that are active were called from */
static unsigned n_sites;

UNTOLD void __cyg_profile_func_enter(void *function, void *site);
UNTOLD void __cyg_profile_func_exit(void *function, void *site);

void __cyg_profile_func_enter(void *function, void *site)
{
    (void)function;
    sites[n_sites++ % CALLERS] = site;
}

void __cyg_profile_func_exit(void *function, void *site)
{
    (void)function;
    wrong += sites[--n_sites % CALLERS] != site;
    told++;
}
#endif

UNTOLD static double seconds_used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noipa)) static unsigned work(unsigned n)
{
    for (unsigned i = 0; i < 200; i++)
        n = n * 1664525u + 1013904223u;
    return n;
}

/* Each frame keeps where it was called from, works above it, and looks again. */
__attribute__((noipa)) static unsigned down(unsigned n, unsigned depth)
{
    void *const from = __builtin_extract_return_addr(__builtin_return_address(0));
    unsigned got =
        depth == 0 ? work(n) : down(n, depth - 1) + (depth % 16 == 0 ? down(n, depth / 4) : work(n));
    __asm__ volatile("" ::: "memory");
    void *const again = __builtin_extract_return_addr(__builtin_return_address(0));
    wrong += from != again;
    return got + 1;
}

__attribute__((noipa)) static unsigned even(unsigned n, unsigned depth);
__attribute__((noipa)) static unsigned odd(unsigned n, unsigned depth)
{
    return depth == 0 ? work(n) : even(n, depth - 1) + work(n);
}
__attribute__((noipa)) static unsigned even(unsigned n, unsigned depth)
{
    return depth == 0 ? work(n) : odd(n, depth - 1) + 3;
}

/* The kernel exchanges the return address of even() for one of its own, as long as that runs. */
UNTOLD static int probe_set(void)
{
    unsigned type = 0;
    FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "re");
    if (f == NULL || fscanf(f, "%u", &type) != 1)
        return -1;
    fclose(f);
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return -1;
    self[n] = '\0';
    extern const char __executable_start[];
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = type;
    attr.config = 1; /* on return */
    attr.uprobe_path = (uintptr_t)self;
    attr.probe_offset = (uintptr_t)even - (uintptr_t)__executable_start;
    attr.sample_period = 1u << 30;
    return (int)syscall(SYS_perf_event_open, &attr, getpid(), -1, -1, 0);
}

UNTOLD int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const double end = atof(argv[2]);
    const int probed = strcmp(argv[1], "probed") == 0;
    if (probed && probe_set() < 0) {
        puts("there are no probes here");
        return 77;
    }
    unsigned sum = 0, first = 0;
    while (seconds_used() < end) {
        sum = down(7, DEPTH);
        for (unsigned i = 0; i < 20; i++)
            sum += even(i, probed ? 12 : DEPTH);
        wrong += first != 0 && first != sum;
        first = sum;
    }
    if (strcmp(argv[1], "called") == 0 && told == 0)
        puts("nothing was told");
    printf("wrong: %lu, sum %u\n", wrong, sum);
    return 0;
}
