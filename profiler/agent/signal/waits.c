/* A wait's record. Runs in the signal handler, and in normal context with all signals blocked. */
#include "profiler/agent/signal/waits.h"

#include "barriers/ownership.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

/* How much of the highest rate is enough while half, and a quarter, of the ring is free. */
#define THIN_HALF    64u
#define THIN_QUARTER 8u

/* A generator of Marsaglia's (Xorshift RNGs, 2003): one word per thread. */
static uint64_t chance(struct stile__thread *t)
{
    uint64_t x = t->chance != 0 ? t->chance : __builtin_ia32_rdtsc() | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return t->chance = x;
}

/* Below n, evenly; n < 2^32. */
static uint64_t chance_below(struct stile__thread *t, uint64_t n)
{
    return (chance(t) >> 32) * n >> 32;
}

bool stile__wait_kept(struct stile__thread *t, uint64_t rate_ns, uint64_t delay_ns)
{
    return delay_ns >= rate_ns || chance_below(t, rate_ns) < delay_ns;
}

uint32_t stile__wait_weight(struct stile__thread *t, uint64_t rate_ns, uint64_t delay_ns, uint64_t *booked_ns)
{
    *booked_ns = delay_ns;
    if (delay_ns >= rate_ns || delay_ns == 0)
        return 1;
    *booked_ns = rate_ns;
    return (uint32_t)(rate_ns / delay_ns) + (chance_below(t, delay_ns) < rate_ns % delay_ns);
}

static struct stile__left *left_of(const struct stile__session *s, struct stile__region *r,
                                   const struct stile__thread *t)
{
    return stile__session_left(s, r, (uint32_t)t->id);
}

static struct stile__cell *ring_of(const struct stile__session *s, struct stile__region *r,
                                   const struct stile__thread *t)
{
    return stile__session_ring(s, r, (uint32_t)t->id);
}

static void walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const struct stile__place *at, struct stile__record *record)
{
    record->flags = STILE__IS_WAIT;
    record->n_new = record->n_inline = 1;
    stile__walk(s, r, t, at, record);
}

static void blocks_drop(struct stile__session *s, struct stile__region *r, struct stile__record *record)
{
    if (record->frames_block != STILE__BLOCK_NONE)
        stile__blocks_give_back(s, r, record->frames_block);
    if (record->block != STILE__BLOCK_NONE)
        stile__blocks_give_back(s, r, record->block);
    record->frames_block = record->block = STILE__BLOCK_NONE;
}

void stile__left_fill(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const void *hook)
{
    struct stile__left *left = left_of(s, r, t);
    struct stile__record *record = &left->record;
    blocks_drop(s, r, record); /* of a wait that a jump left in the middle of its end */
    stile__record_init(s, r, t, record, 1);
    record->cells = STILE__LEFT_CELLS;
    record->kind = STILE__RECORD_WALKED;
    walk(s, r, t, at, record);
    left->told_ns[0] = left->told_ns[1] = 0;
    left->hook = (uintptr_t)hook;
}

void stile__left_since(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                       uint64_t since_ns)
{
    left_of(s, r, t)->since_ns = since_ns;
}

void stile__left_init(struct stile__session *s, struct stile__region *r, uint32_t i)
{
    struct stile__left *left = stile__session_left(s, r, i);
    left->record.frames_block = left->record.block = STILE__BLOCK_NONE;
}

static uint32_t words_of(const struct stile__record *record)
{
    return record->n_inline + (record->kind != STILE__RECORD_WALKED ? STILE__REG_COUNT : 0);
}

static void lost_count(struct stile__slot *slot, uint64_t count, uint64_t delay_ns)
{
    stile__counter_add(&slot->lost_waits, count);
    stile__counter_add(&slot->lost_delay_ns, delay_ns);
}

/* The rate as it is now, by how full the ring is. */
static uint64_t rate_of(struct stile__session *s, struct stile__thread *t)
{
    const uint64_t cells = stile__slot_cells(s->size, (uint32_t)t->id);
    const uint64_t full = atomic_load_explicit(&t->slot->head, memory_order_relaxed) -
                          atomic_load_explicit(&t->slot->tail, memory_order_relaxed);
    if (full < cells / 2)
        return s->block_rate_ns;
    return stile__wait_rate_max(s->block_rate_ns) / (full < cells / 4 * 3   ? THIN_HALF
                                                     : full < cells / 8 * 7 ? THIN_QUARTER
                                                                            : 1);
}

static void words_append(struct stile__record *record, uint64_t why, uint64_t delay_ns, uint64_t hook)
{
    uint64_t *words = record->words + words_of(record);
    words[0] = delay_ns;
    words[1] = why;
    words[2] = hook;
}

void stile__left_drop(struct stile__session *s, struct stile__region *r, struct stile__thread *t)
{
    blocks_drop(s, r, &left_of(s, r, t)->record);
}

static bool toggled_off(const struct stile__session *s, const struct stile__thread *t)
{
    return s->toggle != 0 && atomic_load_explicit(&t->slot->piece, memory_order_relaxed) == 0;
}

