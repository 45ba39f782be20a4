/* Threads come and go: slots in the region, clocks, stack bounds. Normal context, in the thread itself unless said. */
#include "profiler/agent/threads.h"

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

#include "barriers/ownership.h"
#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/alt_stack.h"
#include "profiler/agent/cancellation.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/clock_perf.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/log.h"
#include "profiler/agent/maps.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/signal/waits.h"
#include "profiler/region/raw_syscall.h"

_Thread_local struct stile__thread stile__thread __attribute__((tls_model("initial-exec")));

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
static bool slot_populate(struct stile__region *r, struct stile__region_size size, uint32_t i)
{
    uintptr_t slot = (uintptr_t)stile__region_slot(r, i) & ~(uintptr_t)(STILE__PAGE - 1);
    void *ring = stile__region_ring(r, size, i);
    void *memo = stile__region_memo(r, size, i);
    if (size.waits != 0 && madvise(stile__region_left(r, size, i), STILE__PAGE, MADV_POPULATE_WRITE) != 0)
        return false;
    return madvise(memo, STILE__PAGE, MADV_POPULATE_WRITE) == 0 &&
           madvise((void *)slot, STILE__PAGE, MADV_POPULATE_WRITE) == 0 &&
           madvise(ring, (size_t)stile__slot_cells(size, i) * STILE__CELL_BYTES, MADV_POPULATE_WRITE) == 0;
}

static bool slot_try(struct stile__slot *slot)
{
    uint32_t free = STILE__SLOT_FREE;
    /* Acquire pairs with the collector's release of the slot: it is done with the ring. */
    return atomic_compare_exchange_strong_explicit(&slot->state, &free, STILE__SLOT_SETUP,
                                                   memory_order_acquire, memory_order_relaxed);
}

/* Claims a slot (state setup) and returns its index, or UINT32_MAX. */
static uint32_t slot_claim(struct stile__region *r, struct stile__region_size size)
{
    uint32_t slot_max = size.slot_max;
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
        if (!slot_populate(r, size, used))
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

/* Whether threads have clocks: a CPU profile is wanted, and the program has not taken the signal. */
static bool ticks_run(const struct stile__session *s)
{
    return s->ticks && !atomic_load_explicit(&s->signal_taken, memory_order_relaxed);
}

/* Fills a claimed slot and starts the thread's clock. Returns 0 or -errno where it has none. */
static int slot_start(struct stile__session *s, struct stile__region *r, uint32_t i, uint32_t tid, bool own,
                      uint64_t base_cpu_ns, uint64_t *id)
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
    atomic_store_explicit(&slot->exit_cpu_ns, 0, memory_order_relaxed);
    slot->base_cpu_ns = base_cpu_ns;
    atomic_store_explicit(&slot->piece, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->clock_lock, 0, memory_order_relaxed);
    slot->first_due_ns = STILE__NEVER_DUE;
    memset(slot->comm, 0, sizeof slot->comm);
    struct stile__memo *memo = stile__region_memo(r, s->size, i);
    memo->halves[0].n = memo->halves[1].n = 0;
    memset(&memo->barriers, 0, sizeof memo->barriers);
    atomic_store_explicit(&slot->lost_waits, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->lost_delay_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->lost_wakes, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->exit_mono_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->run_delay_ns, UINT64_MAX, memory_order_relaxed);
    slot->birth_mono_ns = stile__clock_now(CLOCK_MONOTONIC);
    if (s->size.waits != 0)
        stile__left_init(s, r, i);
    stile__stack_begin(&slot->status);
    if (own) /* until it has its last one: a short life leaves no other */
        prctl(PR_GET_NAME, slot->comm);
    /* Live before the first tick can come. Release: pairs with the handler's and the collector's acquire. */
    atomic_store_explicit(&slot->state, STILE__SLOT_LIVE, memory_order_release);
    if (!ticks_run(s)) {
        if (s->clocks != NULL)
            stile__clock_none(s, i);
        slot->clock_kind = STILE__CLOCK_NONE;
        return 0;
    }
    if (s->toggle != 0) {
        /* Its clock runs now or later, as the user has it: either we see the piece, or its start sees us live. */
        stile__clock_reserve(s, r, i);
        atomic_thread_fence(memory_order_seq_cst);
        stile__toggle_look(s, r, i, NULL, NULL);
        return 0;
    }
    return stile__clock_start(s, r, i, tid, own, *id);
}

