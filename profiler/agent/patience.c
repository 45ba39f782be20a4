/* Waiting for the collector, as long as it is alive and moving, ten seconds at most. Normal context. */
#include "profiler/agent/patience.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "profiler/agent/log.h"
#include "profiler/region/raw_syscall.h"

#define WAIT_MS_MAX  10000
#define STALL_MS_MAX 5000 /* a collector that gets a fifth of a processor is slow, not dead */
#define SLICE_MS     20
#define DRAIN_MS_MAX 50

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A word that the collector sets and wakes; done when it is no longer `until_not` (finish) or reaches a count. */
static int wait_for(struct stile__region *r, const struct stile__collector *c, _Atomic uint32_t *word,
                    bool (*done)(uint32_t value, uint32_t arg), uint32_t arg)
{
    int64_t start = now_ms(), moved = start;
    uint32_t beat = atomic_load_explicit(&r->heartbeat, memory_order_relaxed);
    struct timespec slice = {0, SLICE_MS * 1000000};

    for (;;) {
        uint32_t value =
            atomic_load_explicit(word, memory_order_acquire); /* pairs with the collector's release */
        if (done(value, arg))
            return 0;
        int64_t now = now_ms();
        uint32_t b = atomic_load_explicit(&r->heartbeat, memory_order_relaxed);
        if (b != beat) {
            beat = b;
            moved = now;
        }
        if (now - start > WAIT_MS_MAX)
            return -ETIMEDOUT;
        if (now - moved > STALL_MS_MAX ||
            (c->pid > 0 && stile__raw_syscall(SYS_kill, c->pid, 0, 0, 0) == -ESRCH))
            return -EPIPE;
        stile__raw_syscall(SYS_futex, (long)word, FUTEX_WAIT, value, (long)&slice);
    }
}

static bool finished(uint32_t value, uint32_t unused)
{
    (void)unused;
    return value != STILE__FINISH_NONE;
}

static bool flushed(uint32_t value, uint32_t request)
{
    return (int32_t)(value - request) >= 0;
}

/* heard: the collector has looked at the region at least once. */
static void explain(int err, bool heard)
{
    if (err == -ETIMEDOUT)
        stile__log("the collector is still writing the profile; not waiting any longer");
    else if (err == -EPIPE && !heard)
        stile__log("the collector has never answered (is it stopped, or of another version of Stile?); there "
                   "may be no profile");
    else if (err == -EPIPE)
        stile__log("the collector does not answer; there may be no profile");
}

static int message_print(struct stile__region *r)
{
    char line[sizeof r->message];
    memcpy(line, r->message, sizeof line);
    line[sizeof line - 1] = '\0';
    stile__log("%s", line);
    return -EIO;
}

int stile__patience_finish(struct stile__region *r, const struct stile__collector *c)
{
    atomic_store_explicit(&r->finish_request, 1,
                          memory_order_release); /* pairs with the collector's acquire */
    stile__greeting_poke(c);
    int err = wait_for(r, c, &r->finish_state, finished, 0);
    explain(err, atomic_load_explicit(&r->heartbeat, memory_order_relaxed) != 0);
    if (err == 0 && atomic_load_explicit(&r->finish_state, memory_order_acquire) == STILE__FINISH_FAILED)
        err = message_print(r);
    return err;
}

/* Who unloads libraries all the time is held up once by a collector that is stopped or gone, and not each time. */
void stile__patience_drain(struct stile__region *r, const struct stile__collector *c)
{
    static _Atomic uint64_t
        in_vain; /* the heartbeat at which somebody waited in vain, plus 1; 0: nobody did */
    uint64_t beat = atomic_load_explicit(&r->heartbeat, memory_order_relaxed) + 1ull;
    if (atomic_load_explicit(&in_vain, memory_order_relaxed) == beat)
        return;
    uint32_t request = atomic_fetch_add_explicit(&r->drain_request, 1, memory_order_release) + 1, done;
    struct timespec slice = {0, SLICE_MS * 1000000};
    int64_t start = now_ms();
    stile__greeting_poke(c);
    /* Acquire pairs with the collector's release. */
    while (!flushed(done = atomic_load_explicit(&r->drain_done, memory_order_acquire), request) &&
           now_ms() - start < DRAIN_MS_MAX)
        stile__raw_syscall(SYS_futex, (long)&r->drain_done, FUTEX_WAIT, done, (long)&slice);
    atomic_store_explicit(&in_vain, flushed(done, request) ? 0 : beat, memory_order_relaxed);
}

int stile__patience_flush(struct stile__region *r, const struct stile__collector *c)
{
    uint32_t request = atomic_fetch_add_explicit(&r->flush_request, 1, memory_order_release) + 1;
    stile__greeting_poke(c);
    int err = wait_for(r, c, &r->flush_done, flushed, request);
    explain(err, atomic_load_explicit(&r->heartbeat, memory_order_relaxed) != 0);
    if (err == 0 && r->message[0] != '\0')
        err = message_print(r);
    return err;
}
