/* A program with a malloc of its own, which no signal handler may enter, nor any of the program's threads twice: it works inside,
 * with its state half changed, and traps. `own_malloc MS [planted]`. Handlers are known by the alternate stack that they run on;
 * planted: one of the program's own allocates. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "work.h"

#define HEAP_BYTES ((size_t)1 << 32)

static char *_Atomic heap;
static _Atomic size_t heap_used;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

/* Inside malloc, where a profiler that allocates would come in again. */
WORK static void work_in_malloc(void)
{
    for (volatile int i = 0; i < 300; i++)
        ;
}

static void enter(void)
{
    stack_t stack;
    if (inside || syscall(SYS_sigaltstack, NULL, &stack) != 0 || (stack.ss_flags & SS_ONSTACK) != 0)
        __builtin_trap();
    inside = true;
    work_in_malloc();
}

static void leave(void)
{
    inside = false;
}

static char *heap_get(void)
{
    char *base = heap, *none = NULL;
    if (base != NULL)
        return base;
    base = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        __builtin_trap();
    return atomic_compare_exchange_strong(&heap, &none, base) ? base : none;
}

/* Only grows; each piece has its size before it. */
WORK void *malloc(size_t n)
{
    enter();
    size_t whole = (n + 31) & ~(size_t)15, at = atomic_fetch_add(&heap_used, whole);
    if (n > HEAP_BYTES || at + whole > HEAP_BYTES)
        __builtin_trap();
    char *piece = heap_get() + at;
    *(size_t *)(void *)piece = n;
    leave();
    return piece + 16;
}

WORK void free(void *p)
{
    enter();
    if (p != NULL)
        *(size_t *)(void *)((char *)p - 16) = 0;
    leave();
}

WORK void *calloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        __builtin_trap();
    return malloc(bytes); /* fresh pages are zero, and none is used twice */
}

WORK void *realloc(void *p, size_t n)
{
    void *more = malloc(n);
    if (p != NULL) {
        size_t old = *(size_t *)(void *)((char *)p - 16);
        memcpy(more, p, old < n ? old : n);
    }
    return more;
}

static void *(*volatile allocate)(size_t) = malloc;

WORK static unsigned allocate_at_depth(unsigned depth)
{
    volatile char *p = allocate(depth + 1);
    p[depth] = 1;
    unsigned sum = depth == 0 ? 1 : allocate_at_depth(depth - 1) + (unsigned)p[depth];
    free((void *)(uintptr_t)p);
    return sum;
}

static void *thread_main(void *ns)
{
    uint64_t end = thread_cpu_ns() + *(uint64_t *)ns;
    for (unsigned i = 0; thread_cpu_ns() < end; i++)
        if (allocate_at_depth(i % 150) != i % 150 + 1)
            exit(3);
    return NULL;
}

static void on_alarm(int number)
{
    (void)number;
    free(allocate(1));
}

static void planted(void)
{
    static char stack[65536];
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL) != 0 ||
        sigaction(SIGALRM, &action, NULL) != 0)
        exit(3);
    raise(SIGALRM);
}

int main(int argc, char **argv)
{
    if (argc > 2)
        planted();
    uint64_t ns = argc > 1 ? strtoull(argv[1], NULL, 10) * MS : 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, &ns) != 0)
        return 3;
    thread_main(&ns);
    pthread_join(thread, NULL);
    puts("done");
    return 0;
}
