/* Threads and their slots. */
#ifndef STILE_AGENT_THREADS_H
#define STILE_AGENT_THREADS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "barriers/chain.h"
#include "profiler/agent/session.h"

/* What a timer's signal carries: generation << 32 | piece << 14 | slot index. The piece's low bits: a signal that is
 * late by 2^18 pieces is not to be expected. Without a toggle they are 0. */
#define STILE__ID_PIECE_SHIFT 14
#define STILE__ID_PIECE_BITS  (((1ull << 32) - 1) & ~(uint64_t)(STILE__SLOT_MAX - 1))
_Static_assert(STILE__SLOT_MAX == 1u << STILE__ID_PIECE_SHIFT, "the slot's index is below the piece's bits");
static inline uint64_t stile__id_piece_bits(uint32_t piece)
{
    return (uint64_t)piece << STILE__ID_PIECE_SHIFT & STILE__ID_PIECE_BITS;
}

/* What a thread knows of itself. Initial-exec TLS: reached from the handler without any call.
 * Owned by its thread; the handler of the same thread may set slot and id when they are NULL and 0. */
struct stile__thread {
    struct stile__slot *slot; /* NULL: not sampled; valid only inside the session that has `region` */
    struct stile__region *region;
    uint64_t id; /* what our timer's signals carry beside the piece: generation << 32 | slot index */
    uint32_t tid;
    struct stile__bounds stack;
    uintptr_t
        stack_read; /* down to here its pages could be read when the handler came so deep; 0: it has not yet */
    uintptr_t
        stack_root; /* its outermost frame lies above this, and all others below; outside of the stack: not known */
    char *alt_stack;     /* ours, from its guard page on, installed or in reserve; NULL: none */
    uint32_t alt_cell;   /* its place in the pool, from 1; 0: none */
    stack_t alt_shown;   /* what the program has set, where ours stands for it */
    uint64_t fork_mask;  /* the real signal mask while all signals are blocked around fork */
    bool program_blocks; /* the program believes that it has blocked our signal in this thread */
    bool wait_blocks;    /* we have blocked it, for a call that it would break off; see wait_mask.h */
    uint64_t kernel_ns;  /* of its time in the kernel, what is booked */
    const struct stile__region *searched_in; /* where it has looked for its slot, */
    uint32_t searches;                       /* and how often */
    uint32_t unsettled;                      /* signals of perf's clock, where no timer settles beside it */
    uint32_t
        surplus; /* signals to let go by: perf counts time that a hypervisor took from us, the CPU clock does not */
    uint8_t exit_rounds; /* rounds of thread-specific data destruction seen */
    /* Of waits, while they are recorded. */
    uint32_t walk_crossings;         /* signal frames that the last walk went through */
    uintptr_t wait_frame;            /* of the hook inside which it waits: its stack pointer; 0: none */
    uint64_t wait_quick;             /* by hash: of what kind, on what, the last call did not block */
    uint64_t switches;               /* voluntary ones of its context, when they were last looked at */
    uint64_t waited_ns;              /* in waits that are over */
    uint32_t dumped;                 /* the last dump that it has given its stack for */
    uint64_t chance;                 /* state of a generator of random numbers; 0 at first */
    struct stile__barriers barriers; /* on its stack; by whoever has the stack's lock */
};
extern _Thread_local struct stile__thread stile__thread __attribute__((tls_model("initial-exec")));

/* Whether the thread has a slot in this very session: a later one's region may lie where the last one did. */
static inline bool stile__thread_bound(const struct stile__thread *t, const struct stile__region *r)
{
    return t->slot != NULL && t->region == r &&
           atomic_load_explicit(&t->slot->generation, memory_order_relaxed) == (uint32_t)(t->id >> 32);
}

/* A number that differs between threads, for stile__session_enter. Async-signal-safe. */
static inline uint32_t stile__thread_shard(void)
{
    return (uint32_t)((uintptr_t)&stile__thread >> 12);
}

/* One-time set-up (the key whose destructor sees threads end). Returns 0 or -errno. */
int stile__threads_init(void);

/* Whether a signal that was waited for is a tick of the calling thread. Normal context, with a session. */
bool stile__thread_owns_tick(const siginfo_t *info);

/* Gives the calling thread a slot and a running clock, and opens our signal in its mask. Called with a session.
 * base_cpu_ns: the CPU time of the thread from which on it counts. Failures are counted in the region: the thread runs
 * unsampled. */
void stile__thread_enter(uint64_t base_cpu_ns);

/* Takes the calling thread's slot and clock away, leaving its final words for the collector. Idempotent. */
void stile__thread_leave(void);

/* Takes the calling thread's barriers off its stack, for good or for the time being. With all signals blocked, and the
 * stack's lock if there is a session. r: the session's region, or NULL. */
void stile__thread_barriers_remove(struct stile__thread *t, struct stile__region *r);

/* Before an exec: takes the calling thread's ticks that are due and were not delivered, and leaves the CPU time that the
 * image has used, since the process's clock goes on with the next one. */
void stile__thread_settle(void);

/* The exec has failed: the image goes on. */
void stile__thread_unsettle(void);

/* Gives slots and clocks to all other threads of the process; they bind to them in their first signal. */
void stile__threads_enter_others(void);

/* Stops the clocks of all threads. The slots stay for the collector. */
void stile__threads_stop(struct stile__session *s, struct stile__region *r);

/* Leaves the CPU time of each thread whose clock was stopped from outside. Nobody may be inside the session. */
void stile__threads_settle(struct stile__session *s, struct stile__region *r);

#endif
