/* Rings to call tree: every record that the handlers left becomes weight on a stack. Collector, normal context.
 * The program can write anything into its region at any time: a record is copied first, then checked, then used. */
#include "profiler/collector/process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "profiler/region/check.h"

#define FRAMES_MAX   (STILE__SNAPSHOT_MAX / 8) /* of a snapshot: a return address each */
#define MAPS_SHARE   200                       /* looks at the maps cost one part in so many at most */
#define NAMES_EVERY  1000000000ull             /* ns between looks at the names of its threads */
#define TICK_NS_MAX  (3600ull * 1000000000u) /* numbers come from the program: more in one tick is nonsense */
#define LEARN_NS     5000000u                /* of a round */
#define SLACK_NS     1000000000u
#define BLOCKS_AGAIN 2u /* factor by which the pool grows when it was too small */

/* One record, out of the program's reach. */
union copy {
    struct stile__record record;
    uint8_t bytes[STILE__RECORD_BYTES];
};

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

/* The thread that has slot i now, or UINT32_MAX without memory. */
static uint32_t thread_of(struct process *p, const struct stile__slot *slot, uint32_t i)
{
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
    struct thread_seen *t = &p->threads[p->n_threads];
    memset(t, 0, sizeof *t);
    t->tid = atomic_load_explicit(&slot->tid, memory_order_relaxed);
    t->generation = generation;
    snprintf(t->comm, sizeof t->comm, "%.16s", slot->comm);
    comm_read(p, t);
    p->slots[i] = (struct slot_seen){.thread = p->n_threads + 1};
    return p->n_threads++;
}

/* Gathers a chain of blocks and gives them back. Bounded whatever the links say. Returns the bytes gathered. */
static size_t blocks_take(struct process *p, uint32_t first, uint8_t *to, size_t len)
{
    size_t have = 0;
    uint32_t i = first;
    for (size_t n = 0; n <= len / STILE__BLOCK_DATA && i < p->size.block_max; n++) {
        /* Read once: the program may write what it likes between two reads. */
        const volatile struct stile__block *b = stile__region_block(p->region, p->size, i);
        const uint64_t bit = 1ull << i % 64;
        if ((atomic_load_explicit(&p->region->blocks_used[i / 64], memory_order_relaxed) & bit) == 0)
            break; /* a chain that the handler made has no free block: it goes round in a circle */
        uint32_t next = b->next, used = b->used;
        if (used > STILE__BLOCK_DATA)
            used = STILE__BLOCK_DATA;
        if (used > len - have)
            used = (uint32_t)(len - have);
        memcpy(to + have, (const void *)b->data, used);
        have += used;
        /* Release pairs with stile__block_take's acquire: we have read it. */
        atomic_fetch_and_explicit(&p->region->blocks_used[i / 64], ~bit, memory_order_release);
        i = next;
    }
    return have;
}

/* Since its clock was read, on all processors: a process that is gone cannot be asked any more. Ticks may come before the
 * time that they stand for: a period for each thread, and what the machine adds. */
