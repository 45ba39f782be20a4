/* What a thread writes for one tick or wait, and why a stack may be less than whole. */
#ifndef STILE_REGION_RECORD_H
#define STILE_REGION_RECORD_H

#include <stdint.h>

/* Why a tick has not a whole stack. Each ends in the profile as a bracketed root frame (stile__reason_name). */
enum stile__reason {
    STILE__REASON_NONE,           /* whole, as far as the agent knows */
    STILE__REASON_STACK_LOCKED,   /* somebody else, or the interrupted code, owned the stack */
    STILE__REASON_NO_UNWIND_INFO, /* a frame without a rule, CFI or frame pointer */
    STILE__REASON_TRUNCATED,      /* deeper than what is recorded */
    STILE__REASON_BUFFER_FULL,    /* no room for the record or its snapshot */
    STILE__REASON_UNKNOWN_STACK,  /* the stack pointer is on no stack whose bounds are known */
    STILE__REASON_UNSAMPLED,      /* used without a tick: no clock for the thread, or its clock was stopped */
    STILE__REASON_SIGNAL_BLOCKED, /* used while the program kept our signal from the thread */
    STILE__REASON_EXEC_AND_EXIT,  /* used before the session could start, or after a thread's last look */
    STILE__REASON_COUNT
};

/* Registers of a snapshot, in DWARF order for x86-64: rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip. */
enum { STILE__REG_RBP = 6, STILE__REG_RSP = 7, STILE__REG_RIP = 16, STILE__REG_COUNT = 17 };

enum stile__record_kind {
    STILE__RECORD_PAD,    /* fills the end of the ring; nothing else is valid */
    STILE__RECORD_WALKED, /* the frames are all there is */
    STILE__RECORD_SNAPSHOT, /* the walk goes on in the snapshot: its first frame is the first that is not listed */
    STILE__RECORD_VERIFY, /* as WALKED; the snapshot is of the whole stack, for comparison */
    STILE__RECORD_KINDS
};

/* Of a record: what else is so. */
enum {
    STILE__IN_KERNEL = 1, /* the thread was in the kernel, called from the leaf: the leaf is [kernel] */
    STILE__IS_BASE = 2,   /* its stack is the one that later records of its thread keep frames of */
    STILE__IS_WAIT = 4,   /* no tick, but a wait; more words follow: see waits.h */
    STILE__IS_DUMP = 8    /* no tick, but asked for: `piece` is the value of `freezing` that it answers */
};

/* Where the walk of a stack went through a stub: the return address that it stands for. */
struct stile__barrier_seen {
    uint64_t stub; /* its number */
    uint64_t ra;
};

/* One tick of one thread. Spans `cells` ring cells.
 *
 * Invariants: `kept` frames from the root are those of this thread's last record that was a base; n_new frames follow
 * below them, leaf first: n_inline of them are words[0..n_inline), and the rest lies in the chain that frames_block starts.
 * A frame is a program counter: the leaf's own, a caller's return address minus one, or the instruction that a signal
 * interrupted; never one in a stub. With a snapshot, words[n_inline..n_inline + STILE__REG_COUNT) are the registers of the
 * frame with which it starts, and `block` starts the chain that holds stack_len bytes of memory from stack_start, as it is,
 * stubs included, and n_barriers pairs for these (struct stile__barrier_seen). Frames may be kept with a snapshot, too: then
 * it ends with the slot of a barrier, and they are kept if its walk gets there. Written whole before the ring's head is
 * released; owned by the collector after that. */
struct stile__record {
    uint8_t cells;
    uint8_t reason; /* enum stile__reason */
    uint8_t kind;   /* enum stile__record_kind */
    uint8_t flags;  /* STILE__IN_KERNEL, STILE__IS_BASE, ... */
    uint32_t n_new;
    uint32_t kept;
    uint32_t label_set;    /* 0: none */
    uint32_t ticks;        /* 1 + timer overruns; of a wait: how many it stands for */
    uint32_t n_inline;     /* of n_new */
    uint32_t frames_block; /* STILE__BLOCK_NONE: all are inline */
    uint32_t block;        /* STILE__BLOCK_NONE: no snapshot */
    uint32_t unloads;      /* of libraries, as far as they were counted then: which code was where */
    uint32_t n_barriers;
    uint64_t stack_start;
    uint32_t stack_len;
    uint32_t
        piece; /* of PROFILE_TOGGLE that it belongs to; 0: it came after its piece was stopped, or no toggle */
    uint32_t walk_cycles; /* of the time stamp counter, with STILE__DEBUG_WALK_TIME; else 0 */
    uint32_t lost_regs;   /* bits by number: registers of the snapshot that are not known */
    uint64_t words[];
};
_Static_assert(sizeof(struct stile__record) == 64, "one cell of the ring");

/* The bracketed name under which a reason is reported; constant text. */
const char *stile__reason_name(enum stile__reason reason);

/* The leaf of time in the kernel. */
#define STILE__KERNEL_NAME "[kernel]"

#endif
