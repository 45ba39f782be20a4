/* The shared memory region: the contract between the agent in the program and the collector.
 *
 * One region per process image, made by the agent as a memfd and handed to the collector over a socket. It holds
 * offsets and indices only, never pointers. Its file size is fixed when it is made and sealed against shrinking;
 * pages are populated part by part, so it costs what is used (64 KiB at first), and neither side ever remaps it.
 *
 *   header | modules text | thread slots | memos, what waiting threads left, and rings, one per slot |
 *   snapshot blocks | unwind rules | text of a crash report | what the collector answers
 *
 * Invariants
 *  - `size` determines every offset (stile__region_layout); the collector recomputes them and believes nothing else
 *    about sizes. Whatever the program scribbles here yields a clear error in the collector.
 *  - Pages that the signal handlers write are populated before they can reach them, since a fault that cannot be
 *    served from a memfd is a SIGBUS in the program.
 *  - Each word has one writer, named by the group it stands in; words that both sides write are atomic
 *    read-modify-write only, and say so. */
#ifndef STILE_REGION_LAYOUT_H
#define STILE_REGION_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/region/report.h"
#include "profiler/region/ring.h"
#include "profiler/region/rules.h"
#include "profiler/region/waits.h"

#define STILE__REGION_MAGIC   0x656c6974530a0001ull
#define STILE__REGION_VERSION 8u

#define STILE__REGION_HZ_MAX 20000u /* more than any clock delivers */
#define STILE__PAGE          4096u
#define STILE__SLOT_MAX      16384u /* threads alive at once that can be sampled */
#define STILE__BLOCK_MAX     4096u  /* snapshot blocks: 64 MiB, reached only by many deep stacks at once */
#define STILE__BLOCK_SIZE    16384u /* bytes, its header included */
#define STILE__SNAPSHOT_MAX  (256u << 10) /* bytes of one stack snapshot */
#define STILE__MODULES_BYTES (1u << 20)   /* text of the executable mappings, as /proc/PID/maps has them */
#define STILE__BLOCK_NONE    UINT32_MAX
#define STILE__STUBS         16384u /* of barriers, in a process */
#define STILE__STUB_BYTES    16u
#define STILE__STUB_ENTRY                                                                                    \
    32u /* bytes of a stub's entry, which begins with the return address that it stands for */

/* A thread that has used so many periods is brought to its own clock to the nanosecond; the ticks of shorter ones add
 * up only together (see carry_take in clock.c). */
#define STILE__EXACT_PERIODS 16u

#define STILE__NEVER_DUE       (1ull << 62)                     /* CPU time of a tick that does not come */
#define STILE__INTERVAL_NS_MIN 100000000ull                     /* 100 ms */
#define STILE__INTERVAL_NS_MAX (30 * 24 * 3600 * 1000000000ull) /* 30 days */

/* Life of a slot. free -> setup: agent, compare-and-swap; setup -> live, live -> exited: agent, release;
 * exited -> free: collector, release, once the ring is drained and the thread's final words are read. */
enum stile__slot_state { STILE__SLOT_FREE, STILE__SLOT_SETUP, STILE__SLOT_LIVE, STILE__SLOT_EXITED };

/* What ticks for a thread; see clock.c for who gets which. */
enum stile__clock_kind {
    STILE__CLOCK_NONE,
    STILE__CLOCK_TIMER, /* a timer on its CPU time, at the kernel's tick rate at most; the rest are overruns */
    STILE__CLOCK_PERF, /* perf's cpu-clock for time in user mode, and a timer that settles time in the kernel */
    STILE__CLOCK_PERF_ALONE, /* the same without the timer: there was none to be had */
    STILE__CLOCK_PROCESS,    /* one timer on the CPU time of the process, shared */
    STILE__CLOCK_KINDS
};

/* Why perf's clock was not tried; beyond errno's range. */
enum { STILE__PERF_FILTERED = 4096, STILE__PERF_RATE, STILE__PERF_QUEUE };

