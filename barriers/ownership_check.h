/* PROFILE_DEBUG=checkstackownership=1: whoever reads a stack, or changes what stands on it, proves that it is his. On a
 * violation both parties, their states and stacks go to descriptor 2, and the program ends with SIGABRT.
 *
 * Without the bit a check is one test. Async-signal-safe throughout. */
#ifndef STILE_BARRIERS_OWNERSHIP_CHECK_H
#define STILE_BARRIERS_OWNERSHIP_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "barriers/ownership.h"
#include "profiler/region/layout.h"

/* Who reads, and what he needs. */
enum stile__stack_reader {
    STILE__READER_SAMPLE, /* the clock's walk: the thread itself, which has the stack's lock; inside its own wait, too */
    STILE__READER_WAIT, /* the walk before a wait, or after one that was measured: the same, and it runs */
    STILE__READER_BARRIERS, /* takes barriers off, or changes their entries: as a sample */
    STILE__READER_PLANT,    /* places barriers: the same, and where stile__barriers_safe */
    STILE__READER_LEFT, /* what a waiting thread has left: whoever has SCAN, by the word that scan_begin gave */
    STILE__READERS
};

/* What a check goes by. */
struct stile__ownership_facts {
    uint64_t status;   /* of the slot */
    uint32_t slot_tid; /* whose it is, */
    uint32_t lock;     /* and who has its stack's lock */
    uint32_t tid;      /* that the reader takes itself for, */
    uint32_t self;     /* and what the kernel says */
    uint64_t seen;     /* of STILE__READER_LEFT: the word that it got */
    bool traced;       /* waits are recorded */
};

/* What is wrong, as constant text, or NULL. */
const char *stile__ownership_breach(enum stile__stack_reader reader,
                                    const struct stile__ownership_facts *facts);

/* The name of a reader; constant text. */
const char *stile__stack_reader_name(enum stile__stack_reader reader);

/* Out of line: looks, and returns only if nothing is wrong. In profiler/agent/signal/ownership_report.c. */
void stile__ownership_verify(struct stile__region *r, struct stile__slot *slot, uint32_t tid,
                             enum stile__stack_reader reader, uint64_t seen, const uint64_t *regs);

/* The caller is about to read the slot's stack. tid: that it takes itself for. regs: where its own stack begins, in the
 * kernel's order, for the report; NULL: here. */
static inline void stile__ownership_check(struct stile__region *r, struct stile__slot *slot, uint32_t tid,
                                          enum stile__stack_reader reader, const uint64_t *regs)
{
    if (__builtin_expect(r->debug & STILE__DEBUG_OWNERSHIP, 0))
        stile__ownership_verify(r, slot, tid, reader, 0, regs);
}

/* The same before what a waiting thread has left is read; seen: from scan_begin. */
static inline void stile__ownership_check_left(struct stile__region *r, struct stile__slot *slot,
                                               uint64_t seen)
{
    if (__builtin_expect(r->debug & STILE__DEBUG_OWNERSHIP, 0))
        stile__ownership_verify(r, slot, 0, STILE__READER_LEFT, seen, NULL);
}

/* stile__stack_wait_executing, which a reason outside the table must not come to. With the bit it ends the program. */
bool stile__ownership_wait_executing(struct stile__region *r, struct stile__slot *slot, uint32_t tid,
                                     enum stile__wait_reason why);

#endif
