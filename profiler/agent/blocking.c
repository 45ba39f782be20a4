/* Waits, from the hooks' side: who walks when, and what becomes of it. In the program's threads and signal handlers. */
#include "profiler/agent/blocking.h"

#include <sys/resource.h>
#include <time.h>

#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/agent/signal/waits.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

/* A wait that is shorter is quick: to announce it costs more than a hundredth of it. */
#define SHORT_NS 100000u

/* After a wait of that length a look at the count of switches is cheap. */
#define LOOK_NS 20000u

/* Wake-ups take no time, so that a rate of nanoseconds says nothing of them: as many are recorded as of waits of this length. */
#define WAKE_NS 1000u

/* As long as a dump may stop the world: a second, with what timers add. */
#define DUMP_STEP_NS 100000
#define DUMP_STEPS   6000u

_Atomic bool stile__blocking;

uint64_t stile__block_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct stile__before stile__block_before(void)
{
    return (struct stile__before){stile__block_clock(), stile__thread.switches, stile__thread.waited_ns};
}

/* How often the calling thread has given the processor away by itself: who has not did not wait. 0 if a filter forbids it. */
static uint64_t switches(void)
{
    struct rusage use;
    use.ru_nvcsw = 0;
    stile__raw_syscall(SYS_getrusage, RUSAGE_THREAD, (long)&use, 0, 0);
    return (uint64_t)use.ru_nvcsw;
}

/* What the calling thread does in the session. */
struct here {
    struct stile__session *s;
    struct stile__region *r;
    struct stile__thread *t;
    uint64_t mask;
};

/* With all signals blocked, in a session that records waits, on a thread whose slot it is. False: nothing to leave. (A vfork's
 * child, and a thread of a bare clone that was given no thread-local storage, have thread ids of their own, and sleep and lock
 * like others.) */
static bool enter(struct here *h, uint64_t rsp)
{
    h->s = stile__session;
    h->t = &stile__thread;
    h->mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    h->r = stile__session_enter(h->s, stile__thread_shard());
    if (h->r != NULL) {
        if (h->s->leaves && (stile__thread_bound(h->t, h->r) || stile__thread_bind(h->s, h->r, h->t, rsp)) &&
            stile__raw_gettid() == h->t->tid &&
            (h->s->toggle == 0 || atomic_load_explicit(&h->t->slot->piece, memory_order_relaxed) != 0))
            return true;
        stile__session_leave(h->s, stile__thread_shard());
    }
    stile__raw_sigmask(SIG_SETMASK, h->mask);
    return false;
}

static void leave(const struct here *h)
{
    stile__session_leave(h->s, stile__thread_shard());
    stile__raw_sigmask(SIG_SETMASK, h->mask);
}

/* Whether the thread is inside an earlier wait: a handler of the program runs there, or code of ours that waits for the
 * collector, and leaves nothing. If it has left that by a jump, an exception or cancellation, the wait ends here. */
static bool inside(const struct here *h, const struct stile__place *at)
{
    if (h->t->wait_frame == 0)
        return stile__stack_state(atomic_load_explicit(&h->t->slot->status, memory_order_relaxed)) !=
               STILE__STACK_RUNNING;
    if (stile__wait_look(h->s, h->r, h->t, at->regs[REG_RSP]))
        return false;
    if (stile__stack_in_handler(h->s, h->r, h->t, at))
        return true;
    uint64_t was = stile__stack_resume(&h->t->slot->status, &h->r->freezing);
    h->t->wait_frame = 0;
    if (stile__stack_state(was) == STILE__STACK_WAITING)
        stile__left_tell(h->s, h->r, h->t, was, stile__block_clock());
    return false;
}

/* A dump signals who runs, and not who waits, whose call a signal may break off. It stops the world, then looks at the word; the
 * thread has changed its word, and then looks here: so either it was seen waiting, or it waits here until the signal is there, which
 * comes as soon as signals are open again. */
static void dump_pass(const struct stile__region *r)
{
    for (unsigned i = 0;
         i < DUMP_STEPS && atomic_load_explicit(&r->freezing, memory_order_seq_cst) >= STILE__FREEZE_DUMP;
         i++)
        stile__raw_sleep_ns(DUMP_STEP_NS);
}

/* All that happens before the thread waits: it owns its stack until the last line. */
static bool wait_enter(const struct here *h, struct stile__door *d, enum stile__wait_reason why,
                       const void *hook, const uint64_t *regs)
{
    const struct stile__place at = {.regs = regs, .alt = {0, 0}};
    struct stile__slot *slot = h->t->slot;

    if (!stile__stack_trylock(&slot->stack_lock, h->t->tid))
        return false;
    if (inside(h, &at)) {
        stile__stack_unlock(&slot->stack_lock);
        return false;
    }
    const bool late = stile__fault(STILE__FAULT_OWNER_WAIT, 1);
    if (late)
        stile__stack_wait(&slot->status, why);
    stile__ownership_check(h->r, slot, h->t->tid, STILE__READER_WAIT, regs);
    stile__left_fill(h->s, h->r, h->t, &at, hook);
    stile__stack_unlock(&slot->stack_lock);
    d->since_ns = stile__block_clock();
    stile__left_since(h->s, h->r, h->t, d->since_ns);
    h->t->wait_frame = regs[REG_RSP];
    if (!late)
        stile__stack_wait(&slot->status, why); /* from here on what was left is a reader's */
    dump_pass(h->r);
    return true;
}

