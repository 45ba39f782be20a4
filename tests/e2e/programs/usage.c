/* Uses CPU time in one of the ways that a profiler may miscount, and says in JSON what the clocks say of it:
 *
 *   usage threads N MS     N threads at once, MS of CPU time each
 *   usage pool N K US      N threads, K at a time, US each
 *   usage calls MS         half of the time in the kernel, called from call_kernel
 *   usage long_call MS     MS, nearly all in a single system call
 *   usage faults MS        half of the time in page faults
 *   usage blocked MS       all signals blocked for half of the time, by libc
 *   usage raw_blocked MS   the same by raw system calls
 *   usage sleeper MS       a little work, then sleep, until that much CPU time is used
 *   usage full N MS        all descriptors taken, then as threads
 *   usage closing MS       half of the time, then closes all descriptors and opens files of its own, and goes on */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "work.h"

#define MAX_THREADS 1024

static struct {
    pid_t tid;
    uint64_t ns;
} threads[MAX_THREADS];
static int n_threads;
static uint64_t each_ns, kernel_ns;

static uint64_t process_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

WORK static uint64_t spin(uint64_t ns)
{
    return burn(ns);
}

static void *thread_main(void *index)
{
    int i = (int)(intptr_t)index;
    spin(each_ns);
    if (i >= 0) {
        threads[i].tid = gettid();
        threads[i].ns = thread_cpu_ns();
    }
    return NULL;
}

static void at_once(int n, bool told)
{
    pthread_t handles[MAX_THREADS];
    for (int i = 0; i < n; i++)
        if (pthread_create(&handles[i], NULL, thread_main, (void *)(intptr_t)(told ? i : -1)) != 0)
            exit(1);
    for (int i = 0; i < n; i++)
        pthread_join(handles[i], NULL);
    n_threads = told ? n : 0;
}

/* Returns the CPU time that it took, nearly all of it inside of read(). */
WORK static uint64_t call_kernel(uint64_t ns)
{
    static char buffer[1 << 20];
    static int zeros = -1;
    uint64_t begin = thread_cpu_ns(), used;
    if (zeros < 0)
        zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    do {
        if (read(zeros, buffer, sizeof buffer) != (ssize_t)sizeof buffer)
            exit(1);
        used = thread_cpu_ns() - begin;
    } while (used < ns);
    return used;
}

WORK static uint64_t fault(uint64_t ns)
{
    uint64_t begin = thread_cpu_ns(), used;
    do {
        char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            exit(1);
        for (int i = 0; i < 1 << 20; i += 4096)
            at[i] = 1;
        munmap(at, 1 << 20);
        used = thread_cpu_ns() - begin;
    } while (used < ns);
    return used;
}

/* Random bytes are dear: the time that a few take tells how many to ask for at once. */
WORK static void long_call(uint64_t ns)
{
    size_t few = 4 << 20, room = 2u << 30;
    char *bytes =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t begin = thread_cpu_ns();
    if (bytes == MAP_FAILED || getrandom(bytes, few, 0) < 0)
        exit(1);
    uint64_t n = few * ns / (thread_cpu_ns() - begin + 1);
    begin = thread_cpu_ns();
    if (getrandom(bytes, n < room ? n : room, 0) < 0)
        exit(1);
    kernel_ns = thread_cpu_ns() - begin;
}

static void halves(uint64_t ns, uint64_t (*other)(uint64_t))
{
    for (uint64_t done = 0; done < ns;) {
        uint64_t in_kernel = other(3 * MS);
        kernel_ns += in_kernel;
        done += in_kernel + spin(3 * MS);
    }
}

static void mask_libc(int how, const sigset_t *set)
{
    sigprocmask(how, set, NULL);
}

static void mask_raw(int how, const sigset_t *set)
{
    syscall(SYS_rt_sigprocmask, how, set, NULL, 8);
}

static void blocked(uint64_t ns, void (*mask)(int, const sigset_t *))
{
    sigset_t all;
    sigfillset(&all);
    for (uint64_t done = 0; done < ns;) {
        mask(SIG_BLOCK, &all);
        done += spin(250 * MS);
        mask(SIG_UNBLOCK, &all);
        done += spin(250 * MS);
    }
}

static void sleeper(uint64_t ns)
{
    while (thread_cpu_ns() < ns) {
        spin(300000);
        usleep(500);
    }
}

/* The files that come to lie where others were are the program's own, and hold what it wrote. */
static void closing(uint64_t ns)
{
    char text[64];
    FILE *files[8];
    spin(ns / 2);
    closefrom(3);
    for (int i = 0; i < 8; i++) {
        files[i] = tmpfile();
        fprintf(files[i], "file %d\n", i);
        fflush(files[i]);
    }
    spin(ns / 2);
    for (int i = 0; i < 8; i++) {
        char expected[64];
        rewind(files[i]);
        snprintf(expected, sizeof expected, "file %d\n", i);
        if (fgets(text, sizeof text, files[i]) == NULL || strcmp(text, expected) != 0 ||
            fgets(text, sizeof text, files[i]) != NULL)
            exit(3);
        fclose(files[i]);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    uint64_t a = argc > 2 ? strtoull(argv[2], NULL, 10) : 0, b = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;

    if (strcmp(mode, "threads") == 0 && a <= MAX_THREADS) {
        each_ns = b * MS;
        at_once((int)a, true);
    } else if (strcmp(mode, "full") == 0 && a <= MAX_THREADS) {
        while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
            ;
        each_ns = b * MS;
        at_once((int)a, true);
    } else if (strcmp(mode, "pool") == 0 && argc > 4 && b <= MAX_THREADS) {
        each_ns = strtoull(argv[4], NULL, 10) * 1000;
        for (uint64_t i = 0; i < a; i += b)
            at_once((int)b, false);
    } else if (strcmp(mode, "calls") == 0) {
        halves(a * MS, call_kernel);
    } else if (strcmp(mode, "long_call") == 0) {
        long_call(a * MS);
    } else if (strcmp(mode, "faults") == 0) {
        halves(a * MS, fault);
    } else if (strcmp(mode, "blocked") == 0) {
        blocked(a * MS, mask_libc);
    } else if (strcmp(mode, "raw_blocked") == 0) {
        blocked(a * MS, mask_raw);
    } else if (strcmp(mode, "sleeper") == 0) {
        sleeper(a * MS);
    } else if (strcmp(mode, "closing") == 0) {
        closing(a * MS);
    } else {
        return 2;
    }
    printf("{\"kernel\": %llu, \"threads\": [", (unsigned long long)kernel_ns);
    for (int i = 0; i < n_threads; i++)
        printf("%s{\"tid\": %d, \"ns\": %llu}", i ? ", " : "", (int)threads[i].tid,
               (unsigned long long)threads[i].ns);
    printf("], \"process\": %llu}\n", (unsigned long long)process_cpu_ns());
    return 0;
}