/* One thread. */
struct stile__slot {
    /* Owned by the agent in normal context; constant while the slot is live. */
    _Atomic uint32_t state;      /* enum stile__slot_state */
    _Atomic uint32_t tid;        /* as the program sees it */
    _Atomic uint32_t generation; /* unique per thread and session; the timer's signals carry it */
    uint8_t clock_kind;          /* enum stile__clock_kind */
    uint8_t pad0[3];
    char comm[16];                 /* final thread name, valid once exited; not terminated when 16 long */
    uint64_t base_cpu_ns;          /* the thread's CPU time from which on it is accounted for */
    uint64_t first_due_ns;         /* the thread's CPU time at which its first tick is due */
    _Atomic uint64_t exit_cpu_ns;  /* final CPU time of the thread, or at the session's end; 0 before */
    _Atomic uint64_t missed_ticks; /* due, but not delivered when its clock was stopped; valid at the end */

    /* Owned by whoever holds the lock, or by the thread's handler. Barriers' stack_lock: 0 or the owner's tid. */
    _Alignas(64) _Atomic uint32_t stack_lock;
    uint32_t pad1;
    _Atomic uint64_t head;    /* ring producer, cells; release pairs with the drain's acquire */
    _Atomic uint64_t lost_ns; /* weight of ticks that found the ring full; handler only */
    _Atomic uint64_t lost_ticks;
    _Atomic uint64_t signals; /* signals taken, whatever became of them */
    _Atomic uint64_t ticks;   /* ticks that these, and the thread's end, stood for */
    uint8_t pad2[8];

    /* Owned by the collector. */
    _Alignas(64) _Atomic uint64_t tail; /* ring consumer, cells; release pairs with the reserve's acquire */
    uint8_t pad3[56];

    /* With PROFILE_TOGGLE the clock is changed by handlers, too: the clock, first_due_ns and piece belong to whoever
     * holds clock_lock (0 or a tid). Handlers only try it. */
    _Alignas(64) _Atomic uint32_t
        piece; /* that the running clock counts for; 0: none runs, or there is no toggle */
    _Atomic uint32_t clock_lock;

    /* Who owns the stack: see barriers/ownership.h. The thread and its readers. */
    _Atomic uint64_t status;
    /* Owned by the thread, and its handler. */
    _Atomic uint64_t lost_waits;    /* that found the ring full, as many as they stand for, */
    _Atomic uint64_t lost_delay_ns; /* and their delay */
    uint64_t birth_mono_ns;         /* CLOCK_MONOTONIC when the slot was opened */
    _Atomic uint64_t exit_mono_ns;  /* when the thread left it; 0 before */
    _Atomic uint64_t run_delay_ns;  /* that it was runnable and did not run, by then; UINT64_MAX: not known */
    _Atomic uint64_t
        lost_wakes; /* wake-ups that found the ring full, as many as they stand for; the thread */
};
_Static_assert(sizeof(struct stile__slot) == 256, "slots are 256 bytes: four cache lines");

/* What a thread's last walk found, for its next one: a frame's stack pointer, program counter and rule. Two halves take
 * turns: one is read while the other is written. The thread's handler alone uses it. */
#define STILE__MEMO_FRAMES 83u
struct stile__memo {
    struct stile__memo_half {
        uint32_t unloads; /* as of which its rules are right */
        uint32_t n;
        uint64_t last; /* of the first half: which half was written last */
        struct stile__memo_frame {
            uint64_t rsp, pc, rule;
        } frames[STILE__MEMO_FRAMES + 1]; /* ascending by rsp; one more, for what there is no room for */
    } halves[2];
    /* Of its barriers, what became of them. Read by the collector. */
    struct stile__barrier_counts {
        _Atomic uint64_t placed, hit;
        _Atomic uint64_t retired;  /* whose frames were left without a return */
        _Atomic uint64_t restored; /* whose return addresses were put back */
    } barriers;
};
_Static_assert(sizeof(struct stile__memo) <= STILE__PAGE, "a page each");

/* A piece of a stack snapshot, or of a long stack's frames. The chain ends at STILE__BLOCK_NONE. */
struct stile__block {
    uint32_t next;
    uint32_t used; /* bytes of data */
    uint64_t pad;
    uint8_t data[STILE__BLOCK_SIZE - 16];
};
_Static_assert(sizeof(struct stile__block) == STILE__BLOCK_SIZE, "a block is one power of two");
#define STILE__BLOCK_DATA (STILE__BLOCK_SIZE - 16u)

