/* How deep a tick goes on a signal stack: `nested_ticks WAY MS`, where WAY is
 *   painted  threads with painted alternate stacks of their own, large enough that ticks run there, work in all the ways that are
 *            sampled differently; prints on how many bytes below the kernel's frame any of them left a trace
 *   small    threads on painted stacks, of the smallest size there is; prints how many bytes below them were touched
 *   faults   a handler of SIGSEGV works on an alternate stack that has just the room for that, and for no tick */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "work.h"

#define PAINT     0xa5
#define ALT_BYTES (64u << 10)
#define THREADS   3

static uint64_t work_ns;
static _Atomic uint64_t deepest;

WORK static uint64_t work_flat(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_deep(unsigned depth, uint64_t ns)
{
    volatile char some[64];
    some[0] = 0;
    return (depth != 0 ? work_deep(depth - 1, ns) : burn(ns)) + (uint64_t)some[0];
}

/* New frames all the time, and system calls. */
WORK static uint64_t work_up_and_down(uint64_t ns)
{
    uint64_t begin = thread_cpu_ns(), sum = 0;
    for (unsigned i = 0; thread_cpu_ns() - begin < ns; i++)
        sum += work_deep(i % 300, 0) + (uint64_t)getppid();
    return sum;
}

WORK static int work_of_compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Through libc's frames, which are new at first. */
WORK static void work_in_libc(uint64_t ns)
{
    static int numbers[THREADS][2000];
    static _Atomic unsigned next;
    int *mine = numbers[atomic_fetch_add(&next, 1) % THREADS];
    for (uint64_t begin = thread_cpu_ns(); thread_cpu_ns() - begin < ns;) {
        for (int i = 0; i < 2000; i++)
            mine[i] = (i * 7919) % 2003;
        qsort(mine, 2000, sizeof *mine, work_of_compare);
    }
}

/* On a stack that the profiler knows nothing of. */
static _Thread_local ucontext_t back, fiber;

static void fiber_main(void)
{
    work_up_and_down(work_ns / 5);
}

static void work_on_fiber(void)
{
    static char stacks[THREADS][65536] __attribute__((aligned(16)));
    static _Atomic unsigned next;
    if (getcontext(&fiber) != 0)
        exit(3);
    fiber.uc_stack.ss_sp = stacks[atomic_fetch_add(&next, 1) % THREADS];
    fiber.uc_stack.ss_size = sizeof *stacks;
    fiber.uc_link = &back;
    makecontext(&fiber, fiber_main, 0);
    if (swapcontext(&back, &fiber) != 0)
        exit(3);
}

static void work(void)
{
    work_flat(work_ns / 5);
    work_deep(250, work_ns / 5);
    work_up_and_down(work_ns / 5);
    work_in_libc(work_ns / 5);
    work_on_fiber();
}

static uintptr_t lowest_touched(const char *low, const char *high)
{
    const char *at = low;
    while (at < high && (unsigned char)*at == PAINT)
        at++;
    return (uintptr_t)at;
}

/* Where the kernel's frame for a handler on this stack begins. */
static _Thread_local volatile uintptr_t frame_at;

static void on_probe(int number)
{
    (void)number;
    frame_at = (uintptr_t)__builtin_frame_address(0) + 8; /* of the return address */
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    if (sigaction(number, &action, NULL) != 0)
        exit(3);
}

static void *painted_main(void *unused)
{
    char *alt = mmap(NULL, ALT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = alt, .ss_size = ALT_BYTES}, none = {.ss_flags = SS_DISABLE}, shown;
    if (alt == MAP_FAILED)
        exit(3);
    memset(alt, PAINT, ALT_BYTES);
    if (sigaltstack(&stack, NULL) != 0)
        exit(3);
    work();
    uintptr_t touched = lowest_touched(alt, alt + ALT_BYTES);
    pthread_kill(pthread_self(), SIGUSR1);
    if (sigaltstack(&none, &shown) != 0 || shown.ss_sp != alt || frame_at - (uintptr_t)alt >= ALT_BYTES)
        exit(3);
    uint64_t used = touched < frame_at ? frame_at - touched : 0, before = deepest;
    while (used > before && !atomic_compare_exchange_weak(&deepest, &before, used))
        ;
    munmap(alt, ALT_BYTES);
    return unused;
}

/* Paints what is below, works, and looks. */
WORK static void painted_below(char *low)
{
    char *high = (char *)((uintptr_t)__builtin_frame_address(0) - 512);
    for (volatile char *p = low; p < high; p++)
        *p = (char)PAINT;
    work_flat(work_ns);
    uintptr_t touched = lowest_touched(low, high);
    uint64_t used = (uintptr_t)high - touched;
    if (used > deepest)
        deepest = used;
}

static void *small_main(void *low)
{
    painted_below(low);
    return NULL;
}

static void run(void *(*start)(void *), unsigned n, size_t stack_bytes)
{
    pthread_t threads[THREADS];
    pthread_attr_t attr;
    for (unsigned i = 0; i < n; i++) {
        char *stack =
            mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (stack == MAP_FAILED || pthread_attr_init(&attr) != 0 ||
            pthread_attr_setstack(&attr, stack, stack_bytes) != 0 ||
            pthread_create(&threads[i], &attr, start, stack) != 0)
            exit(3);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static char *volatile forbidden; /* a page */

WORK static uint64_t work_in_handler(uint64_t ns)
{
    return burn(ns);
}

static void on_fault(int number)
{
    (void)number;
    work_in_handler(work_ns);
    if (mprotect(forbidden, 4096, PROT_READ | PROT_WRITE) != 0)
        _exit(4);
}

/* The smallest stack that the kernel's frame and this handler fit on, above a page that must not be touched. */
static void faults(void)
{
    size_t bytes = (getauxval(AT_MINSIGSTKSZ) < 2048 ? 2048 : getauxval(AT_MINSIGSTKSZ)) + 512;
    size_t pages = (bytes + 4095) & ~(size_t)4095;
    char *low = mmap(NULL, 4096 + pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = low + 4096, .ss_size = bytes};
    forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (low == MAP_FAILED || forbidden == MAP_FAILED ||
        mprotect(low + 4096, pages, PROT_READ | PROT_WRITE) != 0 || sigaltstack(&stack, NULL) != 0)
        exit(3);
    handle(SIGSEGV, on_fault);
    for (int i = 0; i < 40; i++) {
        forbidden[i] = 1;
        if (mprotect(forbidden, 4096, PROT_NONE) != 0)
            exit(3);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    work_ns = strtoull(argv[2], NULL, 10) * MS;
    burn(1); /* binds what is called for the first time: the loader goes deep */
    if (strcmp(argv[1], "painted") == 0) {
        handle(SIGUSR1, on_probe);
        run(painted_main, THREADS, 256u << 10);
    } else if (strcmp(argv[1], "small") == 0) {
        run(small_main, 1, PTHREAD_STACK_MIN);
    } else {
        work_ns /= 40;
        faults();
    }
    printf("%lu\n", (unsigned long)deepest);
    return 0;
}
