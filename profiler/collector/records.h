/* One record of a thread, once it has been copied and checked. Collector, normal context. */
#ifndef STILE_COLLECTOR_RECORDS_H
#define STILE_COLLECTOR_RECORDS_H

#include "profiler/collector/process.h"

/* Adds its weight to its stack. Takes its blocks; damage is noted in the process. */
void record_add(struct process *p, uint32_t thread, const struct stile__record *r);

/* A record, out of the program's reach. */
union record_copy {
    struct stile__record record;
    uint8_t bytes[STILE__RECORD_BYTES];
};

/* Copies a record that has `room` cells at most. Most are short: the length that it claims is copied, to be checked in the
 * copy. */
void record_copy(union record_copy *c, const void *from, uint64_t room);

/* What a record says of a stack. Its frames are the file's own until the next record is copied. */
struct stack {
    size_t n, listed, kept; /* frames; those that the record lists; those of earlier records */
    enum stile__reason reason;
    struct snapshot snapshot;
};

/* In two steps, of a record that keeps nothing: its blocks are copied (and given back, unless they are still the thread's),
 * then the stack is completed, its leaf is shown as another address, and it has a node in a tree; s->reason says how whole it
 * is. False without memory: damage. */
bool record_stack_copy(struct process *p, const struct stile__record *r, bool give_back, struct stack *s);
uint32_t record_stack_node(struct process *p, const struct stile__record *r, struct call_tree *t,
                           uint64_t leaf, struct stack *s);

/* Instead of the second step, for stacks that are only shown: they are in no tree and in no count. The frames, leaf first, are
 * valid until the next record is copied. leaf: 0, or what the leaf is shown as. */
const uint64_t *record_stack_frames(struct process *p, const struct stile__record *r, uint64_t leaf,
                                    struct stack *s);

/* Takes a tick that came after the piece that it belongs to was stopped: counted, its blocks given back. */
void record_drop(struct process *p, uint32_t thread, const struct stile__record *r);

#endif