/* Pieces: with PROFILE_TOGGLE, what lies between a start and the next stop is a piece, and becomes a file. They are
 * numbered from 1. Piece k has entry k % STILE__PIECES.
 *
 *   agent (a handler, under the toggle's busy flag)      collector (collects one piece at a time: pieces_done + 1)
 *   -----------------------------------------------      ---------------------------------------------------------
 *   start k: entry free, that is k - STILE__PIECES       drains the rings, each up to the first record of a later
 *       <= pieces_done (A)                                   piece
 *       start_mono_ns, state running, pieces_started = k (B)
 *       clocks on, slot by slot; their records carry k   sees state stopped (D), and leaves what is on its way some
 *   stop k: clocks off, slot by slot; what is due is         time to arrive
 *       booked; stop_mono_ns, state stopped (C)          state stopped -> taken, compare-and-swap (E)
 *                                                        drains once more, cuts, pieces_done = k (F)
 *   start with no entry free: the last piece goes on:    a record of an earlier piece than the one that is being
 *       state stopped -> running, compare-and-swap (G)       collected is counted as late
 *
 * B and C are releases, D acquires; F pairs with A. A start waits for nobody: either there is an entry, or the last
 * piece is not taken yet and G succeeds. (E goes in order: if the last one is taken, the one before it is done.)
 * A tick's signal carries its piece, so that one which comes after the stop is stale, whatever has been started since.
 * Ticks that found their ring full, and ticks due on another thread at a stop, carry no number: they go to the piece
 * that is being collected when the collector sees them, never to a later one than their own. */
#define STILE__PIECES 32u
enum stile__piece_state { STILE__PIECE_NONE, STILE__PIECE_RUNNING, STILE__PIECE_STOPPED, STILE__PIECE_TAKEN };
struct stile__piece {
    _Atomic uint32_t state; /* enum stile__piece_state; both sides, compare-and-swap where both may write */
    uint32_t pad;
    uint64_t start_mono_ns, stop_mono_ns; /* agent; CLOCK_MONOTONIC */
};

/* What became of the file, left by the collector for the agent to read and print. */
enum stile__finish_state { STILE__FINISH_NONE, STILE__FINISH_WRITTEN, STILE__FINISH_FAILED };

/* PROFILE_DEBUG. */
enum {
    STILE__DEBUG_VERIFY = 1,     /* every sample carries its snapshot, too, and the collector compares */
    STILE__DEBUG_VERIFY_ALL = 2, /* and goes on where they differ */
    STILE__DEBUG_WALK_TIME = 4,  /* a record says how long its walk took */
    STILE__DEBUG_OWNERSHIP = 8,  /* whoever reads a stack proves that it is his */
    STILE__DEBUG_NO_FREEZE =
        16 /* at a crash nobody is signalled: waiting threads are reported from what they left */
};

/* Why the world is stopped: `freezing`. Set and taken back by compare-and-swap; a crash takes it from a dump for good. */
#define STILE__FREEZE_CRASH 1u
#define STILE__FREEZE_DUMP  2u /* and above: the dump of this number */

/* What the collector says to the program: text, for a report or a dump. `answer` is the number of what was asked, shifted, and a bit that
 * says that it is all there; until then answer_len grows. */
#define STILE__ANSWER_DONE  1u
#define STILE__ANSWER_CRASH (UINT32_MAX & ~STILE__ANSWER_DONE)
static inline uint32_t stile__answer_of(uint32_t dump_request)
{
    return dump_request << 1 & ~STILE__ANSWER_DONE;
}

/* Generations of waits, unless PROFILE_DEBUG says otherwise, and at most. */
#define STILE__ADVANCE_NS     1000000000u
#define STILE__ADVANCE_NS_MAX 3600000000000ull
#define STILE__BLOCK_RATE_MAX 1000000000u /* ns */

