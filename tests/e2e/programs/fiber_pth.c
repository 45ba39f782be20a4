/* GNU Pth's threads, which are fibers of one thread. */
#include <pth.h>
#include <stdbool.h>

#include "fiber_moves.h"
#include "rounds.h"

struct fiber {
    pth_t thread;
    bool go;
    unsigned number;
};

static pth_t first;

unsigned kind_threads(void)
{
    return 1;
}

static void *start(void *fiber)
{
    struct fiber *f = fiber;
    while (!f->go)
        pth_yield(first);
    fiber_main(f->number, f);
    return NULL;
}

void *kind_make(unsigned number)
{
    struct fiber *f = calloc(1, sizeof(*f));
    CHECK(f != NULL);
    if (first == NULL) {
        CHECK(pth_init());
        first = pth_self();
    }
    f->number = number;
    pth_attr_t attr = pth_attr_new();
    pth_attr_set(attr, PTH_ATTR_STACK_SIZE, FIBER_STACK);
    pth_attr_set(attr, PTH_ATTR_JOINABLE, TRUE);
    pth_attr_set(attr, PTH_ATTR_CANCEL_STATE, PTH_CANCEL_ENABLE | PTH_CANCEL_ASYNCHRONOUS);
    f->thread = pth_spawn(attr, start, f);
    CHECK(f->thread != NULL);
    pth_attr_destroy(attr);
    return f;
}

WORK void kind_resume(void *fiber)
{
    struct fiber *f = fiber;
    for (f->go = true; f->go;)
        pth_yield(f->thread);
}

WORK void kind_yield(void *fiber)
{
    struct fiber *f = fiber;
    for (f->go = false; !f->go;)
        pth_yield(first);
}

void kind_try(void)
{
}

void kind_end(void *fiber)
{
    struct fiber *f = fiber;
    void *result;
    CHECK(pth_cancel(f->thread) && pth_join(f->thread, &result) && result == PTH_CANCELED);
    free(f);
}
