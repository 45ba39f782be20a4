/* Stops the world for a report: every other thread gets our signal, walks its own stack, and parks. Runs in the handlers of
 * crashes and in the clocks' handler.
 *
 * A parked thread's node lies on its stack, in a list that only grows while a freeze is on. The reporter reads nodes only before it
 * ends the freeze; who finds that over goes on without looking at the list. A thread that is late pushes its node only if the
 * freeze is still its own: `arrivals` is counted up before that look, and the next freeze begins, with an empty list, once there
 * are none. (Counted up, then looked at; ended, then counted: both sequentially consistent.) */
#include <linux/futex.h>

#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define STEP_NS 1000000 /* between looks at who has come */
#define RETRY_STEPS                                                                                          \
    20u /* after which a thread is signalled again: a signal may have met another one that waited */
#define WAIT_NS       1000000000u  /* since the last one came, */
#define WAIT_ALL_NS   5000000000u  /* and for all of them */
#define PARK_NS       30000000000u /* whoever stops the world for longer has forgotten it */
#define PARK_SLICE_NS 1000000000   /* thousands of threads may be parked */
#define SETTLE_STEPS  2000u
#define NO_FREEZE_NS                                                                                         \
    1000000 /* without signals: in which threads that were on their way into a wait get there */

static _Atomic(struct stile__frozen *) arrived;
static uint32_t freezes; /* so far; the reporter's */

/* The list is empty, and nobody is about to push. Bounded: where somebody is stuck for good, what it pushed is left out. */
static void list_clear(void)
{
    for (unsigned i = 0;
         i < SETTLE_STEPS && atomic_load_explicit(&stile__crash.arrivals, memory_order_seq_cst) != 0; i++)
        stile__raw_sleep_ns(STEP_NS);
    atomic_store_explicit(&arrived, NULL, memory_order_relaxed);
}

void stile__freeze_begin(struct stile__region *r)
{
    list_clear();
    freezes++;
    /* First of all, with signals or without: from here on nobody comes out of a wait. */
    if (r != NULL)
        atomic_store_explicit(&r->freezing, STILE__FREEZE_CRASH, memory_order_seq_cst);
    atomic_store_explicit(&stile__crash.freezing, freezes, memory_order_seq_cst);
}

struct others {
    uint32_t self, *tids, max, n;
    const struct stile__frozen *seen; /* of the list what is in `came` already: it grows at its head */
};
static const struct stile__frozen *came[STILE__SLOT_MAX]; /* by index; NULL: has not */

static void other_add(uint32_t tid, void *arg)
{
    struct others *o = arg;
    if (tid == o->self)
        return;
    for (uint32_t i = 0; i < o->n && i < o->max; i++)
        if (o->tids[i] == tid)
            return;
    if (o->n < o->max) {
        o->tids[o->n] = tid;
        came[o->n] = NULL;
        o->seen = NULL; /* it may have come already, with a crash of its own */
    }
    o->n++;
}

/* Where /proc is not to be had, those that have a slot. */
static void others_of_slots(const struct stile__session *s, struct stile__region *r, struct others *o)
{
    uint32_t used = r != NULL ? atomic_load_explicit(&r->slots_used, memory_order_acquire) : 0;
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++) {
        const struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) == STILE__SLOT_LIVE)
            other_add(atomic_load_explicit(&slot->tid, memory_order_relaxed), o);
    }
}

static const struct stile__frozen *frozen_of(uint32_t tid)
{
    /* Acquire pairs with the push's release. */
    const struct stile__frozen *f = atomic_load_explicit(&arrived, memory_order_acquire);
    while (f != NULL && f->tid != tid)
        f = f->next;
    return f;
}

/* The signal that stops threads: one whose handler is ours, and that no thread has reason to block. (The clocks' signal is blocked in
 * waits that it would break off.) */
static int stopper_find(void)
{
    int found = 0;
    for (unsigned i = 0; i < STILE__CRASH_SIGNALS; i++) {
        const struct stile__crash_signal *cs = &stile__crash.signals[i];
        /* One that the program handles may break off more calls. */
        if (cs->ours && (found == 0 || cs->theirs.handler == (uintptr_t)SIG_DFL))
            found = cs->number;
    }
    return found;
}

bool stile__freeze_signal(const siginfo_t *info)
{
    if (info->si_code == SI_QUEUE)
        return info->si_value.sival_ptr == &stile__crash;
    /* Where signals are short, the kernel delivers it without what was sent with it. */
    return info->si_code == SI_USER && info->si_pid == 0 &&
           atomic_load_explicit(&stile__crash.freezing, memory_order_relaxed) != 0;
}

/* Sends a signal of ours, or asks whether the thread is there (0). */
static bool signal_send(uint32_t tid, int signal)
{
    siginfo_t info;
    if (signal == 0)
        return stile__raw_syscall(SYS_tgkill, stile__crash.pid, tid, 0, 0) != -ESRCH;
    for (size_t i = 0; i < sizeof info; i++)
        ((char *)&info)[i] = 0;
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_pid = stile__crash.pid;
    info.si_value.sival_ptr = &stile__crash;
    return stile__raw_syscall(SYS_rt_tgsigqueueinfo, stile__crash.pid, tid, signal, (long)&info) != -ESRCH;
}

/* Each node is looked at once, and not once for each thread: there may be thousands. Returns whether there are new ones. */
static bool arrivals_note(struct others *o)
{
    /* Acquire pairs with the push's release. */
    const struct stile__frozen *head = atomic_load_explicit(&arrived, memory_order_acquire);
    for (const struct stile__frozen *f = head; f != o->seen; f = f->next)
        for (uint32_t i = 0; i < o->n && i < o->max; i++)
            came[i] = o->tids[i] == f->tid ? f : came[i];
    const bool news = head != o->seen;
    o->seen = head;
    return news;
}

