/* Threads come and go: slots in the region, clocks, stack bounds. Normal context, in the thread itself unless said. */
#include "profiler/agent/threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "barriers/stack_lock.h"
#include "profiler/agent/log.h"
#include "profiler/agent/maps.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

_Thread_local struct stile__thread stile__thread __attribute__((tls_model("initial-exec")));

/* The slowest kernel tick is 10 ms (CONFIG_HZ=100); a busy hypervisor may hold back a few. */
#define LATE_NS_MAX 100000000u

static pthread_key_t exit_key;
static _Atomic uint32_t next_generation = 1;
static _Atomic uint32_t slot_hint; /* where to look for a free slot; any value is right */

/* Runs in every round of thread-specific data destruction. The last round is the latest moment that libc shows us:
 * destructors of the program before it are still sampled. */
static void thread_ends(void *unused)
{
    (void)unused;
    if (++stile__thread.exit_rounds < PTHREAD_DESTRUCTOR_ITERATIONS &&
        pthread_setspecific(exit_key, &exit_key) == 0)
        return;
    stile__thread_leave();
}

int stile__threads_init(void)
{
    static bool done; /* under the session's start, which is serialized */
    if (done)
        return 0;
    int err = pthread_key_create(&exit_key, thread_ends);
    done = err == 0;
    return -err;
}

/* Makes sure that the pages of slot i and of its ring are there: the handler writes them. */
static bool slot_populate(struct stile__region *r, uint32_t slot_max, uint32_t i)
{
    uintptr_t slot = (uintptr_t)stile__region_slot(r, i) & ~(uintptr_t)(STILE__PAGE - 1);
    void *ring = stile__region_ring(r, slot_max, i);
    return madvise((void *)slot, STILE__PAGE, MADV_POPULATE_WRITE) == 0 &&
           madvise(ring, STILE__RING_BYTES, MADV_POPULATE_WRITE) == 0;
}

static bool slot_try(struct stile__slot *slot)
{
    uint32_t free = STILE__SLOT_FREE;
    /* Acquire pairs with the collector's release of the slot: it is done with the ring. */
    return atomic_compare_exchange_strong_explicit(&slot->state, &free, STILE__SLOT_SETUP,
                                                   memory_order_acquire, memory_order_relaxed);
}

/* Claims a slot (state setup) and returns its index, or UINT32_MAX. */
static uint32_t slot_claim(struct stile__region *r, uint32_t slot_max)
{
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    uint32_t hint = atomic_load_explicit(&slot_hint, memory_order_relaxed);
    for (uint32_t k = 0; k < used && used <= slot_max; k++) {
        uint32_t i = (hint + k) % used;
        if (slot_try(stile__region_slot(r, i))) {
            atomic_store_explicit(&slot_hint, i + 1, memory_order_relaxed);
            return i;
        }
    }
    while (used < slot_max) {
        /* Populated before it is counted, so that the collector never reads a hole. */
        if (!slot_populate(r, slot_max, used))
            return UINT32_MAX;
        if (!slot_try(stile__region_slot(r, used))) {
            used++;
            continue;
        }
        uint32_t seen = atomic_load_explicit(&r->slots_used, memory_order_relaxed);
        while (seen < used + 1 &&
               !atomic_compare_exchange_weak_explicit(&r->slots_used, &seen, used + 1, memory_order_release,
                                                      memory_order_relaxed))
            ;
        return used;
    }
    return UINT32_MAX;
}