/* PROFILE_BARRIERS: on stacks of what depth. */
enum stile__barriers_wish {
    STILE__BARRIERS_OFF,
    STILE__BARRIERS_AUTO, /* where they pay */
    STILE__BARRIERS_ON,   /* on all, at growing distances */
    STILE__BARRIERS_ALL,  /* on every frame that may have one */
    STILE__BARRIERS_WISHES
};

/* Whether any may be placed yet, or may not for good, and why. Until they may, and from then on, stubs that stand
 * somewhere are looked through, and none is used again: whoever has copied a stack may bring it back at any time. */
enum stile__barriers_state {
    STILE__BARRIERS_UNVETTED, /* the collector has not looked at what the program has loaded */
    STILE__BARRIERS_GO,
    STILE__BARRIERS_OFF_UNWINDER, /* a module has an unwinder to itself, whose functions cannot be named */
    STILE__BARRIERS_OFF_UNWINDER_MET, /* such a one has come to a barrier */
    STILE__BARRIERS_OFF_COPIES,       /* a module copies stacks away and back */
    STILE__BARRIERS_OFF_KEYS,         /* a module looks return addresses up in tables of its own */
    STILE__BARRIERS_OFF_INSTRUMENTED, /* a module's functions hand on their own return address, or check it */
    STILE__BARRIERS_OFF_UPROBES,      /* the kernel may exchange return addresses, too */
    STILE__BARRIERS_OFF_SHADOW_STACK, /* the processor compares them with its own */
    STILE__BARRIERS_OFF_SELF_TEST,    /* an unwinder does not pass a barrier as it should */
    STILE__BARRIERS_OFF_UNREADABLE,   /* a module could not be looked at */
    STILE__BARRIERS_STATES
};
#define STILE__DEPTH_MAX (1u << 24) /* frames; more than the stacks of any program have */

/* What determines where everything is. */
struct stile__region_size {
    uint32_t slot_max;
    uint32_t block_max;
    uint32_t ring_cells; /* of the first slots; see stile__slot_cells */
    uint32_t rule_pages; /* of the rules' arena; 0: no rules */
    uint32_t waits;      /* 1: each slot has a page for what its thread leaves when it waits */
    uint32_t report;     /* bytes of the report's text that are kept, and of the answer; whole pages */
};

struct stile__region {
    /* Constant once the region has been handed over. */
    uint64_t magic;
    uint32_t version;
    struct stile__region_size size;
    uint32_t hz;           /* requested rate, per second of CPU time */
    uint32_t ticks_wanted; /* 0: no CPU profile, and no clocks; hz and what follows from it are still valid */
    uint64_t
        block_rate_ns;   /* a wait is recorded per so much time waited, on average; 0: no blocking profile */
    uint64_t advance_ns; /* a generation of waits: those that last longer are told in parts */
    uint32_t tick_ns;    /* the kernel's tick */
    uint64_t period_ns;  /* CPU time per tick of ours */
    uint64_t start_unix_ns; /* CLOCK_REALTIME when the session started */
    uint64_t start_mono_ns; /* CLOCK_MONOTONIC at the same moment */
    uint64_t start_cpu_ns;  /* CPU time the process had used by then */
    int32_t parent_pid;     /* as the program sees it */
    uint32_t from_birth;    /* 1: what the image used before that is part of the profile, too */
    uint64_t interval_ns;   /* a file each, by the collector's clock; 0: one at the end */
    int32_t signal;         /* of the clocks */
    int32_t toggle;         /* that starts and stops them; 0: they run from the start */
    uint32_t depth;         /* frames of a sample at most */
    uint32_t debug;         /* STILE__DEBUG bits */
    uint32_t barriers;      /* enum stile__barriers_wish */
    int32_t dump;           /* signal that asks for all stacks; 0: none */
    uint64_t stubs;         /* where the program has its stubs, */
    uint64_t stub_entries;  /* and their entries */