static uint32_t slot_open(struct stile__session *s, struct stile__region *r, uint32_t tid, bool own,
                          uint64_t base_cpu_ns, uint64_t *id)
{
    uint32_t i = slot_claim(r, s->size);
    if (i == UINT32_MAX) {
        atomic_fetch_add_explicit(&r->threads_unsampled, 1, memory_order_relaxed);
        return i;
    }
    int err = slot_start(s, r, i, tid, own, base_cpu_ns, id);
    /* Its time is booked as [unsampled] when it ends; said once, for the first. */
    if (err != 0 && atomic_load_explicit(&r->clocks[STILE__CLOCK_NONE], memory_order_relaxed) == 1)
        stile__log("no clock for a thread: %s (see ulimit -i); its stacks are not sampled", strerror(-err));
    return i;
}

void stile__thread_enter(uint64_t base_cpu_ns)
{
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;
    int cancellation = stile__cancellation_hold();
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());

    const bool signals = r != NULL && stile__session_signals(s);
    if (signals || stile__crash.pid != 0)
        stile__alt_stack_give(); /* before the first tick, and for a stack that overflows */
    /* Not for a profile that has ended since the program has the signal. */
    if (r != NULL && (ticks_run(s) || s->leaves || !s->ticks)) {
        t->tid = stile__raw_gettid();
        uint32_t i = slot_open(s, r, t->tid, true, base_cpu_ns, &t->id);
        t->region = r;
        t->slot = i != UINT32_MAX ? stile__region_slot(r, i) : NULL;
        t->surplus = 0;
        t->kernel_ns = 0;
        t->wait_frame = 0;
    }
    if (r != NULL || t->alt_stack != NULL) {
        t->exit_rounds = 0;
        pthread_setspecific(exit_key, &exit_key);
    }
    if (signals) {
        uint64_t ours = 1ull << (s->signal - 1);
        if ((mask & ours) && !t->wait_blocks)
            t->program_blocks = true;
        t->wait_blocks = false;
        mask &= ~ours;
    }
    if (r != NULL)
        stile__session_leave(s, stile__thread_shard());
    stile__raw_sigmask(SIG_SETMASK, mask);
    stile__cancellation_restore(cancellation);
}

/* A thread older than the session learns its slot only in the handler, which has perhaps not run yet. */
static bool slot_is_mine(struct stile__session *s, struct stile__region *r, uint64_t id)
{
    uint32_t i = (uint32_t)id;
    if (i >= s->size.slot_max)
        return false;
    struct stile__slot *slot = stile__region_slot(r, i);
    return atomic_load_explicit(&slot->generation, memory_order_relaxed) == (uint32_t)(id >> 32) &&
           atomic_load_explicit(&slot->tid, memory_order_relaxed) == stile__raw_gettid();
}

bool stile__thread_owns_tick(const siginfo_t *info)
{
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;
    uint64_t carried = (uint64_t)(uintptr_t)info->si_value.sival_ptr, id = carried & ~STILE__ID_PIECE_BITS;
    bool own = false;

    if (!s->ticks || info->si_signo != s->signal)
        return false;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r == NULL)
        return false;
    bool bound = stile__thread_bound(t, r);
    if (info->si_code == POLL_IN)
        own = bound && s->clocks[(uint32_t)t->id].perf_fd == info->si_fd;
    else if (info->si_code == SI_TIMER)
        own = carried == STILE__PROCESS_TICK || (bound && t->id == id) || slot_is_mine(s, r, id);
    stile__session_leave(s, stile__thread_shard());
    return own;
}

/* The registers at this place, as a signal would find them: those that a caller's frame is found by. The name is what
 * a profile shows as the leaf. */
static inline __attribute__((always_inline)) void late_tick(uint64_t *regs)
{
    memset(regs, 0, NGREG * sizeof *regs);
    __asm__ volatile("lea 0f(%%rip), %%rax\n0:\n\t"
                     "mov %%rax, 128(%0)\n\t"
                     "mov %%rbx, 88(%0)\n\t"
                     "mov %%rbp, 80(%0)\n\t"
                     "mov %%rsp, 120(%0)\n\t"
                     "mov %%r12, 32(%0)\n\t"
                     "mov %%r13, 40(%0)\n\t"
                     "mov %%r14, 48(%0)\n\t"
                     "mov %%r15, 56(%0)"
                     :
                     : "r"(regs)
                     : "rax", "memory");
}