/* Fills a claimed slot and starts the thread's clock, unless a toggle does. Returns the timer's id, or -errno. */
static int slot_start(struct stile__session *s, struct stile__region *r, uint32_t i, uint32_t tid, bool own,
                      uint64_t *id)
{
    struct stile__slot *slot = stile__region_slot(r, i);
    uint32_t generation = atomic_fetch_add_explicit(&next_generation, 1, memory_order_relaxed);
    *id = (uint64_t)generation << 32 | i;
    atomic_store_explicit(&slot->tid, tid, memory_order_relaxed);
    atomic_store_explicit(&slot->generation, generation, memory_order_relaxed);
    atomic_store_explicit(&slot->stack_lock, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->lost_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->lost_ticks, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->signals, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->ticks, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->missed_ticks, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->piece, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->clock_lock, 0, memory_order_relaxed);
    slot->timer_id = -1;
    slot->first_due_ns = UINT64_MAX;
    slot->exit_cpu_ns = 0;
    memset(slot->comm, 0, sizeof slot->comm);
    if (own) /* until it has its last one: a short life leaves no other */
        prctl(PR_GET_NAME, slot->comm);
    /* Live before the first tick can come. Release: pairs with the handler's and the collector's acquire. */
    atomic_store_explicit(&slot->state, STILE__SLOT_LIVE, memory_order_release);
    if (s->toggle != 0) {
        /* Its clock runs now or later, as the user has it: either we see the piece, or its start sees us live. */
        atomic_thread_fence(memory_order_seq_cst);
        stile__toggle_look(s, r, i, NULL, NULL);
        return 0;
    }
    slot->timer_id = stile__clock_start(tid, own, s->signal, *id, s->period_ns, &slot->first_due_ns);
    return slot->timer_id;
}

static uint32_t slot_open(struct stile__session *s, struct stile__region *r, uint32_t tid, bool own,
                          uint64_t *id)
{
    uint32_t i = slot_claim(r, s->slot_max);
    if (i == UINT32_MAX) {
        atomic_fetch_add_explicit(&r->threads_unsampled, 1, memory_order_relaxed);
        return i;
    }
    int timer_id = slot_start(s, r, i, tid, own, id);
    /* Its time is booked as [unsampled] when it ends; said once, for the first. */
    if (timer_id < 0 && atomic_fetch_add_explicit(&r->timers_failed, 1, memory_order_relaxed) == 0)
        stile__log("no timer for a thread: %s (see ulimit -i); its stacks are not sampled",
                   strerror(-timer_id));
    return i;
}

void stile__thread_enter(void)
{
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());

    if (r != NULL && !atomic_load_explicit(&s->signal_taken, memory_order_relaxed)) {
        uint64_t ours = 1ull << (s->signal - 1);
        t->tid = stile__raw_gettid();
        uint32_t i = slot_open(s, r, t->tid, true, &t->id);
        t->region = r;
        t->slot = i != UINT32_MAX ? stile__region_slot(r, i) : NULL;
        t->exit_rounds = 0;
        pthread_setspecific(exit_key, &exit_key);
        if (mask & ours)
            t->program_blocks = true;
        mask &= ~ours;
    }
    if (r != NULL)
        stile__session_leave(s, stile__thread_shard());
    stile__raw_sigmask(SIG_SETMASK, mask);
}

/* Ticks that were due by CPU time cpu_ns and are not accounted for. */
static uint64_t ticks_missed(const struct stile__slot *slot, uint64_t cpu_ns, uint64_t period_ns)
{
    if (cpu_ns < slot->first_due_ns)
        return 0;
    uint64_t due = 1 + (cpu_ns - slot->first_due_ns) / period_ns;
    uint64_t taken = atomic_load_explicit(&slot->ticks, memory_order_relaxed);
    return due > taken ? due - taken : 0;
}

/* The registers at this place, as a signal would find them: those that a caller's frame is found by. */
static inline __attribute__((always_inline)) void registers_here(uint64_t *regs)
{
    memset(regs, 0, STILE__REG_COUNT * sizeof *regs);
    __asm__ volatile("lea 0f(%%rip), %%rax\n0:\n\t"
                     "mov %%rax, 128(%0)\n\t"
                     "mov %%rbx, 24(%0)\n\t"
                     "mov %%rbp, 48(%0)\n\t"
                     "mov %%rsp, 56(%0)\n\t"
                     "mov %%r12, 96(%0)\n\t"
                     "mov %%r13, 104(%0)\n\t"
                     "mov %%r14, 112(%0)\n\t"
                     "mov %%r15, 120(%0)"
                     :
                     : "r"(regs)
                     : "rax", "memory");
}

/* The kernel looks at a thread's clock at its own ticks only, so a tick may be due and not delivered: it is taken here,
 * late by that much, as all are. With all signals blocked. */
static void due_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                     uint64_t cpu_ns)
{
    struct stile__slot *slot = t->slot;
    uint64_t regs[STILE__REG_COUNT];
    uint64_t missed = ticks_missed(slot, cpu_ns, s->period_ns);
    if (missed != 0 && missed <= 1 + LATE_NS_MAX / s->period_ns) {
        registers_here(regs);
        stile__tick_take(s, r, t, regs, (uint32_t)missed);
    } else if (missed != 0) { /* not late, but kept from us: where the time went is not known */
        atomic_fetch_add_explicit(&slot->missed_ticks, missed, memory_order_relaxed);
    }
}

