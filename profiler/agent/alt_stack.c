/* Alternate signal stacks: one for each sampled thread, from a pool, so that a short thread costs two system calls
 * and no mapping. Normal context in the thread itself: at its start, at its end, and in its sigaltstack.
 *
 * What is installed is asked of the kernel and never remembered: on return from a handler the kernel puts back the
 * alternate stack that was there at the signal. Threads older than the session have none of ours. */
#include "profiler/agent/alt_stack.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "profiler/agent/hooks.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

#define STACK_BYTES                                                                                          \
    (256u << 10) /* and what the kernel needs: programs adopt what they find, and their handlers run on it */
#define SMALL_BYTES (32u << 10) /* a stack of the program's on which there may be no room for a tick */
#define AUTODISARM  (1u << 31)  /* SS_AUTODISARM is in no header of libc's */
#define CELLS       1024u
#define SPARE_MAX   64u /* free stacks that stay mapped */

/* A place for a stack, in which it stays mapped while it is free, if not too many are. A thread beyond the last cell
 * maps its own. `base` is written by who holds the cell. */
static struct cell {
    _Atomic bool taken;
    char *_Atomic base; /* of the guard page; NULL: not mapped */
} cells[CELLS];
static _Atomic uint32_t cells_used; /* none beyond was ever taken */
static _Atomic uint32_t spare;      /* free and mapped; a hint */

static size_t stack_bytes(void)
{
    size_t kernels = getauxval(AT_MINSIGSTKSZ); /* 0 where the kernel does not say */
    return STACK_BYTES + ((kernels + STILE__PAGE - 1) & ~(size_t)(STILE__PAGE - 1));
}

static char *stack_map(void)
{
    size_t bytes = STILE__PAGE + stack_bytes();
    char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (mprotect(base, STILE__PAGE, PROT_NONE) != 0) {
        munmap(base, bytes);
        return NULL;
    }
    return base;
}

static void stack_unmap(char *base)
{
    munmap(base, STILE__PAGE + stack_bytes());
}

static int kernel_altstack(const stack_t *stack, stack_t *old)
{
    return (int)stile__raw_syscall(SYS_sigaltstack, (long)stack, (long)old, 0, 0);
}

static stack_t stack_of(void)
{
    return (stack_t){.ss_sp = stile__thread.alt_stack + STILE__PAGE, .ss_size = stack_bytes()};
}

/* Acquire pairs with cell_put's release: the base is what the last holder left. */
static bool cell_try(struct cell *c)
{
    return !atomic_load_explicit(&c->taken, memory_order_relaxed) &&
           !atomic_exchange_explicit(&c->taken, true, memory_order_acquire);
}

/* A free cell: one with a stack if there is one. Returns its number, from 1, or 0. */
static uint32_t cell_take(void)
{
    uint32_t used = atomic_load_explicit(&cells_used, memory_order_relaxed);
    if (atomic_load_explicit(&spare, memory_order_relaxed) != 0)
        for (uint32_t i = 0; i < used; i++)
            if (atomic_load_explicit(&cells[i].base, memory_order_relaxed) != NULL && cell_try(&cells[i]))
                return i + 1;
    for (uint32_t i = 0; i < CELLS; i++) {
        if (!cell_try(&cells[i]))
            continue;
        while (used < i + 1 && !atomic_compare_exchange_weak_explicit(
                                   &cells_used, &used, i + 1, memory_order_relaxed, memory_order_relaxed))
            ;
        return i + 1;
    }
    return 0;
}

static void cell_put(struct cell *c)
{
    atomic_store_explicit(&c->taken, false, memory_order_release); /* pairs with cell_try's acquire */
}

static bool stack_take(void)
{
    uint32_t number = cell_take();
    char *base = number != 0 ? atomic_load_explicit(&cells[number - 1].base, memory_order_relaxed) : NULL;
    if (base != NULL) {
        atomic_fetch_sub_explicit(&spare, 1, memory_order_relaxed);
    } else {
        base = stack_map();
        if (number != 0 && base != NULL)
            atomic_store_explicit(&cells[number - 1].base, base, memory_order_relaxed);
        else if (number != 0)
            cell_put(&cells[number - 1]);
    }
    stile__thread.alt_stack = base;
    stile__thread.alt_cell = base != NULL ? number : 0;
    return base != NULL;
}

