/* The signal that starts and stops the clocks (PROFILE_TOGGLE): pieces, as layout.h describes them. Runs in the signal
 * handler, on any thread. */
#include "profiler/agent/signal/handler.h"

#include "profiler/agent/clock.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* The number of the piece that starts now. */
static uint32_t piece_begin(struct stile__region *r)
{
    uint32_t last = atomic_load_explicit(&r->pieces_started, memory_order_relaxed); /* own word */
    struct stile__piece *piece = &r->pieces[last % STILE__PIECES];
    uint32_t stopped = STILE__PIECE_STOPPED;

    /* A, pairs with F. More pieces than the collector has seen so far: the last one goes on (G). */
    if (last - atomic_load_explicit(&r->pieces_done, memory_order_acquire) >= STILE__PIECES &&
        atomic_compare_exchange_strong_explicit(&piece->state, &stopped, STILE__PIECE_RUNNING,
                                                memory_order_acq_rel, memory_order_relaxed))
        return last;
    /* Taken meanwhile, so all before it are done. */
    last++;
    piece = &r->pieces[last % STILE__PIECES];
    piece->start_mono_ns = stile__clock_now(CLOCK_MONOTONIC);
    atomic_store_explicit(&piece->state, STILE__PIECE_RUNNING, memory_order_relaxed);
    atomic_store_explicit(&r->pieces_started, last, memory_order_release); /* B */
    return last;
}

static void piece_start(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                        const struct stile__place *at)
{
    atomic_store_explicit(&s->piece, piece_begin(r), memory_order_seq_cst);
    stile__toggle_look_all(s, r, own, at);
}

static void piece_stop(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                       const struct stile__place *at)
{
    uint32_t k = atomic_load_explicit(&s->piece, memory_order_relaxed);
    struct stile__piece *piece = &r->pieces[k % STILE__PIECES];
    piece->stop_mono_ns = stile__clock_now(CLOCK_MONOTONIC);
    atomic_store_explicit(&s->piece, 0, memory_order_seq_cst);
    stile__toggle_look_all(s, r, own, at);
    atomic_store_explicit(&piece->state, STILE__PIECE_STOPPED, memory_order_release); /* C */
}

/* Sequentially consistent throughout: either our try succeeds, or the holder sees our wish when it looks again. */
static void wishes_carry_out(struct stile__session *s, struct stile__region *r, struct stile__thread *own,
                             const struct stile__place *at)
{
    while (atomic_load_explicit(&s->toggles, memory_order_seq_cst) !=
           atomic_load_explicit(&s->toggle_wishes, memory_order_seq_cst)) {
        if (atomic_exchange_explicit(&s->toggle_busy, 1, memory_order_seq_cst) != 0)
            return;
        uint32_t done = atomic_load_explicit(&s->toggles, memory_order_relaxed);
        while (done != atomic_load_explicit(&s->toggle_wishes, memory_order_seq_cst)) {
            if (++done % 2 == 1)
                piece_start(s, r, own, at);
            else
                piece_stop(s, r, own, at);
            atomic_store_explicit(&s->toggles, done, memory_order_relaxed);
        }
        atomic_store_explicit(&s->toggle_busy, 0, memory_order_seq_cst);
    }
}

void stile__handle_toggle(int signal, siginfo_t *info, void *context)
{
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;
    uint32_t shard = stile__thread_shard();
    struct stile__region *r = stile__session_enter(s, shard);
    struct stile__place at;
    (void)info;

    if (r == NULL)
        return;
    /* Not in a vfork child, which runs in our memory; and not for a late one of an earlier session's. */
    if (signal == s->toggle && s->pid == stile__raw_getpid()) {
        stile__place_of(context, &at);
        atomic_fetch_add_explicit(&s->toggle_wishes, 1, memory_order_seq_cst);
        wishes_carry_out(s, r, stile__thread_bound(t, r) ? t : NULL, &at);
    }
    stile__session_leave(s, shard);
}