void stile__left_tell(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      uint64_t was, uint64_t until_ns)
{
    struct stile__left *left = left_of(s, r, t);
    struct stile__record *record = &left->record;
    const uint64_t told_ns = left->told_ns[stile__stack_side(was)];
    const uint64_t from_ns = told_ns != 0 ? told_ns : left->since_ns, rate_ns = rate_of(s, t);
    uint64_t delay_ns = until_ns > from_ns ? until_ns - from_ns : 0, commit;
    uint32_t count = 0;

    if (delay_ns == 0 || s->block_rate_ns == 0 || toggled_off(s, t) ||
        (told_ns == 0 && !stile__wait_kept(t, rate_ns, delay_ns))) {
        blocks_drop(s, r, record);
        return;
    }
    record->piece = atomic_load_explicit(&t->slot->piece, memory_order_acquire); /* it counts where it ends */
    if (told_ns == 0)
        count = stile__wait_weight(t, rate_ns, delay_ns, &delay_ns);
    struct stile__record *out = stile__ring_reserve(
        ring_of(s, r, t), stile__slot_cells(s->size, (uint32_t)t->id), &t->slot->head, &t->slot->tail,
        stile__record_cells(words_of(record) + STILE__WAIT_WORDS), &commit);
    if (out == NULL || stile__fault(STILE__FAULT_RING, 1)) {
        lost_count(t->slot, count, delay_ns);
        blocks_drop(s, r, record);
        return;
    }
    const uint8_t cells = out->cells;
    for (uint32_t i = 0; i < cells; i++)
        ((struct stile__cell *)(void *)out)[i] = ((struct stile__cell *)(void *)record)[i];
    out->cells = cells;
    out->ticks = count;
    words_append(out, stile__stack_reason(was), delay_ns, left->hook);
    stile__ring_commit(&t->slot->head, commit);
    record->frames_block = record->block = STILE__BLOCK_NONE; /* they went with it */
}

void stile__wait_tell(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const void *hook, uint64_t why, uint64_t delay_ns)
{
    const uint32_t ring_cells = stile__slot_cells(s->size, (uint32_t)t->id);
    const uint64_t rate_ns = rate_of(s, t),
                   drawn_ns = delay_ns > s->block_rate_ns ? delay_ns : s->block_rate_ns;
    uint64_t commit, booked_ns;
    /* It was drawn at the usual rate; at a higher one fewer are. */
    if (!stile__wait_kept(t, rate_ns, drawn_ns))
        return;
    const uint32_t count = stile__wait_weight(t, rate_ns, delay_ns, &booked_ns);
    if ((why & STILE__WAIT_WAKES) != 0)
        booked_ns = 0;
    struct stile__record *record =
        stile__fault(STILE__FAULT_RING, 1)
            ? NULL
            : stile__ring_reserve(ring_of(s, r, t), ring_cells, &t->slot->head, &t->slot->tail,
                                  STILE__WALK_CELLS_MAX(ring_cells), &commit);
    if (record == NULL) {
        if ((why & STILE__WAIT_WAKES) != 0)
            stile__counter_add(&t->slot->lost_wakes, count);
        else
            lost_count(t->slot, count, booked_ns);
        return;
    }
    stile__record_init(s, r, t, record, count);
    walk(s, r, t, at, record);
    words_append(record, why, booked_ns, (uintptr_t)hook);
    stile__ring_shrink(record, words_of(record) + STILE__WAIT_WORDS, &commit);
    stile__ring_commit(&t->slot->head, commit);
}

static bool in_own_stack(const struct stile__thread *t, uint64_t address)
{
    return address >= t->stack.lo && address < t->stack.hi;
}

bool stile__wait_look(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      uint64_t rsp)
{
    uint64_t was;
    /* A frame below the stack pointer is no more. */
    if (!in_own_stack(t, rsp) || !in_own_stack(t, t->wait_frame) || rsp <= t->wait_frame)
        return false;
    if (!stile__stack_resume_try(&t->slot->status, &r->freezing, &was)) {
        if (stile__stack_state(was) == STILE__STACK_WAITING)
            return false; /* a reader, or a freeze: later */
        t->wait_frame = 0;
        return true;
    }
    t->wait_frame = 0;
    stile__left_tell(s, r, t, was, stile__clock_now(CLOCK_MONOTONIC));
    return true;
}

bool stile__stack_in_handler(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                             const struct stile__place *at)
{
    const uint32_t ring_cells = stile__slot_cells(s->size, (uint32_t)t->id);
    uint64_t commit;
    struct stile__record *record =
        stile__ring_reserve(ring_of(s, r, t), ring_cells, &t->slot->head, &t->slot->tail,
                            STILE__WALK_CELLS_MAX(ring_cells), &commit);
    if (record == NULL)
        return false;
    stile__record_init(s, r, t, record, 1);
    walk(s, r, t, at, record);
    blocks_drop(s, r, record); /* what was reserved is not published */
    return t->walk_crossings != 0;
}
