/* Rings, slots and what they count: every record that the handlers left is taken. Collector, normal context.
 * The program can write anything into its region at any time: a record is copied first, then checked, then used. */
#include "profiler/collector/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/collector/dump.h"
#include "profiler/collector/records.h"
#include "profiler/collector/waits.h"
#include "profiler/region/check.h"

#define MAPS_SHARE  200           /* looks at the maps cost one part in so many at most */
#define NAMES_EVERY 1000000000ull /* ns between looks at the names of its threads */
#define VET_NS      10000000u     /* of a round, as long as there are files to be looked at */
#define LEARN_NS    5000000u      /* of a round */
#define LEISURE_NS  5000u /* of it, for each sample per second: what lies near, before it is asked for */
#define BELOW_MAX                                                                                            \
    ((uint64_t)STILE__BLOCK_MAX * STILE__BLOCK_DATA / sizeof(uint64_t)) /* as many as blocks hold */
#define BLOCKS_AGAIN 2u /* factor by which the pool grows when it was too small */

static void comm_read(const struct process *p, struct thread_seen *t)
{
    char path[64], name[32];
    snprintf(path, sizeof path, "/proc/%d/task/%u/comm", (int)p->pid, t->tid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return;
    if (fgets(name, sizeof name, f) != NULL) {
        name[strcspn(name, "\n")] = '\0';
        snprintf(t->comm, sizeof t->comm, "%.16s", name);
    }
    fclose(f);
}

uint32_t process_thread_of(struct process *p, uint32_t i)
{
    const struct stile__slot *slot = stile__region_slot(p->region, i);
    uint32_t generation = atomic_load_explicit(&slot->generation, memory_order_relaxed);
    uint32_t have = p->slots[i].thread;
    if (have != 0 && p->threads[have - 1].generation == generation)
        return have - 1;
    if (p->n_threads == p->cap_threads) {
        uint32_t cap = p->cap_threads != 0 ? p->cap_threads * 2 : 16;
        struct thread_seen *more = realloc(p->threads, cap * sizeof *more);
        if (more == NULL)
            return UINT32_MAX;
        p->threads = more;
        p->cap_threads = cap;
    }
    if (have != 0)
        mirror_free(&p->threads[have - 1].mirror); /* nobody writes its records any more */
    struct thread_seen *t = &p->threads[p->n_threads];
    memset(t, 0, sizeof *t);
    t->tid = atomic_load_explicit(&slot->tid, memory_order_relaxed);
    t->generation = generation;
    snprintf(t->comm, sizeof t->comm, "%.16s", slot->comm);
    comm_read(p, t);
    p->slots[i] = (struct slot_seen){.thread = p->n_threads + 1};
    if (p->waits.on)
        elsewhere_begin(p, p->n_threads, slot);
    return p->n_threads++;
}

/* Whether a record belongs to a later piece than the one that is being collected: it waits in its ring. One that
 * belongs to an earlier one came too late, and one that belongs to none that was ever started is damage. */
static bool record_waits(struct process *p, const struct stile__record *r)
{
    if (!p->toggles || (r->flags & STILE__IS_DUMP) != 0 || (int32_t)(r->piece - p->piece) <= 0)
        return false;
    if ((int32_t)(r->piece - atomic_load_explicit(&p->region->pieces_started, memory_order_acquire)) > 0)
        p->damage = "a record belongs to no piece";
    return true;
}

bool process_maps_wait(struct process *p, const struct stile__record *r)
{
    uint32_t now = atomic_load_explicit(&p->region->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    if (stile__unloads_beyond(r->unloads, now))
        p->damage = "a record counts libraries that were not unloaded";
    return stile__unloads_beyond(r->unloads, p->unloads_seen);
}

/* Takes what lies in one ring. Returns false if it is damaged. */
static bool ring_drain(struct process *p, struct stile__slot *slot, uint32_t i)
{
    static union record_copy c;
    const struct stile__cell *ring = stile__region_ring(p->region, p->size, i);
    const uint32_t cells = stile__slot_cells(p->size, i);
    uint64_t head = atomic_load_explicit(&slot->head, memory_order_acquire); /* C, pairs with B */
    uint64_t tail = atomic_load_explicit(&slot->tail, memory_order_relaxed); /* own word */

    if (head == tail)
        return true;
    if (head - tail > cells) {
        p->damage = "a ring holds more than it can";
        return false;
    }
    uint32_t thread = process_thread_of(p, i);
    while (tail != head && thread != UINT32_MAX) {
        uint32_t at = (uint32_t)(tail & (cells - 1));
        uint64_t room = cells - at < head - tail ? cells - at : head - tail;
        if (room > STILE__RING_CELLS_MIN)
            room = STILE__RING_CELLS_MIN;
        record_copy(&c, &ring[at], room);
        p->damage = stile__record_check(&c.record, room, p->size.block_max);
        if (p->damage != NULL)
            return false;
        if (c.record.kind != STILE__RECORD_PAD &&
            (process_maps_wait(p, &c.record) || record_waits(p, &c.record)))
            return p->damage == NULL;
        if (c.record.kind != STILE__RECORD_PAD && (c.record.flags & STILE__IS_DUMP) != 0)
            dump_record_take(p, i, thread, &c.record);
        else if (c.record.kind != STILE__RECORD_PAD && p->toggles && c.record.piece != p->piece)
            record_drop(p, thread, &c.record);
        else if (c.record.kind != STILE__RECORD_PAD && (c.record.flags & STILE__IS_WAIT) != 0)
            waits_record_add(p, thread, &c.record);
        else if (c.record.kind != STILE__RECORD_PAD)
            record_add(p, thread, &c.record);
        if (p->damage != NULL)
            return false;
        tail += c.record.cells;
        atomic_store_explicit(&slot->tail, tail, memory_order_release); /* D, pairs with A */
    }
    return true;
}

/* What became of a thread's barriers since the last look. */
static void barriers_count(struct process *p, struct barrier_totals *seen, uint32_t i)
{
    const struct stile__barrier_counts *c = &stile__region_memo(p->region, p->size, i)->barriers;
    const struct barrier_totals now = {.placed = atomic_load_explicit(&c->placed, memory_order_relaxed),
                                       .hit = atomic_load_explicit(&c->hit, memory_order_relaxed),
                                       .retired = atomic_load_explicit(&c->retired, memory_order_relaxed),
                                       .restored = atomic_load_explicit(&c->restored, memory_order_relaxed)};
    p->barrier_totals.placed += now.placed - seen->placed;
    p->barrier_totals.hit += now.hit - seen->hit;
    p->barrier_totals.retired += now.retired - seen->retired;
    p->barrier_totals.restored += now.restored - seen->restored;
    *seen = now;
}

/* Ticks that found the ring full, and the count of signals, since the last look. */
static void counters_take(struct process *p, const struct stile__slot *slot, uint32_t i)
{
    uint64_t signals = atomic_load_explicit(&slot->signals, memory_order_relaxed);
    uint64_t ticks = atomic_load_explicit(&slot->lost_ticks, memory_order_relaxed);
    uint64_t ns = atomic_load_explicit(&slot->lost_ns, memory_order_relaxed);
    uint32_t thread = signals != 0 ? process_thread_of(p, i) : UINT32_MAX;
    struct slot_seen *seen = &p->slots[i];

    if (thread == UINT32_MAX)
        return;
    uint64_t more_ns = ns - seen->lost_ns, more = ticks - seen->lost_ticks;
    if (more > more_ns / p->period_ns) /* each of them has its weight */
        more = more_ns / p->period_ns;
    if (more_ns != 0 && more_ns <= TICK_NS_MAX)
        process_stack_add(p, thread, NULL, 0, STILE__REASON_BUFFER_FULL, false, more, more_ns);
    p->signals += signals - seen->signals;
    seen->lost_ticks = ticks;
    seen->lost_ns = ns;
    seen->signals = signals;
    if (p->barriers != STILE__BARRIERS_OFF)
        barriers_count(p, &seen->barriers, i);
}

/* Ticks that were due at a thread's end and had been kept from it. */
static void missed_take(struct process *p, struct stile__slot *slot, uint32_t i)
{
    uint64_t missed = atomic_exchange_explicit(&slot->missed_ticks, 0, memory_order_relaxed);
    uint32_t thread = missed != 0 ? process_thread_of(p, i) : UINT32_MAX;
    if (thread != UINT32_MAX && missed <= TICK_NS_MAX / p->period_ns)
        process_stack_add(p, thread, NULL, 0, STILE__REASON_UNSAMPLED, false, missed, missed * p->period_ns);
}

/* The thread's own clock, once it is stopped. A thread that never ticked is known from here on. */
static void used_take(struct process *p, const struct stile__slot *slot, uint32_t i)
{
    uint64_t exit = atomic_load_explicit(&slot->exit_cpu_ns, memory_order_relaxed), base = slot->base_cpu_ns;
    if (exit <= base || exit - base > TICK_NS_MAX * 1000)
        return;
    uint64_t used = exit - base;
    if (p->slots[i].thread == 0 && used < STILE__EXACT_PERIODS * p->period_ns)
        return;
    uint32_t thread = process_thread_of(p, i);
    if (thread != UINT32_MAX)
        p->threads[thread].used_ns = used;
}

static void thread_ended(struct process *p, uint32_t thread, const struct stile__slot *slot)
{
    struct thread_seen *t = &p->threads[thread];
    if (p->waits.on)
        elsewhere_end(p, thread, slot);
    snprintf(t->comm, sizeof t->comm, "%.16s", slot->comm);
    t->ended = true;
    mirror_free(&t->mirror);
}

static void slot_drain(struct process *p, uint32_t i)
{
    struct stile__slot *slot = stile__region_slot(p->region, i);
    /* Acquire pairs with slot_start's and slot_close's release. Read before the ring: what a thread wrote before it
     * was marked as exited is then seen. */
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);

    if (state != STILE__SLOT_LIVE && state != STILE__SLOT_EXITED)
        return;
    if (!ring_drain(p, slot, i))
        return;
    counters_take(p, slot, i);
    missed_take(p, slot, i);
    uint32_t thread = p->waits.on ? process_thread_of(p, i) : UINT32_MAX;
    if (thread != UINT32_MAX)
        waits_lost_take(p, thread, i);
    if (!p->toggles)
        used_take(p, slot, i);
    bool empty =
        atomic_load_explicit(&slot->head, memory_order_relaxed) ==
        atomic_load_explicit(&slot->tail, memory_order_relaxed); /* or a later piece's records wait */
    p->threads_ended += state == STILE__SLOT_EXITED && empty;
    if (state == STILE__SLOT_EXITED && empty) {
        uint32_t t = p->slots[i].thread - 1;
        if (t != UINT32_MAX &&
            p->threads[t].generation == atomic_load_explicit(&slot->generation, memory_order_relaxed))
            thread_ended(p, t, slot);
        p->slots[i] = (struct slot_seen){0}; /* its tid may live again under another name */
        /* Release pairs with slot_try's acquire: we are done with the ring. */
        atomic_store_explicit(&slot->state, STILE__SLOT_FREE, memory_order_release);
    }
}

/* Blocks in use now; the drain has not given any back yet. */
static uint32_t blocks_in_use(const struct process *p)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < p->size.block_max / 64; w++)
        n += (uint32_t)__builtin_popcountll(
            atomic_load_explicit(&p->region->blocks_used[w], memory_order_relaxed));
    return n;
}

