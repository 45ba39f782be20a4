/* The rules of stack ownership, as a check of them goes by. Normal context and handlers. */
#include "barriers/ownership_check.h"

#include "profiler/agent/signal/poison.h"

/* Whoever works on the stack itself is its thread, and keeps that thread's other context away by the lock. */
static const char *breach_of_thread(const struct stile__ownership_facts *f)
{
    if (f->self != f->tid)
        return "the reader takes itself for another thread";
    if (f->self != f->slot_tid)
        return "the reader is not the stack's thread";
    if (f->lock == 0)
        return "nobody holds the stack's lock";
    if (f->lock != f->self)
        return "another thread holds the stack's lock";
    switch (stile__stack_state(f->status)) {
    case STILE__STACK_RUNNING:
    case STILE__STACK_WAITING: /* a handler of the program, inside its wait */
        return NULL;
    case STILE__STACK_DEAD:
        return "the thread has left its slot";
    default:
        return "the slot has no thread";
    }
}

static const char *breach_of_scan(const struct stile__ownership_facts *f)
{
    if (stile__stack_state(f->seen) != STILE__STACK_WAITING || (f->seen & STILE__STACK_SCAN) == 0)
        return "the reader has no scan";
    if (stile__wait_executes(stile__stack_reason(f->seen)))
        return "the thread executes in its wait";
    if (f->status != f->seen)
        return "the reader has lost its scan";
    return NULL;
}

const char *stile__ownership_breach(enum stile__stack_reader reader,
                                    const struct stile__ownership_facts *facts)
{
    if (reader == STILE__READER_LEFT)
        return breach_of_scan(facts);
    const char *breach = breach_of_thread(facts);
    if (breach != NULL)
        return breach;
    if (reader == STILE__READER_WAIT && stile__stack_state(facts->status) != STILE__STACK_RUNNING)
        return "the thread has given its stack away already";
    if (reader == STILE__READER_PLANT &&
        stile__barriers_safe(facts->status, false, facts->traced) != STILE__SAFE)
        return "a barrier is placed inside a wait";
    return NULL;
}

const char *stile__stack_reader_name(enum stile__stack_reader reader)
{
    static const char *const names[STILE__READERS] = {
        [STILE__READER_SAMPLE] = "a sample's walk",         [STILE__READER_WAIT] = "a wait's walk",
        [STILE__READER_BARRIERS] = "a change of barriers",  [STILE__READER_PLANT] = "a placing of barriers",
        [STILE__READER_LEFT] = "a reader of what was left",
    };
    return reader < STILE__READERS ? names[reader] : "somebody";
}
