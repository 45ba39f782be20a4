/* Threads' clocks under PROFILE_TOGGLE: on and off for any thread from any other, by raw system calls. Runs in the
 * signal handler, and in normal context where a thread begins and ends. */
#include "profiler/agent/signal/handler.h"

#include <asm-generic/errno-base.h>
#include <sys/random.h>

#include "barriers/stack_lock.h"
#include "profiler/agent/clock.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

static uint64_t cpu_ns(const struct stile__slot *slot)
{
    return stile__clock_read(atomic_load_explicit(&slot->tid, memory_order_relaxed), false);
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* What a piece needs at the place where it is wanted. 0: the clock is to be off. */
static uint32_t wanted(struct stile__session *s, const struct stile__slot *slot)
{
    if (atomic_load_explicit(&slot->state, memory_order_seq_cst) != STILE__SLOT_LIVE ||
        atomic_load_explicit(&s->signal_taken, memory_order_seq_cst) ||
        atomic_load_explicit(&s->region, memory_order_seq_cst) == NULL)
        return 0;
    return atomic_load_explicit(&s->piece, memory_order_seq_cst);
}

/* The first expiry is uniform in (0, period], so that the ticks due stand for the time that was on. */
static void clock_on(struct stile__session *s, struct stile__region *r, struct stile__slot *slot, uint32_t i,
                     uint32_t piece)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = s->signal};
    uint64_t now = cpu_ns(slot), random = 0;
    uint64_t generation = atomic_load_explicit(&slot->generation, memory_order_relaxed);
    int timer_id = -1;

    if (stile__raw_syscall(SYS_getrandom, (long)&random, sizeof random, GRND_NONBLOCK, 0) != sizeof random)
        random = now * 0x9e3779b97f4a7c15ull >> 32; /* golden-ratio multiplicative hash, Knuth 6.4 */
    uint64_t first = random % s->period_ns + 1;
    struct itimerspec spec = {.it_value = timespec_of(first), .it_interval = timespec_of(s->period_ns)};
    atomic_store_explicit(&slot->ticks, 0, memory_order_relaxed);
    slot->first_due_ns = now + first;
    /* Before the first tick can come. Release pairs with the handler's load: what it records was started. */
    atomic_store_explicit(&slot->piece, piece, memory_order_release);
    event._sigev_un._tid = (pid_t)atomic_load_explicit(&slot->tid, memory_order_relaxed);
    event.sigev_value.sival_ptr = (void *)(uintptr_t)(generation << 32 | stile__id_piece_bits(piece) | i);
    if (stile__raw_syscall(SYS_timer_create,
                           stile__clock_of_thread(atomic_load_explicit(&slot->tid, memory_order_relaxed)),
                           (long)&event, (long)&timer_id, 0) != 0 ||
        stile__raw_syscall(SYS_timer_settime, timer_id, 0, (long)&spec, 0) != 0)
        /* Gone already, or no timer to be had: then its time is booked as [unsampled]. */
        atomic_store_explicit(&r->timer_error, EAGAIN, memory_order_relaxed);
    s->clocks[i].timer_id = timer_id;
}

/* Ticks that are due by now and were not delivered. */
static uint64_t due(const struct stile__session *s, const struct stile__slot *slot)
{
    int64_t missed = stile__clock_missed(slot, cpu_ns(slot), s->period_ns);
    return missed > 0 ? (uint64_t)missed : 0;
}

static void timer_end(struct stile__session *s, uint32_t i)
{
    int timer_id = s->clocks[i].timer_id;
    if (timer_id >= 0)
        stile__raw_syscall(SYS_timer_delete, timer_id, 0, 0, 0);
    s->clocks[i].timer_id = -1;
}

/* The kernel looks at the clocks at its own ticks only. What is due at the stop belongs to the piece: with its stack on
 * the thread that we are on, as [unsampled] on another, whose stack is not ours to look at. A signal that is still on
 * its way stands for what is booked here, and finds itself stale. */
static void clock_off(struct stile__session *s, struct stile__region *r, struct stile__slot *slot, uint32_t i,
                      struct stile__thread *own, const struct stile__place *at)
{
    uint64_t missed;

    timer_end(s, i);
    if (own != NULL && own->slot == slot) {
        missed = due(s, slot);
        if (missed > UINT32_MAX)
            atomic_fetch_add_explicit(&slot->missed_ticks, missed, memory_order_relaxed);
        else if (missed != 0)
            stile__tick_split(s, r, own, at, (struct stile__tick){.ticks = (uint32_t)missed},
                              STILE__REASON_SIGNAL_BLOCKED);
        atomic_store_explicit(&slot->piece, 0, memory_order_relaxed);
    } else {
        atomic_store_explicit(&slot->piece, 0, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in stile__tick_take */
        missed = due(s, slot);
        if (missed != 0)
            atomic_fetch_add_explicit(&slot->missed_ticks, missed, memory_order_relaxed);
    }
    slot->first_due_ns = STILE__NEVER_DUE; /* nothing is due while it is off */
}

void stile__toggle_look(struct stile__session *s, struct stile__region *r, uint32_t i,
                        struct stile__thread *own, const struct stile__place *at)
{
    struct stile__slot *slot = stile__region_slot(r, i);
    uint32_t tid = stile__raw_gettid(), want = wanted(s, slot);

    while (want != atomic_load_explicit(&slot->piece, memory_order_relaxed) &&
           stile__stack_trylock(&slot->clock_lock, tid)) {
        want = wanted(s, slot);
        uint32_t have = atomic_load_explicit(&slot->piece, memory_order_relaxed);
        if (have != 0 && have != want)
            clock_off(s, r, slot, i, own, at);
        if (want != 0 && have != want)
            clock_on(s, r, slot, i, want);
        stile__stack_unlock(&slot->clock_lock);
        /* Whoever changed what is wanted and found the lock taken relies on us: their change came before their try, and
         * that before our release. */
        atomic_thread_fence(memory_order_seq_cst);
        want = wanted(s, slot);
    }
}

void stile__toggle_look_all(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                            const struct stile__place *at)
{
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_seq_cst);
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++)
        stile__toggle_look(s, r, i, own, at);
}

void stile__toggle_close(struct stile__session *s, struct stile__slot *slot, uint32_t i, uint32_t tid)
{
    /* Never given back: the next thread in this slot starts with a new one. */
    stile__stack_lock(&slot->clock_lock, tid);
    timer_end(s, i);
}