/* The kernel looks at a thread's clock at its own ticks only, so a tick may be due and not delivered: it is taken here,
 * late by that much, as all are. Perf's clock owes what the thread used in the kernel, and here it is going there.
 * With all signals blocked; kept: the program had blocked ours. */
static void due_take(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                     uint64_t cpu_ns, bool kept)
{
    struct stile__slot *slot = t->slot;
    uint64_t regs[NGREG];
    struct stile__place at = {.regs = regs, .alt = {0, 0}};
    int64_t missed = stile__clock_missed(slot, cpu_ns, s->period_ns);
    uint8_t kind = s->clocks[(uint32_t)t->id].kind;
    bool perf = kind == STILE__CLOCK_PERF || kind == STILE__CLOCK_PERF_ALONE;
    if (missed <= 0)
        return;
    if (kind == STILE__CLOCK_NONE || missed > UINT32_MAX) { /* where the time went is not known */
        atomic_fetch_add_explicit(&slot->missed_ticks, (uint64_t)missed, memory_order_relaxed);
        return;
    }
    /* Perf's first and last period may be under way; what is more was in the kernel, or kept from us. */
    uint32_t user = perf && missed > 2 ? 2 : (uint32_t)missed;
    struct stile__tick rest = {.ticks = (uint32_t)missed - user,
                               .in_kernel = true,
                               .leaving = true,
                               .placeless = kind == STILE__CLOCK_PERF_ALONE};
    enum stile__reason why = kept ? STILE__REASON_SIGNAL_BLOCKED : STILE__REASON_UNSAMPLED;
    late_tick(regs);
    stile__tick_split(s, r, t, &at, (struct stile__tick){.ticks = user, .leaving = true}, why);
    if (rest.ticks != 0 && rest.placeless)
        stile__tick_take(s, r, t, &at, &rest);
    else if (rest.ticks != 0)
        stile__tick_split(s, r, t, &at, rest, why);
}

/* Whether our signal was really blocked; the program's wish alone does not do that. */
static bool signal_kept(const struct stile__session *s, uint64_t mask)
{
    return s->ticks && (mask & 1ull << (s->signal - 1)) != 0;
}

void stile__thread_settle(void)
{
    struct stile__thread *t = &stile__thread;
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    if (r != NULL) {
        if (stile__thread_bound(t, r) && stile__session->clocks != NULL)
            due_take(stile__session, r, t, stile__clock_read(t->tid, true),
                     signal_kept(stile__session, mask));
        atomic_store_explicit(&r->end_cpu_ns, stile__clock_now(CLOCK_PROCESS_CPUTIME_ID),
                              memory_order_relaxed);
        stile__session_leave(stile__session, stile__thread_shard());
    }
    stile__raw_sigmask(SIG_SETMASK, mask);
}

void stile__thread_unsettle(void)
{
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    if (r == NULL)
        return;
    atomic_store_explicit(&r->end_cpu_ns, 0, memory_order_relaxed);
    stile__session_leave(stile__session, stile__thread_shard());
}

void stile__thread_barriers_remove(struct stile__thread *t, struct stile__region *r)
{
    const uint64_t here = (uintptr_t)__builtin_frame_address(0);
    bool own = here >= t->stack.lo && here < t->stack.hi;
    if (r != NULL && stile__thread_bound(t, r)) {
        if (stile__fault(STILE__FAULT_OWNER_REMOVE, 1))
            stile__stack_unlock(&t->slot->stack_lock);
        stile__ownership_check(r, t->slot, t->tid, STILE__READER_BARRIERS, NULL);
    }
    stile__barriers_remove(&t->barriers, &(struct stile__barrier_place){&t->stack, own ? here : t->stack.hi});
    if (r != NULL && stile__thread_bound(t, r))
        stile__barriers_count(&t->barriers,
                              &stile__session_memo(stile__session, r, (uint32_t)t->id)->barriers);
}

/* How long the thread was ready to run and had no processor, by the kernel's books, or UINT64_MAX. By raw system calls: no point
 * of cancellation. */
static uint64_t run_delay(void)
{
    char text[96] = "";
    uint64_t ns = 0;
    if (stile__clock_filtered())
        return UINT64_MAX;
    long fd = stile__raw_syscall(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/schedstat",
                                 O_RDONLY | O_CLOEXEC, 0);
    long n = fd < 0 ? fd : stile__raw_syscall(SYS_read, fd, (long)text, sizeof text - 1, 0);
    if (fd >= 0)
        stile__raw_syscall(SYS_close, fd, 0, 0, 0);
    const char *at = n > 0 ? strchr(text, ' ') : NULL; /* the second number */
    if (at == NULL)
        return UINT64_MAX;
    while (*++at >= '0' && *at <= '9')
        ns = ns * 10 + (uint64_t)(*at - '0');
    return ns;
}

