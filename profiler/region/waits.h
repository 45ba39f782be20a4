/* Waits of threads: why a thread waits, what it leaves when it begins to, and what it records of it. The word that says who
 * owns a stack is in barriers/ownership.h. */
#ifndef STILE_REGION_WAITS_H
#define STILE_REGION_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/record.h"

/* What a thread waits for; the label `reason` of a blocking profile. */
enum stile__wait_reason {
    STILE__WAIT_NONE,
    STILE__WAIT_MUTEX,
    STILE__WAIT_RWLOCK_READ,
    STILE__WAIT_RWLOCK_WRITE,
    STILE__WAIT_COND,
    STILE__WAIT_BARRIER,
    STILE__WAIT_JOIN,
    STILE__WAIT_SEMAPHORE,
    STILE__WAIT_SLEEP,
    STILE__WAIT_POLL,
    STILE__WAIT_SELECT,
    STILE__WAIT_EPOLL,
    STILE__WAIT_READ,
    STILE__WAIT_WRITE,
    STILE__WAIT_ACCEPT,
    STILE__WAIT_CONNECT,
    STILE__WAIT_RECV,
    STILE__WAIT_SEND,
    STILE__WAIT_CHILD,     /* a process's end */
    STILE__WAIT_SIGNAL,    /* sigsuspend, sigwait, pause */
    STILE__WAIT_MESSAGE,   /* System V message queues, asynchronous I/O */
    STILE__WAIT_ELSEWHERE, /* in what no hook stands before; only the collector says so */
    /* In these the thread goes on executing: code of ours on its stack, which is never given away. */
    STILE__WAIT_COLLECTOR, /* for the collector's answer */
    STILE__WAIT_REASONS
};

/* Whether a thread that waits for this still executes. */
static inline bool stile__wait_executes(enum stile__wait_reason why)
{
    static const bool executing[STILE__WAIT_REASONS] = {[STILE__WAIT_COLLECTOR] = true};
    return why < STILE__WAIT_REASONS && executing[why];
}

/* The name of a reason; constant text. Async-signal-safe: handlers can use nothing but what is here. */
static inline const char *stile__wait_reason_name(enum stile__wait_reason why)
{
    static const char *const names[STILE__WAIT_REASONS] = {
        [STILE__WAIT_NONE] = "",
        [STILE__WAIT_MUTEX] = "mutex",
        [STILE__WAIT_RWLOCK_READ] = "rwlock (read)",
        [STILE__WAIT_RWLOCK_WRITE] = "rwlock (write)",
        [STILE__WAIT_COND] = "condition variable",
        [STILE__WAIT_BARRIER] = "barrier",
        [STILE__WAIT_JOIN] = "join",
        [STILE__WAIT_SEMAPHORE] = "semaphore",
        [STILE__WAIT_SLEEP] = "sleep",
        [STILE__WAIT_POLL] = "poll",
        [STILE__WAIT_SELECT] = "select",
        [STILE__WAIT_EPOLL] = "epoll",
        [STILE__WAIT_READ] = "read",
        [STILE__WAIT_WRITE] = "write",
        [STILE__WAIT_ACCEPT] = "accept",
        [STILE__WAIT_CONNECT] = "connect",
        [STILE__WAIT_RECV] = "recv",
        [STILE__WAIT_SEND] = "send",
        [STILE__WAIT_CHILD] = "child",
        [STILE__WAIT_SIGNAL] = "signal",
        [STILE__WAIT_MESSAGE] = "message",
        [STILE__WAIT_ELSEWHERE] = "elsewhere",
        [STILE__WAIT_COLLECTOR] = "collector",
    };
    return why < STILE__WAIT_REASONS ? names[why] : "unknown";
}

/* The last words of a record that has STILE__IS_WAIT, behind its frames and registers. Such a record keeps no frames of
 * others, is never a base, and has as ticks how many waits it stands for; 0: the rest of one that is counted already. */
struct stile__wait_words {
    uint64_t delay_ns; /* that they took, together */
    uint64_t
        why; /* enum stile__wait_reason; STILE__WAIT_WAKES: it is the stack of one who ended such waits */
    uint64_t hook; /* the function that the program called: the leaf is shown as that */
};
/* Where waits fill a ring faster than it is drained, fewer are recorded: as at so many times the rate, so that others find
 * room; at least at so many times a microsecond. Returns the most that the rate may become. */
#define STILE__WAIT_THIN_MAX 256u
#define STILE__WAIT_THIN_NS  1000u
static inline uint64_t stile__wait_rate_max(uint64_t rate_ns)
{
    return STILE__WAIT_THIN_MAX * (rate_ns > STILE__WAIT_THIN_NS ? rate_ns : STILE__WAIT_THIN_NS);
}

#define STILE__WAIT_WAKES (1ull << 8)
#define STILE__WAIT_WORDS 3u
_Static_assert(sizeof(struct stile__wait_words) == STILE__WAIT_WORDS * sizeof(uint64_t), "words of a record");

/* What a thread leaves when it begins to wait: a page of its slot. Its owner is the stack's: the thread while it runs,
 * a reader while it has the scan bit. So a reader finds it whole and unchanging, and never touches the stack itself. */
struct stile__left {
    uint64_t since_ns; /* CLOCK_MONOTONIC */
    /* Up to when the wait is in the collector's books (CLOCK_MONOTONIC), or 0: it is not yet. There are two, and the status
     * says which one is valid: what a reader that lost the scan has written does not count. The collector alone writes here
     * while the thread waits. */
    uint64_t told_ns[2];
    uint64_t hook; /* as in stile__wait_words */
    uint64_t pad[4];
    struct stile__record record; /* as one of a ring, with STILE__IS_WAIT, but without its last words */
};
#define STILE__LEFT_CELLS 63u /* of the record: the rest of the page */

#endif