/* The pool grows when more than half of it was in use at once, or when it was not enough. */
static void blocks_check(struct process *p, uint32_t in_use)
{
    uint32_t ready = atomic_load_explicit(&p->region->blocks_ready, memory_order_relaxed);
    uint64_t failed = atomic_load_explicit(&p->region->blocks_short, memory_order_relaxed);
    if (failed != p->blocks_short || in_use > ready / 2)
        process_blocks_grow(p, ready < p->size.block_max / BLOCKS_AGAIN ? BLOCKS_AGAIN * ready
                                                                        : p->size.block_max);
    p->blocks_short = failed;
}

void process_drain(struct process *p)
{
    uint64_t now = now_mono_ns(), before = p->ticks + p->waits.n;

    if (p->damage != NULL)
        return;
    p->maps_fresh = false;
    p->unloads_seen = atomic_load_explicit(&p->region->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    if (p->unloads_seen != p->mappings.now.unloads)
        process_maps_refresh(p);
    p->learn_left_ns = LEARN_NS;
    p->below_left = BELOW_MAX;
    process_clock_read(p);
    uint32_t used = atomic_load_explicit(&p->region->slots_used, memory_order_acquire);
    if (used > p->size.slot_max) {
        p->damage = "more thread slots are in use than there are";
        return;
    }
    uint32_t in_use = blocks_in_use(p);
    for (uint32_t i = 0; i < used && p->damage == NULL; i++)
        slot_drain(p, i);
    blocks_check(p, in_use);
    /* One file each round at least, whatever learning took, and once only. */
    uint64_t start = now_mono_ns();
    while (vet_next(&p->vetting, &p->mappings) && now_mono_ns() - start < VET_NS)
        ;
    /* Where few samples are taken few have no rule, and the program wants its processors. */
    int64_t leisure = (int64_t)p->hz * LEISURE_NS;
    if (leisure > p->learn_left_ns)
        leisure = p->learn_left_ns;
    for (start = now_mono_ns();
         (int64_t)(now_mono_ns() - start) < leisure && rule_table_widen(&p->rules, &p->mappings);)
        ;
    if (p->ticks + p->waits.n == before)
        return;
    /* Libraries come and go at the same addresses, some without dlclose. */
    if (!p->maps_fresh && now - p->maps_read_ns > p->maps_cost_ns * MAPS_SHARE)
        process_maps_refresh(p);
    if (now - p->comm_read_ns > NAMES_EVERY) {
        for (uint32_t i = 0; i < used; i++)
            if (p->slots[i].thread != 0)
                comm_read(p, &p->threads[p->slots[i].thread - 1]);
        p->comm_read_ns = now;
    }
}
