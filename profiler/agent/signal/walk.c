/* Second stage of a sample: the stack. Walks by rules where there are rules, and leaves the rest as a snapshot that
 * the collector walks. Runs in the signal handler, under the stack's lock. */
#include "profiler/agent/signal/handler.h"

#include "profiler/agent/signal/poison.h"

void stile__walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const uint64_t *regs, struct stile__record *record)
{
    /* No rules yet: the walk stops at the interrupted frame, and the snapshot starts there. */
    record->n_new = 0;
    for (int i = 0; i < STILE__REG_COUNT; i++)
        record->words[i] = regs[i];
    stile__snapshot_take(s, r, &t->stack, regs[STILE__REG_RSP], (uint32_t)t->id, record);
    if (record->block == STILE__BLOCK_NONE) {
        record->n_new = 1;
        record->words[0] = regs[STILE__REG_RIP];
    }
}