/* Signals those that have not come. Returns how many these are; a thread that has ended meanwhile is none to wait for. */
static uint32_t missing_signal(struct others *o, int signal)
{
    uint32_t missing = 0;
    arrivals_note(o);
    for (uint32_t i = 0; i < o->n && i < o->max; i++)
        missing += came[i] == NULL && signal_send(o->tids[i], signal);
    return missing;
}

uint32_t stile__freeze_wait(struct stile__session *s, struct stile__region *r, uint32_t *tids, uint32_t max)
{
    struct others o = {
        .self = stile__raw_gettid(), .tids = tids, .max = max < STILE__SLOT_MAX ? max : STILE__SLOT_MAX};
    const int stopper = stopper_find();
    const bool signals = stile__crash.freezes && stopper != 0;

    if (!signals)
        stile__raw_sleep_ns(NO_FREEZE_NS);
    if (!stile__tasks_each(other_add, &o))
        others_of_slots(s, r, &o);
    const uint64_t start = stile__clock_now(CLOCK_MONOTONIC);
    uint64_t now = start, last = start;
    for (unsigned step = 0; signals && now - last < WAIT_NS && now - start < WAIT_ALL_NS;
         step++, now = stile__clock_now(CLOCK_MONOTONIC)) {
        if (missing_signal(&o, step % RETRY_STEPS == 0 ? stopper : 0) == 0) {
            /* A thread that was not stopped yet may have started another one. */
            const uint32_t before = o.n;
            if (!stile__tasks_each(other_add, &o) || o.n == before)
                break;
            step = step / RETRY_STEPS * RETRY_STEPS + RETRY_STEPS - 1; /* signal it now */
            continue;
        }
        stile__raw_sleep_ns(STEP_NS);
        if (arrivals_note(&o))
            last = now;
    }
    return o.n;
}

const struct stile__frozen *stile__freeze_came(uint32_t i, uint32_t tid)
{
    return came[i] != NULL ? came[i] : frozen_of(tid);
}

void stile__freeze_end(struct stile__region *r)
{
    uint32_t crash = STILE__FREEZE_CRASH;
    if (r != NULL)
        atomic_compare_exchange_strong_explicit(&r->freezing, &crash, 0, memory_order_seq_cst,
                                                memory_order_relaxed);
    atomic_store_explicit(&stile__crash.freezing, 0, memory_order_seq_cst);
    stile__raw_syscall(SYS_futex, (long)&stile__crash.freezing, FUTEX_WAKE_PRIVATE, INT32_MAX, 0);
}

static void push(struct stile__frozen *f)
{
    f->next = atomic_load_explicit(&arrived, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&arrived, &f->next, f, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

static void park(uint32_t number)
{
    const struct timespec slice = {PARK_SLICE_NS / 1000000000, 0};
    for (uint64_t ns = 0;
         ns < PARK_NS && atomic_load_explicit(&stile__crash.freezing, memory_order_seq_cst) == number;
         ns += PARK_SLICE_NS)
        stile__raw_syscall(SYS_futex, (long)&stile__crash.freezing, FUTEX_WAIT_PRIVATE, number, (long)&slice);
}

/* Whoever changes the barriers has all signals blocked, and cannot have been interrupted but by a fault of its own. */
void stile__frames_of_own(struct stile__frames *f, struct stile__region *r, const ucontext_t *uc,
                          bool locked_too)
{
    struct stile__thread *t = &stile__thread;
    struct stile__slot *slot = r != NULL && stile__thread_bound(t, r) ? t->slot : NULL;
    const uint64_t *regs = (const uint64_t *)(const void *)uc->uc_mcontext.gregs;
    const bool locked = slot != NULL && stile__stack_trylock(&slot->stack_lock, t->tid);

    if (slot != NULL && !locked && !locked_too) {
        f->n = 1;
        f->leaf[0] = stile__stub_through(regs[REG_RIP]);
        f->end = STILE__FRAMES_END_LOCKED;
        return;
    }
    if (locked)
        stile__ownership_check(r, slot, t->tid, STILE__READER_SAMPLE, regs);
    stile__frames_walk(f, regs, stile__frames_read_own, NULL);
    if (locked)
        stile__stack_unlock(&slot->stack_lock);
}

static void stack_give(struct stile__frozen *f, struct stile__region *r, const ucontext_t *uc)
{
    const struct stile__thread *t = &stile__thread;
    f->status = r != NULL && stile__thread_bound(t, r)
                    ? atomic_load_explicit(&t->slot->status, memory_order_relaxed)
                    : 0;
    stile__frames_of_own(&f->frames, r, uc, false);
}

/* Out of line: a tick's handler needs no room for a stack's frames. */
__attribute__((noinline)) void stile__freeze_here(struct stile__region *r, const ucontext_t *uc, int signal)
{
    struct stile__frozen f;
    atomic_fetch_add_explicit(&stile__crash.arrivals, 1, memory_order_seq_cst);
    const uint32_t number = atomic_load_explicit(&stile__crash.freezing, memory_order_seq_cst);
    f.tid = stile__raw_gettid();
    if (number != 0 && f.tid != atomic_load_explicit(&stile__crash.reporter, memory_order_relaxed) &&
        frozen_of(f.tid) == NULL) {
        f.signal = signal;
        stack_give(&f, r, uc);
        push(&f);
        park(number);
    }
    atomic_fetch_sub_explicit(&stile__crash.arrivals, 1, memory_order_seq_cst);
}
