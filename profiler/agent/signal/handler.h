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

/* Where a thread was interrupted. */
struct stile__place {
    const uint64_t *regs;     /* in the kernel's order, as in a signal's context: REG_RIP and so on */
    struct stile__bounds alt; /* its alternate stack, or {0, 0} */
};
void stile__place_of(const ucontext_t *uc, struct stile__place *at);

struct stile__tick {
    uint32_t ticks; /* periods that it stands for */
    uint8_t reason; /* enum stile__reason, where it is known before the walk */
    bool in_kernel;
    bool leaving;   /* a system call: one that opened our signal, it may be */
    bool placeless; /* it was not used where the thread is now */
};
/* Installed for the signal that starts and stops the clocks, with all signals masked. */
void stile__handle_toggle(int signal, siginfo_t *info, void *context);

/* Installed for the signal that asks for all stacks, with all signals masked. In crash/dump.c. */
void stile__handle_dump(int signal, siginfo_t *info, void *context);

/* Leaves the calling thread's stack in its ring, for the dump of this number, and stops the thread until that is over, a second at
 * most. Once for a number. */
void stile__dump_here(struct stile__session *s, struct stile__region *r, const struct stile__place *at,
                      uint32_t freezing);

/* The same for the thread that asks, which goes on. False: it has no slot, or its ring is full. */
bool stile__dump_self(struct stile__session *s, struct stile__region *r, const struct stile__place *at);

/* Brings the clock of slot i to what is wanted now: on, if it is live and a piece is running; off otherwise. Whoever
 * changes either calls this afterwards. Returns without waiting; the holder of the slot's clock looks again. own: the
 * calling thread if it is the slot's and was interrupted there, or NULL. */
void stile__toggle_look(struct stile__session *s, struct stile__region *r, uint32_t i,
                        struct stile__thread *own, const struct stile__place *at);

/* The same for all slots. */
void stile__toggle_look_all(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                            const struct stile__place *at);

/* Takes the clock of the calling thread's slot away for good, before its thread leaves it. What is due is not booked.
 * Normal context with all signals blocked. */
void stile__toggle_close(struct stile__session *s, struct stile__slot *slot, uint32_t i, uint32_t tid);

/* Takes a tick of the calling thread, which has a slot of this region: one record, or the lost counters. Also called in
 * normal context, with all signals blocked, for what is due when a thread ends. */
void stile__tick_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const struct stile__tick *tick);

/* The same for a tick that stands for more than the kernel can be late by: what was used in the kernel, and what was kept
 * away from us, for that reason, are taken as such. */
void stile__tick_split(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                       const struct stile__place *at, struct stile__tick tick, enum stile__reason kept_away);

/* Adds to a counter that only this thread's handler writes, or the thread with all signals blocked. */
static inline void stile__counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* What every record begins with; a leaf is not yet set. */
void stile__record_init(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                        struct stile__record *record, uint32_t ticks);

/* Binds the calling thread to the slot that was opened for it by another, if there is one. Bounded. */
bool stile__thread_bind(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                        uint64_t rsp);

/* Walks the interrupted stack of the calling thread, whose lock is held, into the record: frames as far as rules go, then
 * a snapshot of the rest. Sets the record's frames, kind, block, stack and reason. */
void stile__walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const struct stile__place *at, struct stile__record *record);

/* Where a thread is while its barriers are changed. */
static inline struct stile__barrier_place stile__barriers_place(const struct stile__thread *t,
                                                                const struct stile__place *at)
{
    uint64_t sp = at->regs[REG_RSP];
    bool own = sp >= t->stack.lo && sp < t->stack.hi;
    return (struct stile__barrier_place){&t->stack, own ? sp : t->stack.hi};
}

/* Cells that a record is given for its walk at best, of a ring of so many, and at least. What does not fit goes on in
 * blocks. */
#define STILE__WALK_CELLS_MAX(ring_cells)                                                                    \
    ((ring_cells) < 256u ? 8u : (ring_cells) > 2048u ? 64u : (ring_cells) / 32u)
#define STILE__WALK_CELLS_MIN 4u

/* Copies the stack between two addresses into a chain of blocks, as far as STILE__SNAPSHOT_MAX. Sets the record's block,
 * stack_start and stack_len; returns why they may hold less than all. */
enum stile__reason stile__snapshot_take(struct stile__session *s, struct stile__region *r, uint64_t from,
                                        uint64_t end, struct stile__record *record);

/* Takes a free block, or STILE__BLOCK_NONE, which is counted. hint: where to look first. */
uint32_t stile__block_take(struct stile__session *s, struct stile__region *r, uint32_t hint);

/* Gives a chain of blocks back that was never published. */
void stile__blocks_give_back(struct stile__session *s, struct stile__region *r, uint32_t first);

#define STILE__RED_ZONE                                                                                      \
    128u /* bytes below rsp that code may use, and that CFI names: System V ABI for x86-64, 3.2.2 */

#endif