    /* Owned by the agent in normal context. */
    _Alignas(64) _Atomic uint32_t slots_used; /* slots ever used; grows by compare-and-swap */
    _Atomic uint32_t modules_len;    /* bytes of modules text; release pairs with the collector's acquire */
    _Atomic uint32_t flush_request;  /* counts up */
    _Atomic uint32_t finish_request; /* 0, then 1 */
    _Atomic uint32_t threads_unsampled; /* threads that got no slot */
    _Atomic uint32_t
        signal_taken; /* 1: the program handles the signal itself; there are no ticks after that */
    _Atomic uint32_t clocks[STILE__CLOCK_KINDS]; /* threads by what ticks for them */
    _Atomic int32_t perf_error;                  /* why the first thread without perf has none: errno, or 0 */
    _Atomic int32_t timer_error;                 /* the same for timers */
    _Atomic uint64_t
        children_cpu_ns; /* CPU time of the children that it had waited for, with theirs, at the end */
    _Atomic uint64_t end_cpu_ns;   /* CPU time of the process when the session ended or it exec'd; 0 before */
    _Atomic uint32_t toggle_taken; /* 1: the program handles the toggle's signal itself */
    _Atomic uint32_t pieces_started; /* the last piece's number */
    _Atomic uint32_t drain_request;  /* counts up: a library is about to go */
    _Atomic uint32_t
        freezing; /* not 0: who comes out of a wait stops before it runs; a dump's is the collector's */
    _Atomic uint32_t crash_wanted; /* 1: crashes are reported */
    _Atomic uint32_t crash_state;  /* enum stile__crash_state */
    _Atomic uint32_t report_len; /* bytes of the report's text; release pairs with the collector's acquire */
    _Atomic uint32_t report_out; /* of these, in the crash output */
    _Atomic uint32_t dump_request; /* counts up: somebody in the program waits for all stacks */
    _Atomic uint32_t dump_tid;     /* who; it has given its own */

    /* Added to by handlers: any thread, read-modify-write. */
    _Alignas(64) _Atomic uint64_t stale_signals; /* of an earlier session or another thread's timer */
    _Atomic uint64_t blocks_short;               /* snapshots cut or dropped for want of a block */
    uint8_t pad2[64 - 16];

    /* Owned by the collector. The agent waits on finish_state and flush_done by futex. */
    _Alignas(64) _Atomic uint32_t heartbeat;
    _Atomic uint32_t finish_state; /* enum stile__finish_state */
    _Atomic uint32_t flush_done;   /* the last flush_request served */
    _Atomic uint32_t blocks_ready; /* blocks that are populated; set to its first value by the agent */
    _Atomic uint32_t pieces_done;  /* the last piece that was cut */
    _Atomic uint32_t
        rules_unloads;           /* unloads as of which the rules are right; UINT32_MAX: there are none yet */
    _Atomic uint32_t drain_done; /* the last drain_request served: what was sampled before it is read */
    _Atomic uint32_t answer_len; /* bytes; release pairs with the program's acquire */
    _Atomic uint32_t answer;     /* what it is for; see stile__answer_of. Set after answer_len was 0 again */
    uint8_t pad3[64 - 36];
    char message[512]; /* one line, valid once finish_state is FAILED or written with remarks */

    /* Both sides: a set bit is a block in use. Handlers set bits, the collector clears them. */
    _Alignas(64) _Atomic uint64_t blocks_used[STILE__BLOCK_MAX / 64];

    /* Both sides: see rules.h. */
    _Alignas(64) _Atomic uint32_t unloads;

    /* Both sides, by compare-and-swap, upwards only: enum stile__barriers_state. A release by the collector, before it
     * publishes rules of the module that it was about: whoever walks by these and then looks here with acquire sees it. */
    _Atomic uint32_t barriers_state;

    struct stile__piece pieces[STILE__PIECES];
};
_Static_assert(sizeof(struct stile__region) <= STILE__PAGE, "the header is one page");

/* No barriers from now on. The first reason stays. Async-signal-safe. */
static inline void stile__barriers_state_off(struct stile__region *r, enum stile__barriers_state why)
{
    uint32_t now = atomic_load_explicit(&r->barriers_state, memory_order_relaxed);
    while (now <= STILE__BARRIERS_GO &&
           !atomic_compare_exchange_weak_explicit(&r->barriers_state, &now, why, memory_order_acq_rel,
                                                  memory_order_relaxed))
        ;
}

