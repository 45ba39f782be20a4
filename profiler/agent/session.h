/* One profile of one process image: from start to stop, or to the end of the process. */
#ifndef STILE_AGENT_SESSION_H
#define STILE_AGENT_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "profiler/region/layout.h"

#define STILE__SHARDS       32
#define STILE__CARRIES      64
#define STILE__PROCESS_TICK UINT64_MAX /* what signals of the process's timer carry: no thread's id */

/* Memory that a stack may lie in; see stile__maps_stacks. */
struct stile__bounds {
    uintptr_t lo, hi; /* hi is exclusive */
};

struct stile__clock;

/* The way to the region. It lies in a page that fork wipes (MADV_WIPEONFORK), as the region itself is not inherited
 * (MADV_DONTFORK): a child made by a raw clone finds zeros here, and so no region, whoever made it.
 *
 * Invariant: the region is unmapped only when `region` is NULL and then all `inside` were seen zero. Whoever
 * touches the region, handler or not, is between stile__session_enter and stile__session_leave. */
struct stile__session {
    _Atomic(struct stile__region *) region; /* NULL: no session */
    struct stile__region_size size;         /* constant while region is set, as what follows */
    struct stile__region_layout at;         /* by that size: the handler need not compute it */
    uint64_t period_ns;
    uint64_t tick_ns; /* the kernel's tick: how often it looks at CPU timers */
    uint32_t depth;   /* frames of a sample at most */
    enum stile__barriers_wish barriers;
    bool ticks; /* there are clocks: a CPU profile is wanted */
    bool
        leaves; /* threads leave their stacks before they wait: for waits that are recorded, or for readers alone */
    uint64_t block_rate_ns; /* waits are recorded, one per so much time waited; 0: none */
    int32_t pid;
    int32_t signal;              /* ours, of clocks or for stopping threads; 0: none */
    int32_t dump;                /* that asks for all stacks; 0: none */
    bool use_perf;               /* new threads get perf's clock first */
    bool may_perf;               /* perf's clock is allowed, and may be tried */
    struct stile__clock *clocks; /* one per slot; private memory, not inherited by fork */
    /* A tick may break off a call that waits. Since Linux 5.10 the kernel looks at a thread's CPU timers on the way out to
     * the program only, so that those alone cannot. */
    _Atomic bool breaks_waits;
    int32_t process_timer; /* in reserve for threads that get no clock of their own; < 0: none, -errno */
    _Atomic bool process_timer_runs;
    _Atomic int64_t carry[STILE__CARRIES]; /* see clock.c */
    int32_t toggle;                        /* that starts and stops the clocks; 0: they always run */
    _Atomic bool signal_taken; /* the program handles our signal itself now: no clock runs any more */
    /* Of the toggle. Each signal is a wish: the odd ones start, the even ones stop. They are carried out one by one by
     * whoever has toggle_busy, which is only tried; its holder looks for further wishes after it has let go. */
    _Atomic uint32_t toggle_wishes; /* counted by handlers */
    _Atomic uint32_t toggle_busy;   /* 0 or 1 */
    _Atomic uint32_t toggles;       /* carried out; by the holder of toggle_busy */
    _Atomic uint32_t piece;         /* running, or 0; by the holder of toggle_busy */
    const struct stile__bounds
        *stacks; /* for threads older than the session; private memory, never freed early */
    uint32_t n_stacks;
    struct {
        _Alignas(64) _Atomic uint32_t inside;
    } shards[STILE__SHARDS];
};

static inline void stile__session_size_set(struct stile__session *s, struct stile__region_size size)
{
    s->size = size;
    s->at = stile__region_layout(size);
}

/* Of slot i. */
static inline struct stile__memo *stile__session_memo(const struct stile__session *s, struct stile__region *r,
                                                      uint32_t i)
{
    return (struct stile__memo *)((char *)r + s->at.memos + (uint64_t)i * STILE__PAGE);
}

/* The same of what its thread left; only where size.waits is set. */
static inline struct stile__left *stile__session_left(const struct stile__session *s, struct stile__region *r,
                                                      uint32_t i)
{
    return (struct stile__left *)((char *)r + s->at.lefts + (uint64_t)i * STILE__PAGE);
}