static void stack_release(void)
{
    struct cell *c = stile__thread.alt_cell != 0 ? &cells[stile__thread.alt_cell - 1] : NULL;
    char *base = stile__thread.alt_stack;

    stile__thread.alt_stack = NULL;
    stile__thread.alt_cell = 0;
    if (c == NULL) {
        stack_unmap(base);
        return;
    }
    if (atomic_fetch_add_explicit(&spare, 1, memory_order_relaxed) >= SPARE_MAX) {
        atomic_fetch_sub_explicit(&spare, 1, memory_order_relaxed);
        atomic_store_explicit(&c->base, NULL, memory_order_relaxed);
        stack_unmap(base);
    }
    cell_put(c);
}

static bool is_set(const stack_t *stack)
{
    return (stack->ss_flags & SS_DISABLE) == 0;
}

/* Puts the program's own back: ours had to be exchanged for it to see what is there. */
static void put_back(stack_t theirs)
{
    theirs.ss_flags &= (int)AUTODISARM;
    kernel_altstack(&theirs, NULL);
}

void stile__alt_stack_give(void)
{
    int saved_errno = errno;
    stack_t old = {0};

    if (stile__thread.alt_stack == NULL && stack_take()) {
        stack_t ours = stack_of();
        bool theirs = kernel_altstack(&ours, &old) != 0; /* it runs on one */
        if (!theirs && is_set(&old)) {
            put_back(old);
            theirs = true;
        }
        if (theirs)
            stack_release();
    }
    errno = saved_errno;
}

void stile__alt_stack_take_back(void)
{
    stack_t none = {.ss_flags = SS_DISABLE}, old = {0};
    int saved_errno = errno;

    if (stile__thread.alt_stack == NULL)
        return;
    stack_t shown = stile__thread.alt_shown;
    stile__thread.alt_shown = (stack_t){0};
    if (kernel_altstack(&none, &old) == 0) {
        if (shown.ss_sp != NULL) /* the program's, which ours stood for */
            put_back(shown);
        else if (is_set(&old) && old.ss_sp != stile__thread.alt_stack + STILE__PAGE)
            put_back(old);
        stack_release();
    } else if (kernel_altstack(NULL, &old) == 0 && old.ss_sp != stile__thread.alt_stack + STILE__PAGE) {
        stack_release(); /* it runs on the program's */
    }
    errno = saved_errno;
}

void stile__alt_stacks_forked(void)
{
    uint32_t free = 0;
    for (uint32_t i = 0; i < CELLS; i++) {
        if (i + 1 == stile__thread.alt_cell)
            continue;
        free += atomic_load_explicit(&cells[i].base, memory_order_relaxed) != NULL;
        atomic_store_explicit(&cells[i].taken, false, memory_order_relaxed);
    }
    atomic_store_explicit(&spare, free, memory_order_relaxed);
}

/* What the program has set, though ours is installed. */
static stack_t shown_of(const stack_t *now)
{
    stack_t shown = stile__thread.alt_shown;
    if (shown.ss_sp == NULL)
        shown.ss_flags = SS_DISABLE;
    else
        shown.ss_flags |= now->ss_flags & SS_ONSTACK;
    return shown;
}

/* The program's call in a thread that has a stack of ours, installed or in reserve. Stacks of the classic size have no
 * room for the kernel's frame of a tick, on processors with large registers, beside that of the program's own handler:
 * ours stays in place of them, and the program sees its own. The kernel is asked first what it thinks of them. */
static int change(int (*next)(const stack_t *, stack_t *), const stack_t *stack, stack_t *old)
{
    bool disables = stack != NULL && ((unsigned)stack->ss_flags & ~AUTODISARM) == SS_DISABLE;
    stack_t ours = stack_of(), now = {0};

    int err = next(NULL, &now);
    bool has_ours = err == 0 && now.ss_sp == ours.ss_sp;
    stack_t before = has_ours ? shown_of(&now) : now;
    if (err == 0 && stack != NULL) {
        bool small = !disables && stack->ss_size < SMALL_BYTES && stack->ss_flags == 0;
        err = next(disables ? &ours : stack, NULL);
        if (err == 0 && small)
            err = next(&ours, NULL);
        if (err == 0)
            stile__thread.alt_shown = small ? *stack : (stack_t){0};
    }
    if (err == 0 && old != NULL)
        *old = before;
    return err;
}

int stile__alt_stack_change(const stack_t *stack, stack_t *old)
{
    static void *cache;
    typedef int altstack_fn(const stack_t *, stack_t *);
    altstack_fn *next = (altstack_fn *)stile__hook_next(&cache, "sigaltstack");

    if (!stile__signal_owned_here()) /* a vfork child's stacks are its own */
        return next(stack, old);
    if (stile__thread.alt_stack != NULL)
        return change(next, stack, old);
    return next(stack, old);
}
