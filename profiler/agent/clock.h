/* The clock of a thread: what makes it sample itself. */
#ifndef STILE_AGENT_CLOCK_H
#define STILE_AGENT_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/agent/session.h"
#include "profiler/region/raw_syscall.h"

/* The agent's own part of a slot, out of reach of what scribbles on the region. Owned by the slot's owner; handlers
 * only read `kind`, which is constant while the slot is live. */
struct stile__clock {
    uint8_t kind;     /* enum stile__clock_kind */
    int32_t timer_id; /* kernel timer, -1 for none */
    void *perf_page;  /* keeps the perf event alive without a file descriptor; NULL for none */
    int32_t perf_fd;  /* the number that the event's signals carry; it is closed */
    int64_t carry_ns; /* what the thread took over: see carry_take */
};

/* Sets up what all clocks of a session need; period_ns and signal are set in s. Normal context. perf: whether to use
 * perf's clock, of which *perf_error says why not (errno). Returns 0 or -errno. */
int stile__clocks_open(struct stile__session *s, bool perf, int *perf_error);

/* Ends the timer of the process. Idempotent. */
void stile__clock_process_stop(struct stile__session *s);

/* Gives back what it took. No thread may be inside the session. */
void stile__clocks_close(struct stile__session *s);

/* Starts the clock of slot i for thread tid (own: the caller), whose signals carry id; the slot's base_cpu_ns is set.
 * Fills first_due_ns and clock_kind of the slot. Failures are counted in the region; the last rung is none at all.
 * Returns 0 or -errno where there is none. */
int stile__clock_start(struct stile__session *s, struct stile__region *r, uint32_t i, uint32_t tid, bool own,
                       uint64_t id);

/* Notes that slot i has a timer which the toggle starts and stops. */
void stile__clock_reserve(struct stile__session *s, struct stile__region *r, uint32_t i);

/* Slot i has no clock. */
void stile__clock_none(struct stile__session *s, uint32_t i);

/* Stops it; a signal may still be on its way. Idempotent. */
void stile__clock_stop(struct stile__clock *c);

/* A thread has ended at cpu_ns of its own clock: what its ticks were off by goes to the next one. */
void stile__clock_carry(struct stile__session *s, const struct stile__slot *slot,
                        const struct stile__clock *c, uint64_t cpu_ns);

/* Any clock, ns; 0 if there is none such. Past libc and the vdso, which knows nothing of CPU clocks either.
 * Async-signal-safe. */
static inline uint64_t stile__clock_now(int clock)
{
    struct timespec ts = {0, 0};
    if (stile__raw_syscall(SYS_clock_gettime, clock, (long)&ts, 0, 0) != 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The kernel's encoding of the CPU clock of thread tid: ~tid << 3, per-thread (4), scheduler's precision (2). */
static inline int stile__clock_of_thread(uint32_t tid)
{
    return (int)(~tid << 3) | 4 | 2;
}

/* CPU time of a thread of this process, ns; 0 if it is gone. own: it is the caller. Async-signal-safe. */
static inline uint64_t stile__clock_read(uint32_t tid, bool own)
{
    return stile__clock_now(own ? CLOCK_THREAD_CPUTIME_ID : stile__clock_of_thread(tid));
}

/* Ticks that are due by CPU time cpu_ns and were not taken; negative: taken before they were due. Async-signal-safe. */
static inline int64_t stile__clock_missed(const struct stile__slot *slot, uint64_t cpu_ns, uint64_t period_ns)
{
    int64_t since = (int64_t)(cpu_ns - slot->first_due_ns);
    uint64_t due = since < 0 ? 0 : 1 + (uint64_t)since / period_ns;
    return (int64_t)(due - atomic_load_explicit(&slot->ticks, memory_order_relaxed));
}

#endif