/* The last words about a thread's waits. One that was cancelled may still be in one. */
static void waits_close(struct stile__session *s, struct stile__region *r, struct stile__thread *t)
{
    const uint64_t now_ns = stile__clock_now(CLOCK_MONOTONIC);
    if (t->wait_frame != 0) {
        uint64_t was = stile__stack_resume(&t->slot->status, NULL);
        if (stile__stack_state(was) == STILE__STACK_WAITING)
            stile__left_tell(s, r, t, was, now_ns);
        t->wait_frame = 0;
    }
    atomic_store_explicit(&t->slot->run_delay_ns, run_delay(), memory_order_relaxed);
    atomic_store_explicit(&t->slot->exit_mono_ns, now_ns, memory_order_relaxed);
}

/* The final words of a thread, before its slot goes to the collector. */
static void slot_close(struct stile__session *s, struct stile__region *r, struct stile__thread *t, bool kept)
{
    struct stile__slot *slot = t->slot;
    struct stile__clock *clock = s->clocks != NULL ? &s->clocks[(uint32_t)t->id] : NULL;

    if (s->clocks == NULL)
        ; /* there are none */
    else if (s->toggle != 0)
        stile__toggle_close(s, slot, (uint32_t)t->id, t->tid);
    else
        stile__clock_stop(clock);
    prctl(PR_GET_NAME, slot->comm);
    uint64_t cpu_ns = stile__clock_read(t->tid, true); /* as late as can be */
    if (s->clocks != NULL)
        due_take(s, r, t, cpu_ns, kept);
    /* A remote reader of this stack has to let go first; none comes after. */
    stile__stack_lock(&slot->stack_lock, t->tid);
    stile__thread_barriers_remove(t, r);
    stile__stack_unlock(&slot->stack_lock);
    if (s->leaves)
        waits_close(s, r, t);
    stile__stack_die(&slot->status);
    atomic_store_explicit(&slot->exit_cpu_ns, cpu_ns, memory_order_relaxed);
    if (s->toggle == 0 && s->clocks != NULL)
        stile__clock_carry(s, slot, clock, cpu_ns);
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
        if (stile__thread_bound(t, r))
            slot_close(stile__session, r, t, signal_kept(stile__session, mask));
        stile__session_leave(stile__session, stile__thread_shard());
    }
    t->slot = NULL;
    t->region = NULL;
    stile__thread_barriers_remove(t, NULL); /* of a session that has ended */
    stile__barriers_give_back(&t->barriers);
    stile__alt_stack_take_back();
    stile__raw_sigmask(SIG_SETMASK, mask);
    errno = saved_errno;
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
        slot_open(stile__session, region, tid, false, stile__clock_read(tid, false), &id);
}

void stile__threads_enter_others(void)
{
    struct stile__session *s = stile__session;
    uint32_t others = 0;
    struct stile__bounds *stacks;
    size_t bytes;

    stile__tasks_each(count_other, &others);
    if (others == 0)
        return;
    s->n_stacks = stile__maps_stacks(&stacks, &bytes);
    if (s->n_stacks != 0)
        s->stacks = stacks;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r != NULL) {
        stile__tasks_each(enter_other, r);
        stile__session_leave(s, stile__thread_shard());
    }
}

void stile__threads_stop(struct stile__session *s, struct stile__region *r)
{
    if (s->clocks == NULL)
        return;
    if (s->toggle != 0) {
        stile__toggle_look_all(s, r, NULL, NULL); /* nothing is wanted any more */
        return;
    }
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++)
        if (atomic_load_explicit(&stile__region_slot(r, i)->state, memory_order_acquire) == STILE__SLOT_LIVE)
            stile__clock_stop(&s->clocks[i]);
}

void stile__threads_settle(struct stile__session *s, struct stile__region *r)
{
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) == STILE__SLOT_LIVE)
            atomic_store_explicit(
                &slot->exit_cpu_ns,
                stile__clock_read(atomic_load_explicit(&slot->tid, memory_order_relaxed), false),
                memory_order_relaxed);
    }
}