static bool more_than_there_is(const struct process *p, uint64_t ns)
{
    static uint64_t processors;
    if (processors == 0)
        processors = (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
    uint64_t booked = p->cpu_ns + p->cut_cpu_ns + ns, threads = p->n_threads + 1;
    uint64_t used = p->used_cpu_ns > p->start_cpu_ns ? p->used_cpu_ns - p->start_cpu_ns : p->used_cpu_ns;
    used += (now_mono_ns() - p->used_read_ns) * processors;
    return p->used_cpu_ns != 0 && booked > used + used / 4 + 2 * threads * p->period_ns + SLACK_NS;
}

void process_stack_add(struct process *p, uint32_t thread, const uint64_t *frames, size_t n,
                       enum stile__reason reason, bool in_kernel, uint64_t ticks, uint64_t ns)
{
    uint32_t node = CALL_TREE_ROOT;
    if (more_than_there_is(p, ns)) {
        p->damage = "it tells of more CPU time than the process has used";
        return;
    }
    if (reason != STILE__REASON_NONE)
        node = call_tree_child(&p->tree, node, CALL_TREE_REASON, reason);
    for (size_t i = n; i-- > 0;)
        node = call_tree_child(&p->tree, node, mappings_find_ever(&p->mappings, frames[i]), frames[i]);
    if (in_kernel) {
        node = call_tree_child(&p->tree, node, CALL_TREE_KERNEL, 0);
        p->kernel_ns += ns;
    }
    call_tree_add(&p->tree, node, thread, ticks, ns);
    p->threads[thread].booked_ns += ns;
    p->ticks += ticks;
    p->cpu_ns += ns;
    p->reason_ticks[reason] += ticks;
    p->reason_ns[reason] += ns;
}

/* A snapshot that was cut may still reach the outermost frame; if it does not, the cut is why. What the agent knew
 * before the walk is so whatever the walk finds. */
static enum stile__reason reason_of(enum stile__reason agent, enum stile__reason walk)
{
    if (agent == STILE__REASON_SIGNAL_BLOCKED)
        return agent;
    return walk == STILE__REASON_NONE || agent == STILE__REASON_NONE ? walk : agent;
}

/* The frames of a record being added; grows. */
static uint64_t *frames;
static size_t frames_cap;

static bool frames_room(size_t n)
{
    if (n <= frames_cap)
        return true;
    uint64_t *more = realloc(frames, n * sizeof *frames);
    if (more == NULL)
        return false;
    frames = more;
    frames_cap = n;
    return true;
}

/* The frames that a record lists. Returns how many it has really. */
static size_t frames_take(struct process *p, const struct stile__record *r)
{
    size_t n = r->n_inline;
    memcpy(frames, r->words, n * sizeof *frames);
    if (r->n_new > n)
        n += blocks_take(p, r->frames_block, (uint8_t *)(frames + n), (r->n_new - n) * sizeof *frames) /
             sizeof *frames;
    return n;
}

/* Learns the rules of what the handler had none for, so that the next sample finds them. Rings wait meanwhile: what is
 * too much for one round comes with the next sample. Returns false if there was a rule. */
static bool learn(struct process *p, uint64_t address)
{
    if (rule_table_has(&p->rules, address))
        return false;
    if (p->learn_left_ns <= 0)
        return true;
    /* Learning alone counts: the walk of one deep stack may take longer, and would leave it no time in any round. */
    uint64_t start = now_mono_ns();
    bool none = rule_table_learn(&p->rules, &p->mappings, address);
    p->learn_left_ns -= (int64_t)(now_mono_ns() - start);
    return none;
}

/* Both walks of a sample, if the reference came to an end; the first difference ends the run unless all are wanted. The
 * reference is asked again, without what it has kept, before anything else is doubted. */
static void record_verify(struct process *p, size_t n, const struct snapshot *s)
{
    enum stile__reason reason;
    size_t all = unwinder_walk(p->unwinder, s, frames + n, FRAMES_MAX, &reason);
    if (reason != STILE__REASON_NONE || !verify_same(frames, n, frames + n, all)) {
        unwinder_flush(p->unwinder);
        all = unwinder_walk(p->unwinder, s, frames + n, FRAMES_MAX, &reason);
    }
    if (reason != STILE__REASON_NONE)
        p->verify.unknown++;
    else if (!verify_compare(&p->verify, &p->mappings, frames, n, frames + n, all) &&
             (p->debug & STILE__DEBUG_VERIFY_ALL) == 0)
        syscall(SYS_pidfd_send_signal, p->pidfd, SIGABRT, NULL, 0);
}

static void record_add(struct process *p, uint32_t thread, const struct stile__record *r)
{
    static uint8_t stack[STILE__SNAPSHOT_MAX];
    enum stile__reason reason = r->reason;
    bool known = mappings_view(&p->mappings, r->unloads);

    if (!frames_room(r->n_new + FRAMES_MAX)) {
        p->damage = "the collector has no memory";
        return;
    }
    size_t n = frames_take(p, r), listed = n;
    struct snapshot s = {.start = r->stack_start, .bytes = stack, .lost = r->lost_regs};
    if (r->kind != STILE__RECORD_WALKED) {
        memcpy(s.regs, r->words + r->n_inline, sizeof s.regs);
        s.len = blocks_take(p, r->block, stack, r->stack_len);
    }
    if (r->kind == STILE__RECORD_VERIFY) {
        if (p->debug & STILE__DEBUG_VERIFY &&
            known) /* else the program wrote it, and is not to be ended for that */
            record_verify(p, n, &s);
    } else if (r->kind == STILE__RECORD_SNAPSHOT && !known) {
        /* A library came and went between two looks: what its code says of the stack is not to be had any more. */
        frames[n++] = s.regs[STILE__REG_RIP];
        reason = reason_of(reason, STILE__REASON_NO_UNWIND_INFO);
    } else if (r->kind == STILE__RECORD_SNAPSHOT) {
        enum stile__reason walk_reason;
        n += unwinder_walk(p->unwinder, &s, frames + n, FRAMES_MAX, &walk_reason);
        reason = reason_of(reason, walk_reason);
    }
    if (p->debug & STILE__DEBUG_VERIFY && r->kind == STILE__RECORD_WALKED && reason == STILE__REASON_NONE &&
        n > 0)
        p->verify.uncopied++;
    p->frames_by_rules += listed;
    p->frames_by_libunwind += n - listed;
    p->walks[r->kind != STILE__RECORD_WALKED].n += r->walk_cycles != 0;
    p->walks[r->kind != STILE__RECORD_WALKED].cycles += r->walk_cycles;
    if (r->kind == STILE__RECORD_SNAPSHOT || reason == STILE__REASON_UNKNOWN_STACK)
        for (size_t i = 0; i < n; i++)
            p->frames_unruled += learn(p, frames[i]);
    if (reason == STILE__REASON_UNKNOWN_STACK && n > 1 &&
        mappings_find_ever(&p->mappings, frames[n - 1]) == MAPPING_NONE)
        n--; /* no code: the walk went astray there */
    if (n > p->depth) {
        n = p->depth;
        if (reason != STILE__REASON_SIGNAL_BLOCKED)
            reason = STILE__REASON_TRUNCATED;
    }
    uint64_t ticks = r->ticks, ns = ticks * p->period_ns;
    if (ns <= TICK_NS_MAX)
        process_stack_add(p, thread, frames, n, reason, (r->flags & STILE__IN_KERNEL) != 0, ticks, ns);
    p->mappings.view = &p->mappings.now;
}

/* Most records are short: the length that it claims is copied, and then checked in the copy. */
static void record_copy(union copy *c, const struct stile__cell *cell, uint64_t room)
{
    uint64_t cells = ((const volatile struct stile__record *)(const void *)cell)->cells;
    memcpy(c->bytes, cell, (cells == 0 || cells > room ? room : cells) * STILE__CELL_BYTES);
    if (cells != c->record.cells) /* changed in between: the copy has what it has */
        c->record.cells = 0;
}

/* A tick that came after the piece that it belongs to was stopped. */
static void record_drop(struct process *p, const struct stile__record *r)
{
    static uint8_t stack[STILE__SNAPSHOT_MAX];
    if (r->kind != STILE__RECORD_WALKED)
        blocks_take(p, r->block, stack, sizeof stack);
    if (r->n_new > r->n_inline && frames_room(r->n_new))
        frames_take(p, r);
    p->late_ticks += r->ticks;
}

/* Whether a record belongs to a later piece than the one that is being collected: it waits in its ring. One that
 * belongs to an earlier one came too late, and one that belongs to none that was ever started is damage. */
static bool record_waits(struct process *p, const struct stile__record *r)
{
    if (!p->toggles || (int32_t)(r->piece - p->piece) <= 0)
        return false;
    if ((int32_t)(r->piece - atomic_load_explicit(&p->region->pieces_started, memory_order_acquire)) > 0)
        p->damage = "a record belongs to no piece";
    return true;
}

/* Whether something was unloaded before a record that the last look at the maps had not seen: it waits for the next. */
static bool maps_wait(struct process *p, const struct stile__record *r)
{
    uint32_t now = atomic_load_explicit(&p->region->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    if (stile__unloads_beyond(r->unloads, now))
        p->damage = "a record counts libraries that were not unloaded";
    return stile__unloads_beyond(r->unloads, p->unloads_seen);
}

/* Takes what lies in one ring. Returns false if it is damaged. */
static bool ring_drain(struct process *p, struct stile__slot *slot, uint32_t i)
{
    static union copy c;
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
    uint32_t thread = thread_of(p, slot, i);
    while (tail != head && thread != UINT32_MAX) {
        uint32_t at = (uint32_t)(tail & (cells - 1));
        uint64_t room = cells - at < head - tail ? cells - at : head - tail;
        if (room > STILE__RING_CELLS_MIN)
            room = STILE__RING_CELLS_MIN;
        record_copy(&c, &ring[at], room);
        p->damage = stile__record_check(&c.record, room, p->size.block_max);
        if (p->damage != NULL)
            return false;
        if (c.record.kind != STILE__RECORD_PAD && (maps_wait(p, &c.record) || record_waits(p, &c.record)))
            return p->damage == NULL;
        if (c.record.kind != STILE__RECORD_PAD && p->toggles && c.record.piece != p->piece)
            record_drop(p, &c.record);
        else if (c.record.kind != STILE__RECORD_PAD)
            record_add(p, thread, &c.record);
        tail += c.record.cells;
        atomic_store_explicit(&slot->tail, tail, memory_order_release); /* D, pairs with A */
    }
    return true;
}

/* Ticks that found the ring full, and the count of signals, since the last look. */
static void counters_take(struct process *p, const struct stile__slot *slot, uint32_t i)
{
    uint64_t signals = atomic_load_explicit(&slot->signals, memory_order_relaxed);
    uint64_t ticks = atomic_load_explicit(&slot->lost_ticks, memory_order_relaxed);
    uint64_t ns = atomic_load_explicit(&slot->lost_ns, memory_order_relaxed);
    uint32_t thread = signals != 0 ? thread_of(p, slot, i) : UINT32_MAX;
    struct slot_seen *seen = &p->slots[i];

    if (thread == UINT32_MAX)
        return;
    if (ns - seen->lost_ns != 0 && ns - seen->lost_ns <= TICK_NS_MAX)
        process_stack_add(p, thread, NULL, 0, STILE__REASON_BUFFER_FULL, false, ticks - seen->lost_ticks,
                          ns - seen->lost_ns);
    p->signals += signals - seen->signals;
    *seen = (struct slot_seen){thread + 1, ticks, ns, signals};
}

/* Ticks that were due at a thread's end and had been kept from it. */
static void missed_take(struct process *p, struct stile__slot *slot, uint32_t i)
{
    uint64_t missed = atomic_exchange_explicit(&slot->missed_ticks, 0, memory_order_relaxed);
    uint32_t thread = missed != 0 ? thread_of(p, slot, i) : UINT32_MAX;
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
    uint32_t thread = thread_of(p, slot, i);
    if (thread != UINT32_MAX)
        p->threads[thread].used_ns = used;
}

static void thread_ended(struct thread_seen *t, const struct stile__slot *slot)
{
    snprintf(t->comm, sizeof t->comm, "%.16s", slot->comm);
    t->ended = true;
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
            thread_ended(&p->threads[t], slot);
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
    uint64_t now = now_mono_ns(), before = p->ticks;

    if (p->damage != NULL)
        return;
    p->maps_fresh = false;
    p->unloads_seen = atomic_load_explicit(&p->region->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    if (p->unloads_seen != p->mappings.now.unloads)
        process_maps_refresh(p);
    p->learn_left_ns = LEARN_NS;
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
    for (uint64_t start = now_mono_ns();
         (int64_t)(now_mono_ns() - start) < p->learn_left_ns && rule_table_widen(&p->rules, &p->mappings);)
        ;
    if (p->ticks == before)
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
