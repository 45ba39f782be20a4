/* Fibers: `fibers WAY MS` works fifty frames deep in two of them that take turns, where WAY says where their stacks are:
 * `mapped` between two pages that must not be touched, `malloc`, or `thread`: mapped, and all of it in a thread. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "work.h"

#define STACK 65536

static ucontext_t back, left, right;
static uint64_t work_ns;

WORK static uint64_t spin_left(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_right(uint64_t ns)
{
    return burn(ns);
}

WORK static void swap(ucontext_t *from, ucontext_t *to)
{
    swapcontext(from, to);
}

/* At the bottom it works a little, lets the other one work, and so on. */
WORK static uint64_t descend_left(int depth)
{
    if (depth > 1) {
        uint64_t below = descend_left(depth - 1);
        __asm__ volatile("" : "+r"(below)); /* or the calls become a loop */
        return below + 1;
    }
    for (uint64_t used = 0; used < work_ns; swap(&left, &right))
        used += spin_left(2 * MS);
    return 1;
}

WORK static uint64_t descend_right(int depth)
{
    volatile char some[100]; /* another frame than the other's */
    some[0] = 1;
    if (depth > 1) {
        uint64_t below = descend_right(depth - 1);
        __asm__ volatile("" : "+r"(below));
        return below + (uint64_t)some[0];
    }
    for (; work_ns != 0; swap(&right, &left))
        spin_right(2 * MS);
    return 1;
}

WORK static void left_main(void)
{
    descend_left(50);
    swapcontext(&left, &back);
}

WORK static void right_main(void)
{
    uint64_t below = descend_right(50);
    __asm__ volatile("" : "+r"(below)); /* or the call becomes a jump */
}

static char *mapped(void)
{
    char *base = mmap(NULL, STACK + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + 4096, STACK, PROT_READ | PROT_WRITE) != 0)
        exit(1);
    return base + 4096;
}

static void fiber_make(ucontext_t *fiber, void (*start)(void), char *stack)
{
    if (stack == NULL || getcontext(fiber) != 0)
        exit(1);
    fiber->uc_stack.ss_sp = stack;
    fiber->uc_stack.ss_size = STACK;
    fiber->uc_link = &back;
    makecontext(fiber, start, 0);
}

WORK static void run_fibers(const char *way)
{
    bool on_heap = strcmp(way, "malloc") == 0;
    fiber_make(&left, left_main, on_heap ? malloc(STACK) : mapped());
    fiber_make(&right, right_main, on_heap ? malloc(STACK) : mapped());
    swapcontext(&back, &left);
}

static void *fiber_thread(void *way)
{
    run_fibers(way);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    if (argc < 3)
        return 1;
    work_ns = strtoull(argv[2], NULL, 10) * MS;
    if (strcmp(argv[1], "thread") != 0)
        run_fibers(argv[1]);
    else if (pthread_create(&thread, NULL, fiber_thread, argv[1]) != 0 || pthread_join(thread, NULL) != 0)
        return 1;
    puts("done");
    return 0;
}