#define STILE__SLOTS_LARGE 64u /* slots with rings of full size: more threads than run at once */

/* Cells of slot i's ring. Threads beyond the first take turns on the processors, so that less does for them. */
static inline uint32_t stile__slot_cells(struct stile__region_size size, uint32_t i)
{
    uint32_t small =
        size.ring_cells / 8 > STILE__RING_CELLS_MIN ? size.ring_cells / 8 : STILE__RING_CELLS_MIN;
    return i < STILE__SLOTS_LARGE ? size.ring_cells : small;
}

/* Bytes from the first ring to that of slot i. */
static inline uint64_t stile__ring_offset(struct stile__region_size size, uint32_t i)
{
    uint64_t large = i < STILE__SLOTS_LARGE ? i : STILE__SLOTS_LARGE;
    return (large * size.ring_cells + (i - large) * stile__slot_cells(size, STILE__SLOTS_LARGE)) *
           STILE__CELL_BYTES;
}

/* Byte offsets of the parts; `size` is the whole file's. */
struct stile__region_layout {
    uint64_t modules, slots, memos, lefts, rings, blocks, rules, report, answer, size;
};

/* Computes the layout. Async-signal-safe. */
static inline struct stile__region_layout stile__region_layout(struct stile__region_size size)
{
    struct stile__region_layout l;
    l.modules = STILE__PAGE;
    l.slots = l.modules + STILE__MODULES_BYTES;
    l.memos = l.slots + (uint64_t)size.slot_max * sizeof(struct stile__slot);
    l.lefts = l.memos + (uint64_t)size.slot_max * STILE__PAGE;
    l.rings = l.lefts + (size.waits != 0 ? (uint64_t)size.slot_max * STILE__PAGE : 0);
    l.blocks = l.rings + stile__ring_offset(size, size.slot_max);
    l.rules = l.blocks + (uint64_t)size.block_max * STILE__BLOCK_SIZE;
    l.report = l.rules + stile__rules_bytes(size.rule_pages);
    l.answer = l.report + size.report;
    l.size = l.answer + size.report;
    return l;
}

/* Accessors; the index must be below slot_max or block_max. Async-signal-safe. */
static inline char *stile__region_modules(struct stile__region *r)
{
    return (char *)r + STILE__PAGE;
}
static inline struct stile__slot *stile__region_slot(struct stile__region *r, uint32_t i)
{
    return (struct stile__slot *)((char *)r + STILE__PAGE + STILE__MODULES_BYTES) + i;
}
static inline struct stile__memo *stile__region_memo(struct stile__region *r, struct stile__region_size size,
                                                     uint32_t i)
{
    return (struct stile__memo *)((char *)r + stile__region_layout(size).memos + (uint64_t)i * STILE__PAGE);
}
/* Only where size.waits is set. */
static inline struct stile__left *stile__region_left(struct stile__region *r, struct stile__region_size size,
                                                     uint32_t i)
{
    return (struct stile__left *)((char *)r + stile__region_layout(size).lefts + (uint64_t)i * STILE__PAGE);
}
static inline struct stile__cell *stile__region_ring(struct stile__region *r, struct stile__region_size size,
                                                     uint32_t i)
{
    return (struct stile__cell *)((char *)r + stile__region_layout(size).rings + stile__ring_offset(size, i));
}
static inline struct stile__block *stile__region_block(struct stile__region *r,
                                                       struct stile__region_size size, uint32_t i)
{
    return (struct stile__block *)((char *)r + stile__region_layout(size).blocks) + i;
}
static inline char *stile__region_report(struct stile__region *r, struct stile__region_size size)
{
    return (char *)r + stile__region_layout(size).report;
}
static inline char *stile__region_answer(struct stile__region *r, struct stile__region_size size)
{
    return (char *)r + stile__region_layout(size).answer;
}
static inline struct stile__rules *stile__region_rules(struct stile__region *r,
                                                       struct stile__region_size size)
{
    return (struct stile__rules *)((char *)r + stile__region_layout(size).rules);
}

#endif
