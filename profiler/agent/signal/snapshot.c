/* Third stage of a sample: the copy of the stack, in chained blocks of the region. Runs in the signal handler. */
#include "profiler/agent/signal/handler.h"

#include "profiler/agent/signal/faults.h"

#include "profiler/agent/signal/poison.h"

/* Other frames' memory is not ours to be checked by a sanitizer, and memcpy may be one's wrapper. */
static void copy(void *to, const void *from, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

/* Bounded: looks at each word of the bitmap once. Acquire pairs with the collector's release of the block: it has read
 * what was there. */
uint32_t stile__block_take(struct stile__session *s, struct stile__region *r, uint32_t hint)
{
    uint32_t ready = atomic_load_explicit(&r->blocks_ready, memory_order_acquire);
    if (ready > s->size.block_max)
        ready = s->size.block_max;
    uint32_t words = stile__fault(STILE__FAULT_BLOCK, 1) ? 0 : (ready + 63) / 64;
    hint /= 4;
    for (uint32_t k = 0; k < words; k++) {
        uint32_t w = (hint + k) % words;
        uint64_t used = atomic_load_explicit(&r->blocks_used[w], memory_order_relaxed);
        while (used != ~0ull) {
            uint32_t bit = (uint32_t)__builtin_ctzll(~used);
            if (w * 64 + bit >= ready)
                break;
            uint64_t before = atomic_fetch_or_explicit(&r->blocks_used[w], 1ull << bit, memory_order_acquire);
            if (!(before & 1ull << bit))
                return w * 64 + bit;
            used = before | 1ull << bit;
        }
    }
    atomic_fetch_add_explicit(&r->blocks_short, 1, memory_order_relaxed);
    return STILE__BLOCK_NONE;
}

void stile__blocks_give_back(struct stile__session *s, struct stile__region *r, uint32_t first)
{
    for (uint32_t i = first, n = 0; i < s->size.block_max && n < s->size.block_max; n++) {
        uint32_t next = stile__region_block(r, s->size, i)->next;
        atomic_fetch_and_explicit(&r->blocks_used[i / 64], ~(1ull << i % 64), memory_order_release);
        i = next;
    }
}

/* The chain that is being written, and where it goes on. */
struct chain {
    struct stile__session *s;
    struct stile__region *r;
    uint32_t *link;
    struct stile__block *block;
};

/* Appends bytes, without gaps. Returns how many there was room for. */
static uint64_t append(struct chain *c, const void *from, uint64_t n)
{
    uint64_t done = 0;
    while (done < n) {
        if (c->block == NULL || c->block->used == STILE__BLOCK_DATA) {
            uint32_t i = stile__block_take(c->s, c->r, (uint32_t)stile__thread.id);
            if (i == STILE__BLOCK_NONE)
                break;
            c->block = stile__region_block(c->r, c->s->size, i);
            c->block->next = STILE__BLOCK_NONE;
            c->block->used = 0;
            *c->link = i;
            c->link = &c->block->next;
        }
        uint64_t room = STILE__BLOCK_DATA - c->block->used, part = n - done < room ? n - done : room;
        copy(c->block->data + c->block->used, (const char *)from + done, part);
        c->block->used += (uint32_t)part;
        done += part;
    }
    return done;
}

/* What the stubs on a stack stand for: whoever walks the copy cannot ask the program. */
static bool barriers_append(struct chain *c, uint64_t from, uint64_t end, struct stile__record *record)
{
    for (uint64_t at = (from + 7) & ~7ull; at + 8 <= end && record->n_barriers < STILE__STUBS; at += 8) {
        uint32_t stub = stile__stub_of(*(const uint64_t *)at);
        if (stub == STILE__STUB_NONE)
            continue;
        const struct stile__barrier_seen seen = {stub, stile__stub_ra(stub)};
        if (append(c, &seen, sizeof seen) != sizeof seen)
            return false;
        record->n_barriers++;
    }
    return true;
}

enum stile__reason stile__snapshot_take(struct stile__session *s, struct stile__region *r, uint64_t from,
                                        uint64_t end, struct stile__record *record)
{
    enum stile__reason reason = STILE__REASON_NONE;
    struct chain c = {s, r, &record->block, NULL};
    if (end - from > STILE__SNAPSHOT_MAX) {
        end = from + STILE__SNAPSHOT_MAX;
        reason = STILE__REASON_TRUNCATED;
    }
    record->stack_start = from;
    record->stack_len = (uint32_t)append(&c, (const void *)from, end - from);
    if (record->stack_len < end - from || !barriers_append(&c, from, end, record))
        return STILE__REASON_BUFFER_FULL;
    return reason;
}
