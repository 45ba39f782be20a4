/* The signal handlers: everything in this folder runs in them, on the interrupted thread, anywhere in the program.
 * No lock that waits, no allocation, no I/O, nothing of libc; errno cannot change, since nothing here can reach it
 * (a gate looks at the undefined symbols). Every read is bounded by the known stack. */
#ifndef STILE_AGENT_SIGNAL_HANDLER_H
#define STILE_AGENT_SIGNAL_HANDLER_H

#include <signal.h>
#include <ucontext.h>

#include "profiler/agent/threads.h"
#include "profiler/region/record.h"

/* Installed for the profiling signal with all signals masked. */
void stile__handle_tick(int signal, siginfo_t *info, void *context);

struct stile__tick {
    uint32_t ticks; /* periods that it stands for */
    uint8_t reason; /* enum stile__reason, where it is known before the walk */
    bool in_kernel;
    bool placeless; /* it was not used where the thread is now */
};
/* Installed for the signal that starts and stops the clocks, with all signals masked. */
void stile__handle_toggle(int signal, siginfo_t *info, void *context);

/* Brings the clock of slot i to what is wanted now: on, if it is live and a piece is running; off otherwise. Whoever
 * changes either calls this afterwards. Returns without waiting; the holder of the slot's clock looks again. own: the
 * calling thread if it is the slot's and was interrupted with registers regs, or NULL. */
void stile__toggle_look(struct stile__session *s, struct stile__region *r, uint32_t i,
                        struct stile__thread *own, const uint64_t *regs);

/* The same for all slots. */
void stile__toggle_look_all(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                            const uint64_t *regs);

/* Takes the clock of the calling thread's slot away for good, before its thread leaves it. What is due is not booked.
 * Normal context with all signals blocked. */
void stile__toggle_close(struct stile__session *s, struct stile__slot *slot, uint32_t i, uint32_t tid);

/* The registers of an interrupted context in DWARF's order. */
void stile__registers_of(const ucontext_t *uc, uint64_t *regs);

/* Takes a tick of the calling thread, which has a slot of this region: one record, or the lost counters. Also called in
 * normal context, with all signals blocked, for what is due when a thread ends. */
void stile__tick_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const uint64_t *regs, const struct stile__tick *tick);

/* The same for a tick that stands for more than the kernel can be late by: what was used in the kernel, and what was kept
 * away from us, for that reason, are taken as such. */
void stile__tick_split(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                       const uint64_t *regs, struct stile__tick tick, enum stile__reason kept_away);

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