void stile__block_begin(struct stile__door *d, enum stile__wait_reason why, const void *hook,
                        const uint64_t *regs)
{
    struct here h;
    d->region = NULL;
    if (!enter(&h, regs[REG_RSP]))
        return;
    if (wait_enter(&h, d, why, hook, regs)) {
        d->region = h.r;
        d->id = h.t->id;
        d->switches = h.t->switches;
    }
    leave(&h);
}

/* Ends a wait. worked: there was none, as it turned out. All signals are blocked meanwhile: a handler that jumped away in here
 * would leave the session entered for good. */
static void wait_leave(struct stile__door *d, uint64_t until_ns, bool worked)
{
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;
    const uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());

    if (r != NULL && r == d->region && t->id == d->id && stile__thread_bound(t, r) && t->wait_frame != 0) {
        uint64_t was = stile__stack_resume(&t->slot->status, &r->freezing);
        if (stile__stack_state(was) != STILE__STACK_WAITING || worked) {
            stile__left_drop(s, r, t);
        } else {
            stile__left_tell(s, r, t, was, until_ns);
            t->waited_ns += until_ns - d->since_ns;
        }
    }
    t->wait_frame = 0;
    if (r != NULL)
        stile__session_leave(s, stile__thread_shard());
    stile__raw_sigmask(SIG_SETMASK, mask);
}

void stile__block_end(struct stile__door *d)
{
    if (d->region == NULL)
        return;
    const uint64_t until_ns = stile__block_clock();
    wait_leave(d, until_ns, false);
    /* Counted by the kernel as well. What is known may be too little, and then a call that works is taken for one that waits,
     * once; never too much, or a wait would be none. */
    if (until_ns - d->since_ns >= LOOK_NS)
        stile__thread.switches = switches();
}

/* Calls of one kind on one thing share a bit with few others. */
static uint64_t quick_bit(enum stile__wait_reason why, uint64_t thing)
{
    return 1ull << ((thing * 64 + (uint64_t)why) * 0x9e3779b97f4a7c15ull >>
                    58); /* 2^64 over the golden ratio */
}

bool stile__block_expected(enum stile__wait_reason why, uint64_t thing)
{
    const struct stile__session *s = stile__session;
    /* Where nobody is to be signalled for a dump, what one that waits all day has left must be there. */
    if (s != NULL && (s->dump != 0 || s->block_rate_ns == 0))
        return true;
    return (stile__thread.wait_quick & quick_bit(why, thing)) == 0;
}

void stile__block_check(struct stile__door *d, enum stile__wait_reason why, uint64_t thing)
{
    if (d->region == NULL)
        return;
    const uint64_t until_ns = stile__block_clock(), now = switches();
    const bool worked = now == d->switches && now != 0;
    stile__thread.switches = now;
    wait_leave(d, until_ns, worked);
    if (worked || until_ns - d->since_ns < SHORT_NS)
        stile__thread.wait_quick |= quick_bit(why, thing);
}

bool stile__block_long(uint64_t ns)
{
    const struct stile__session *s = stile__session;
    return s != NULL && s->block_rate_ns != 0 && stile__wait_kept(&stile__thread, s->block_rate_ns, ns);
}

/* One event that was not announced. */
static void tell(const struct here *h, const uint64_t *regs, const void *hook, uint64_t why,
                 uint64_t delay_ns)
{
    const struct stile__place at = {.regs = regs, .alt = {0, 0}};
    struct stile__slot *slot = h->t->slot;

    if (!stile__stack_trylock(&slot->stack_lock, h->t->tid))
        return;
    if (!inside(h, &at)) {
        stile__ownership_check(h->r, slot, h->t->tid, STILE__READER_WAIT, regs);
        stile__wait_tell(h->s, h->r, h->t, &at, hook, why, delay_ns);
    }
    stile__stack_unlock(&slot->stack_lock);
}

void stile__block_measured(enum stile__wait_reason why, uint64_t thing, const void *hook,
                           const uint64_t *regs, const struct stile__before *before, uint64_t until_ns)
{
    struct stile__thread *t = &stile__thread;
    const uint64_t now = switches();
    struct here h;

    /* What a handler has waited inside is told already. */
    const uint64_t waited_ns = t->waited_ns - before->waited_ns;
    const uint64_t since_ns = before->since_ns + waited_ns;
    t->switches = now;
    if (stile__session == NULL || stile__session->block_rate_ns == 0)
        return;
    if ((now == before->switches && now != 0) || until_ns <= since_ns)
        return; /* it took as long as it works */
    if (until_ns - since_ns >= SHORT_NS)
        t->wait_quick &= ~quick_bit(why, thing);
    if (!enter(&h, regs[REG_RSP]))
        return;
    tell(&h, regs, hook, why, until_ns - since_ns);
    t->waited_ns += until_ns - since_ns;
    leave(&h);
}

void stile__block_woke(enum stile__wait_reason why, const void *hook, const uint64_t *regs)
{
    const struct stile__session *s = stile__session;
    const uint64_t rate_ns = s != NULL ? s->block_rate_ns : 0;
    struct here h;

    if (rate_ns == 0 || !stile__wait_kept(&stile__thread, rate_ns, WAKE_NS) || !enter(&h, regs[REG_RSP]))
        return;
    tell(&h, regs, hook, (uint64_t)why | STILE__WAIT_WAKES, WAKE_NS);
    leave(&h);
}

void stile__blocking_set(bool on)
{
    atomic_store_explicit(&stile__blocking, on, memory_order_relaxed);
    stile__locks_record(on);
}
