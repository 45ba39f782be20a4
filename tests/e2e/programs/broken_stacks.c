/* Works below frames that no unwinder can make sense of: `broken_stacks PLUGIN...`. Tables that lie, stacks of which a
 * part cannot be read or is not there, and plugins, whose tables may be anything. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "work.h"

#define STACK_BYTES (256u << 10)
#define HOLE_AT     (64u << 10)
#define HOLE_BYTES  (64u << 10)
#define PAGE        4096u

typedef void broken_fn(void (*work)(void), const void *garbage);
broken_fn broken_far, broken_low, broken_register, broken_pointed, broken_address, broken_same, broken_loop,
    broken_expression, broken_through_pointed;

WORK static void work_below_broken(void)
{
    burn(6 * MS);
}

WORK static void work_below_hole(uint64_t ns)
{
    burn(ns);
}

static void lying_tables(void)
{
    static broken_fn *const kinds[] = {broken_far,     broken_low,        broken_register,
                                       broken_pointed, broken_address,    broken_same,
                                       broken_loop,    broken_expression, broken_through_pointed};
    char *forbidden = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const void *garbage[] = {NULL,
                             (void *)8,
                             forbidden,
                             forbidden + PAGE - 4,
                             (void *)0x8000000000000000u,
                             (void *)0xfffffffffffffff8u,
                             (void *)(uintptr_t)&work_below_broken};
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (unsigned g = 0; g < sizeof garbage / sizeof *garbage; g++)
            kinds[k](work_below_broken, garbage[g]);
}

static ucontext_t above, below;

static void below_main(void)
{
    work_below_hole(60 * MS);
}

/* Goes on below the hole, in what is still the thread's stack by its bounds. */
static void work_at(char *stack)
{
    if (getcontext(&below) != 0)
        exit(3);
    below.uc_stack.ss_sp = stack;
    below.uc_stack.ss_size = HOLE_AT;
    below.uc_link = &above;
    makecontext(&below, below_main, 0);
    if (swapcontext(&above, &below) != 0)
        exit(3);
}

/* A stack of whose middle first nothing can be read, and then nothing is there. */
static void *hole_main(void *stack)
{
    char *hole = (char *)stack + HOLE_AT;
    if (mprotect(hole, HOLE_BYTES, PROT_NONE) != 0)
        exit(3);
    work_at(stack);
    if (munmap(hole, HOLE_BYTES) != 0)
        exit(3);
    work_at(stack);
    return NULL;
}

static void holes(void)
{
    char *stack =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pthread_attr_t attr;
    pthread_t thread;
    if (stack == MAP_FAILED || pthread_attr_init(&attr) != 0 ||
        pthread_attr_setstack(&attr, stack, STACK_BYTES) != 0 ||
        pthread_create(&thread, &attr, hole_main, stack) != 0 || pthread_join(thread, NULL) != 0)
        exit(3);
}

int main(int argc, char **argv)
{
    lying_tables();
    holes();
    for (int i = 1; i < argc; i++) {
        void *handle = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        uint64_t (*spin)(uint64_t) = NULL;
        if (handle)
            *(void **)&spin = dlsym(handle, "plugin_spin");
        if (!spin)
            return 3;
        spin(30 * MS);
        dlclose(handle);
    }
    puts("done");
    return 0;
}
