/* The kind of fibers that libc has. */
#include <stdlib.h>
#include <ucontext.h>

#include "fiber_moves.h"
#include "rounds.h"

struct fiber {
    ucontext_t here, *back;
    unsigned number;
    char stack[FIBER_STACK];
};

unsigned kind_threads(void)
{
    return 2;
}

static void start(unsigned high, unsigned low)
{
    struct fiber *f = (struct fiber *)((uintptr_t)high << 32 | low);
    fiber_main(f->number, f);
}

void *kind_make(unsigned number)
{
    struct fiber *f = malloc(sizeof(*f));
    CHECK(f != NULL && getcontext(&f->here) == 0);
    f->number = number;
    f->here.uc_stack.ss_sp = f->stack;
    f->here.uc_stack.ss_size = sizeof(f->stack);
    f->here.uc_link = NULL;
    makecontext(&f->here, (void (*)(void))start, 2, (unsigned)((uintptr_t)f >> 32), (unsigned)(uintptr_t)f);
    return f;
}

WORK void kind_resume(void *fiber)
{
    struct fiber *f = fiber;
    ucontext_t back;
    f->back = &back;
    CHECK(swapcontext(&back, &f->here) == 0);
}

WORK void kind_yield(void *fiber)
{
    struct fiber *f = fiber;
    CHECK(swapcontext(&f->here, f->back) == 0);
}

void kind_try(void)
{
}

void kind_end(void *fiber)
{
    free(fiber);
}