static inline struct stile__cell *stile__session_ring(const struct stile__session *s, struct stile__region *r,
                                                      uint32_t i)
{
    return (struct stile__cell *)((char *)r + s->at.rings + stile__ring_offset(s->size, i));
}

/* Set once, before the first session; the page itself is never unmapped. NULL: this process was never profiled. */
extern struct stile__session *stile__session;

/* Enters and returns the region, or NULL (then there is nothing to leave). Async-signal-safe. `shard` spreads the
 * threads over cache lines: any number that differs between threads.
 * The increment and the load are sequentially consistent, as are the exchange of `region` and the reads of `inside`
 * in stile__session_quiesce: either we see NULL, or the stopper sees us. */
static inline struct stile__region *stile__session_enter(struct stile__session *s, uint32_t shard)
{
    if (s == NULL || atomic_load_explicit(&s->region, memory_order_relaxed) == NULL)
        return NULL;
    atomic_fetch_add_explicit(&s->shards[shard % STILE__SHARDS].inside, 1, memory_order_seq_cst);
    struct stile__region *r = atomic_load_explicit(&s->region, memory_order_seq_cst);
    if (r == NULL)
        atomic_fetch_sub_explicit(&s->shards[shard % STILE__SHARDS].inside, 1, memory_order_release);
    return r;
}

/* Async-signal-safe. Release pairs with the stopper's read of `inside`. */
static inline void stile__session_leave(struct stile__session *s, uint32_t shard)
{
    atomic_fetch_sub_explicit(&s->shards[shard % STILE__SHARDS].inside, 1, memory_order_release);
}

/* Whether our handler is installed for our signal: it is kept open in every thread then. */
static inline bool stile__session_signals(const struct stile__session *s)
{
    return s->signal != 0 && !atomic_load_explicit(&s->signal_taken, memory_order_relaxed);
}

/* The profiling signal as a bit of a mask while the session keeps it open in every thread, or 0: there is no session,
 * or the program has taken the signal over. A few loads; async-signal-safe. */
static inline uint64_t stile__session_kept_open(void)
{
    const struct stile__session *s = stile__session;
    if (s == NULL || atomic_load_explicit(&s->region, memory_order_relaxed) == NULL ||
        !stile__session_signals(s))
        return 0;
    return 1ull << (s->signal - 1);
}

/* The same if it has to be masked for a call that waits, or 0. */
static inline uint64_t stile__session_masked_in_waits(void)
{
    const struct stile__session *s = stile__session;
    return s != NULL && atomic_load_explicit(&s->breaks_waits, memory_order_relaxed)
               ? stile__session_kept_open()
               : 0;
}

struct stile__options;

enum stile__origin {
    STILE__ORIGIN_START, /* the program's start */
    STILE__ORIGIN_API,   /* stile_profile_start */
    STILE__ORIGIN_FORK   /* the child of a fork, in its only thread */
};

/* Starts a session in this process. Normal context. Returns 0 or -errno after one line about what is wrong
 * (unless quiet). */
int stile__session_start(const struct stile__options *options, enum stile__origin origin);

/* Before code goes: has read what was sampled in it. Normal context; bounded. */
void stile__session_drain(void);

/* Asks the collector for the file, and waits for it, bounded. Returns 0 or -errno, as stile_profile_flush. */
int stile__session_flush(void);

/* Whether crashes are reported from now on, in this process and its children; starts a session for that alone if there is none. As
 * stile_crash_enable. */
int stile__session_crashes(void);

/* Ends the session: no more ticks; waits for the file, bounded. Returns as stile_profile_stop. */
int stile__session_stop(void);

/* The process is about to end in normal context. Leaves what the collector needs; the root of the tree also waits
 * for the file. Idempotent; does nothing in a vfork child. */
void stile__session_exit(void);

/* Around fork: nothing of ours happens to this thread in between, and the child starts anew. */
void stile__session_fork_prepare(void);
void stile__session_fork_parent(void);
void stile__session_fork_child(void);

/* The collector if it is this process's child (the program is pid 1) and has to be hidden from its waits, or 0. */
pid_t stile__session_hidden_child(void);

#endif
