/* The SIGPROF handler: everything in this folder runs in it, on the interrupted thread, anywhere in the program.
 * No lock that waits, no allocation, no I/O, nothing of libc; errno cannot change, since nothing here can reach it
 * (a gate looks at the undefined symbols). Every read is bounded by the known stack. */
#ifndef STILE_AGENT_SIGNAL_HANDLER_H
#define STILE_AGENT_SIGNAL_HANDLER_H

#include <signal.h>

#include "profiler/agent/threads.h"
#include "profiler/region/record.h"

/* Installed for the profiling signal with all signals masked. */
void stile__handle_tick(int signal, siginfo_t *info, void *context);

struct stile__tick {
    uint32_t ticks; /* periods that it stands for */
    uint8_t reason; /* enum stile__reason, where it is known before the walk */
    bool in_kernel;
};

/* Takes a tick of the calling thread, which has a slot of this region: one record, or the lost counters. Also called in
 * normal context, with all signals blocked, for what is due when a thread ends. */
void stile__tick_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const uint64_t *regs, const struct stile__tick *tick);

/* A kernel tick is 10 ms at most (CONFIG_HZ=100), and a busy hypervisor may hold back a few: what is later than that was
 * not late. */
#define STILE__LATE_NS_MAX 100000000u

/* Walks the interrupted stack of the calling thread, whose lock is held, into the record: program counters as far
 * as rules go, then a snapshot of the rest. Sets the record's words, n_new, block, stack and reason.
 * regs are those of the interrupted code, in DWARF order. */
void stile__walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const uint64_t *regs, struct stile__record *record);

/* Words that stile__walk may write after the record's header. */
#define STILE__WALK_WORDS (1u + STILE__REG_COUNT)

/* Copies the stack from the red zone below rsp to the stack's known end into a chain of blocks. Sets the record's
 * block, stack_start, stack_len and, if it could not have all, its reason. */
void stile__snapshot_take(struct stile__session *s, struct stile__region *r,
                          const struct stile__bounds *stack, uint64_t rsp, uint32_t hint,
                          struct stile__record *record);

#endif
