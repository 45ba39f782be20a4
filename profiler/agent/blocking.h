/* What hooks tell of waits, while a session records them. A hook stands before a function that may block:
 *
 *   STILE__BLOCKS        surely, or so nearly always that it is not worth asking (a lock that a try found taken, a sleep).
 *                        The thread walks its stack, leaves it in its slot, and only then waits; the delay is measured after.
 *   STILE__MAY_BLOCK     perhaps (read on whatever). Calls of this kind on this thing that were quick the last time are only
 *                        measured. The thread stays the owner of its stack. If it did wait it walks after the call, from the
 *                        same frame, so from the same callers; and the next one is taken for one that blocks.
 *   STILE__WOKE          the caller has ended a wait of others: its own stack is told, never that of those woken.
 *
 * Normal context, in the program's threads and signal handlers: nothing here allocates, takes a lock that waits, or touches
 * errno. A wait inside another one (a handler of the program inside a wait) is not told; its time is the outer one's. A wait
 * left by longjmp, an exception or cancellation is ended by the next of: a tick, a wait, the thread's end. */
#ifndef STILE_AGENT_BLOCKING_H
#define STILE_AGENT_BLOCKING_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "profiler/agent/session.h"
#include "profiler/region/waits.h"

/* Whether waits are recorded in this process now. Set and cleared with the session. */
extern _Atomic bool stile__blocking;

static inline bool stile__blocking_on(void)
{
    return __builtin_expect(atomic_load_explicit(&stile__blocking, memory_order_relaxed), 0);
}

/* A wait under way: on the stack of the hook's caller. */
struct stile__door {
    struct stile__region *region; /* NULL: it is not recorded */
    uint64_t id;                  /* of the thread and the session, as in stile__thread */
    uint64_t since_ns;            /* CLOCK_MONOTONIC */
    uint64_t switches;            /* of its context that were known then */
};

/* What is known when a call begins that is only timed: a handler of the program may wait inside it. */
struct stile__before {
    uint64_t since_ns, switches, waited_ns;
};

/* Where a hook is: its registers, in the kernel's order, as a signal would find them. The leaf of the stack is shown as
 * `hook`, the function that the program called; the frame that has these registers must be the only one of ours. */
#define STILE__REGISTERS_HERE(regs)                                                                          \
    do {                                                                                                     \
        memset(regs, 0, NGREG * sizeof *(regs));                                                             \
        __asm__ volatile("lea 0f(%%rip), %%rax\n0:\n\t"                                                      \
                         "mov %%rax, 128(%0)\n\t"                                                            \
                         "mov %%rbx, 88(%0)\n\t"                                                             \
                         "mov %%rbp, 80(%0)\n\t"                                                             \
                         "mov %%rsp, 120(%0)\n\t"                                                            \
                         "mov %%r12, 32(%0)\n\t"                                                             \
                         "mov %%r13, 40(%0)\n\t"                                                             \
                         "mov %%r14, 48(%0)\n\t"                                                             \
                         "mov %%r15, 56(%0)"                                                                 \
                         :                                                                                   \
                         : "r"(regs)                                                                         \
                         : "rax", "memory");                                                                 \
    } while (0)

/* Use the macros. hook: the address of the function that the program called. */
void stile__block_begin(struct stile__door *d, enum stile__wait_reason why, const void *hook,
                        const uint64_t *regs);
void stile__block_end(struct stile__door *d);

/* Of calls that may block. thing: what they are made on (a descriptor). Whether to expect it: the last one was not quick. */
bool stile__block_expected(enum stile__wait_reason why, uint64_t thing);
struct stile__before stile__block_before(void);
uint64_t stile__block_clock(void);
void stile__block_check(struct stile__door *d, enum stile__wait_reason why, uint64_t thing);
void stile__block_measured(enum stile__wait_reason why, uint64_t thing, const void *hook,
                           const uint64_t *regs, const struct stile__before *before, uint64_t until_ns);

/* Whether a call that took so long is recorded: surely if it took the rate, by chance if less. */
bool stile__block_long(uint64_t ns);

/* After the call that did it. The hook's frame as above. */
void stile__block_woke(enum stile__wait_reason why, const void *hook, const uint64_t *regs);

/* With the session. */
void stile__blocking_set(bool on);

/* The value of a call that blocks. Only where stile__blocking_on(). */
#define STILE__BLOCKS(why, hook, call)                                                                       \
    ({                                                                                                       \
        struct stile__door door_;                                                                            \
        uint64_t regs_[NGREG];                                                                               \
        STILE__REGISTERS_HERE(regs_);                                                                        \
        stile__block_begin(&door_, why, (const void *)(uintptr_t)(hook), regs_);                             \
        __auto_type blocked_ = (call);                                                                       \
        stile__block_end(&door_);                                                                            \
        blocked_;                                                                                            \
    })

/* The value of a call that may block. */
#define STILE__MAY_BLOCK(why, thing, hook, call)                                                             \
    ({                                                                                                       \
        __typeof__(call) may_;                                                                               \
        if (!stile__blocking_on()) {                                                                         \
            may_ = (call);                                                                                   \
        } else if (stile__block_expected(why, (uint64_t)(thing))) {                                          \
            struct stile__door door_;                                                                        \
            uint64_t regs_[NGREG];                                                                           \
            STILE__REGISTERS_HERE(regs_);                                                                    \
            stile__block_begin(&door_, why, (const void *)(uintptr_t)(hook), regs_);                         \
            may_ = (call);                                                                                   \
            stile__block_check(&door_, why, (uint64_t)(thing));                                              \
        } else {                                                                                             \
            struct stile__before before_ = stile__block_before();                                            \
            may_ = (call);                                                                                   \
            uint64_t until_ = stile__block_clock();                                                          \
            if (__builtin_expect(stile__block_long(until_ - before_.since_ns), 0)) {                         \
                uint64_t regs_[NGREG];                                                                       \
                STILE__REGISTERS_HERE(regs_);                                                                \
                stile__block_measured(why, (uint64_t)(thing), (const void *)(uintptr_t)(hook), regs_,        \
                                      &before_, until_);                                                     \
            }                                                                                                \
        }                                                                                                    \
        may_;                                                                                                \
    })

/* Tells that the caller has ended a wait. */
#define STILE__WOKE(why, hook)                                                                               \
    do {                                                                                                     \
        uint64_t regs_[NGREG];                                                                               \
        STILE__REGISTERS_HERE(regs_);                                                                        \
        stile__block_woke(why, (const void *)(uintptr_t)(hook), regs_);                                      \
    } while (0)

#endif
