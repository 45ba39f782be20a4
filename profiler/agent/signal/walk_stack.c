/* The stack of a walk: what of it may be read. Runs in the signal handler. */
#include "profiler/agent/signal/walker.h"

#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define PROBED_MAX    (1u << 20)  /* bytes of a stack whose end is not known that are looked at */
#define LOOKED_AT_MAX (64u << 20) /* bytes of a stack whose end is known that are looked at at once */

bool stile__stack_reach(struct stile__walker *w, uint64_t end)
{
    while (w->hi < end) {
        if (w->hi >= w->limit || !stile__raw_readable(w->hi))
            return false;
        w->hi += STILE__PAGE;
    }
    return true;
}

/* Sets the floor of a known stack, if all pages from where rsp points can be read. Some may not: guards that the program has
 * put into its stack; of the main thread's, what its limit does not let grow, and holes below something else that was mapped
 * into its range. So a depth that the thread has not been sampled at is looked at first. */
static bool floor_set(struct stile__walker *w, const struct stile__bounds *stack)
{
    const uint64_t page = w->rsp & ~(uint64_t)(STILE__PAGE - 1);
    w->floor = w->rsp - stack->lo > STILE__RED_ZONE ? w->rsp - STILE__RED_ZONE : stack->lo;
    const bool own = stack == w->stack;
    uint64_t known = own && *w->stack_read != 0 ? *w->stack_read : stack->hi;
    if (own && w->floor >= known && known != stack->hi)
        return true;
    if (!own || known - page > LOOKED_AT_MAX)
        known = page +
                1; /* an alternate stack is looked at where it is copied; of a very deep one this has to do */
    for (uint64_t at = page; at < known; at += STILE__PAGE)
        if (!stile__raw_readable(at))
            return false;
    if (w->floor < page && !stile__raw_readable(w->floor & ~(uint64_t)(STILE__PAGE - 1)))
        w->floor = page;
    else if (own)
        *w->stack_read = w->floor & ~(uint64_t)(STILE__PAGE - 1);
    return true;
}

/* The thread's, the alternate one of this signal, or one of the program's making, of which only as much is known as can be
 * read. */
bool stile__stack_find(struct stile__walker *w)
{
    const struct stile__bounds *known[] = {w->stack, &w->at->alt};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i]->lo <= w->rsp && w->rsp < known[i]->hi && floor_set(w, known[i])) {
            w->hi = w->limit = known[i]->hi;
            w->end_known = true;
            w->end_told = i != 0;
            return true;
        }
    w->floor = w->hi = w->rsp & ~(uint64_t)(STILE__PAGE - 1);
    w->limit = w->hi + PROBED_MAX;
    w->end_known = false;
    return w->rsp < STILE__ADDRESS_MAX && stile__stack_reach(w, w->hi + 1);
}

bool stile__stack_readable(const struct stile__walker *w)
{
    uint64_t page = w->floor & ~(uint64_t)(STILE__PAGE - 1);
    while (page < w->hi && page - w->floor < STILE__SNAPSHOT_MAX + STILE__PAGE && stile__raw_readable(page))
        page += STILE__PAGE;
    return page >= w->hi || page - w->floor >= STILE__SNAPSHOT_MAX;
}