void stile__thread_settle(void)
{
    struct stile__thread *t = &stile__thread;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    if (r != NULL) {
        if (t->slot != NULL && t->region == r)
            due_take(stile__session, r, t, stile__clock_read(t->tid, true));
        stile__session_leave(stile__session, stile__thread_shard());
    }
    stile__raw_sigmask(SIG_SETMASK, mask);
}

/* The final words of a thread, before its slot goes to the collector. */
static void slot_close(struct stile__session *s, struct stile__region *r, struct stile__thread *t)
{
    struct stile__slot *slot = t->slot;

    if (s->toggle != 0)
        stile__toggle_close(slot, t->tid);
    else if (slot->timer_id >= 0)
        stile__clock_stop(slot->timer_id);
    slot->exit_cpu_ns = stile__clock_read(t->tid, true);
    due_take(s, r, t, slot->exit_cpu_ns);
    /* A remote reader of this stack has to let go first; none comes after. */
    stile__stack_lock(&slot->stack_lock, t->tid);
    prctl(PR_GET_NAME, slot->comm);
    stile__stack_unlock(&slot->stack_lock);
    atomic_store_explicit(&slot->state, STILE__SLOT_EXITED,
                          memory_order_release); /* pairs with the drain's acquire */
}

void stile__thread_leave(void)
{
    struct stile__thread *t = &stile__thread;
    int saved_errno = errno;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());

    if (r != NULL) {
        if (t->slot != NULL && t->region == r)
            slot_close(stile__session, r, t);
        stile__session_leave(stile__session, stile__thread_shard());
    }
    t->slot = NULL;
    t->region = NULL;
    stile__raw_sigmask(SIG_SETMASK, mask);
    errno = saved_errno;
}

/* Calls fn for each thread of the process, from /proc/self/task, without allocation. */
static void each_task(void (*fn)(uint32_t tid, void *arg), void *arg)
{
    _Alignas(struct dirent) char buf[2048];
    int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return;
    while ((n = getdents64(fd, buf, sizeof buf)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(buf + at);
            uint32_t tid = 0;
            for (const char *c = d->d_name; *c >= '0' && *c <= '9'; c++)
                tid = tid * 10 + (uint32_t)(*c - '0');
            if (tid != 0)
                fn(tid, arg);
            at += d->d_reclen;
        }
    close(fd);
}

static void count_other(uint32_t tid, void *count)
{
    if (tid != stile__thread.tid)
        ++*(uint32_t *)count;
}

static void enter_other(uint32_t tid, void *region)
{
    uint64_t id;
    if (tid != stile__thread.tid)
        slot_open(stile__session, region, tid, false, &id);
}

void stile__threads_enter_others(void)
{
    struct stile__session *s = stile__session;
    uint32_t others = 0;
    struct stile__bounds *stacks;
    size_t bytes;

    each_task(count_other, &others);
    if (others == 0)
        return;
    s->n_stacks = stile__maps_stacks(&stacks, &bytes);
    if (s->n_stacks != 0)
        s->stacks = stacks;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r != NULL) {
        each_task(enter_other, r);
        stile__session_leave(s, stile__thread_shard());
    }
}

void stile__threads_stop(struct stile__region *r, uint32_t slot_max)
{
    if (stile__session->toggle != 0) {
        stile__toggle_look_all(stile__session, r, NULL, NULL); /* nothing is wanted any more */
        return;
    }
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    for (uint32_t i = 0; i < used && i < slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) == STILE__SLOT_LIVE &&
            slot->timer_id >= 0)
            stile__clock_stop(slot->timer_id);
    }
}

void stile__threads_settle(struct stile__region *r, uint32_t slot_max, uint64_t period_ns)
{
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    for (uint32_t i = 0; i < used && i < slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE)
            continue;
        uint64_t cpu_ns = stile__clock_read(atomic_load_explicit(&slot->tid, memory_order_relaxed), false);
        atomic_fetch_add_explicit(&slot->missed_ticks, ticks_missed(slot, cpu_ns, period_ns),
                                  memory_order_relaxed);
    }
}
