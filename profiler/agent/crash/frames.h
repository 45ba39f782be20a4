/* Stacks of a report: walked by the modules' own CFI, without rules and without the collector, so that they are whole whoever
 * else is alive. Runs in the handlers of crashes, on the thread whose stack it is (or on a copy of one): no libc, no lock,
 * no allocation; every read is of memory that was found readable. */
#ifndef STILE_AGENT_CRASH_FRAMES_H
#define STILE_AGENT_CRASH_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#define STILE__FRAMES_LEAF 384u       /* shown from the leaf on, */
#define STILE__FRAMES_ROOT 64u        /* and down from the root, of stacks that are deeper */
#define STILE__FRAMES_MAX  (1u << 20) /* at which a walk ends: a stack of 8 MiB has no more */

/* Why a walk ended. */
enum stile__frames_end {
    STILE__FRAMES_END_ROOT,   /* at the outermost frame */
    STILE__FRAMES_END_NO_CFI, /* in code without, where rbp leads nowhere either */
    STILE__FRAMES_END_MEMORY, /* what it would have read cannot be read, or is another stack's */
    STILE__FRAMES_END_LOOP,   /* the stack pointer did not move up */
    STILE__FRAMES_END_MAX,
    STILE__FRAMES_END_LOCKED /* it did not begin: its barriers were being changed */
};

/* Addresses of frames as they are looked up: of the leaf and of what a signal interrupted, the instruction's; of callers the
 * return address less one. */
struct stile__frames {
    uint32_t n; /* of the stack; those that are kept are the first and the last ones */
    enum stile__frames_end end;
    uint64_t leaf[STILE__FRAMES_LEAF];
    uint64_t root[STILE__FRAMES_ROOT]; /* frame i >= STILE__FRAMES_LEAF is root[i % STILE__FRAMES_ROOT] */
};

/* Reads a word of the stack. */
typedef bool stile__stack_reader_fn(void *arg, uint64_t address, uint64_t *word);

/* Walks from these registers (in the kernel's order, see REG_RIP) to the root. Stubs of barriers are looked through. */
void stile__frames_walk(struct stile__frames *f, const uint64_t *regs, stile__stack_reader_fn *reader,
                        void *arg);

/* Reads memory of this process if it can be read. arg: struct stile__pages of the caller's that remember what was, or NULL. */
stile__stack_reader_fn stile__frames_read_own;

#endif
