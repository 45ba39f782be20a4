/* Works on stacks on which a signal's frame has no room: a thread with the smallest stack there is, a thread that has
 * nearly used its up, and a fiber of 8 KiB, each above a page that must not be touched. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "work.h"

static uintptr_t stack_low;            /* of the stack that is worked on */
static uint64_t small, full, on_fiber; /* CPU time that was worked in each */

WORK static uint64_t spin_on_small_stack(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_with_no_room(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_on_fiber(uint64_t ns)
{
    return burn(ns);
}

/* Goes down until about 1 KiB is left. */
WORK static uint64_t use_up(uint64_t (*work)(uint64_t), uint64_t ns)
{
    volatile char some[128];
    some[0] = 1;
    uint64_t used = (uintptr_t)__builtin_frame_address(0) - stack_low > 1280 ? use_up(work, ns) : work(ns);
    return used + (uint64_t)some[0];
}

static void *small_main(void *unused)
{
    small = spin_on_small_stack(400 * MS);
    return unused;
}

static void *full_main(void *unused)
{
    full = use_up(spin_with_no_room, 400 * MS);
    return unused;
}

static void fiber_main(void)
{
    on_fiber = use_up(spin_on_fiber, 400 * MS);
}

/* The low end of what can be used, above a page that cannot. */
static char *stack_make(size_t size)
{
    char *base = mmap(NULL, 4096 + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base, 4096, PROT_NONE) != 0)
        exit(1);
    return base + 4096;
}

static void thread_run(void *(*start)(void *), void *stack, size_t size)
{
    pthread_attr_t attr;
    pthread_t thread;
    if (pthread_attr_init(&attr) != 0 ||
        (stack != NULL ? pthread_attr_setstack(&attr, stack, size)
                       : pthread_attr_setstacksize(&attr, size)) != 0 ||
        pthread_create(&thread, &attr, start, NULL) != 0 || pthread_join(thread, NULL) != 0)
        exit(1);
}

int main(void)
{
    static ucontext_t back, fiber;

    burn(1); /* the loader needs more than there will be to bind what is called for the first time */
    thread_run(small_main, NULL, PTHREAD_STACK_MIN);

    char *stack = stack_make(65536);
    stack_low = (uintptr_t)stack;
    thread_run(full_main, stack, 65536);

    stack = stack_make(8192);
    stack_low = (uintptr_t)stack;
    if (getcontext(&fiber) != 0)
        return 1;
    fiber.uc_stack.ss_sp = stack;
    fiber.uc_stack.ss_size = 8192;
    fiber.uc_link = &back;
    makecontext(&fiber, fiber_main, 0);
    if (swapcontext(&back, &fiber) != 0)
        return 1;
    puts("done");
    fprintf(stderr, "%llu %llu %llu\n", (unsigned long long)small, (unsigned long long)full,
            (unsigned long long)on_fiber);
    return 0;
}
