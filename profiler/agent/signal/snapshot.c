/* Third stage of a sample: the copy of the stack, in chained blocks of the region. Runs in the signal handler. */
#include "profiler/agent/signal/handler.h"

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
    uint32_t words = (ready + 63) / 64;
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

enum stile__reason stile__snapshot_take(struct stile__session *s, struct stile__region *r, uint64_t from,
                                        uint64_t end, struct stile__record *record)
{
    enum stile__reason reason = STILE__REASON_NONE;
    uint64_t left = end - from;
    if (left > STILE__SNAPSHOT_MAX) {
        left = STILE__SNAPSHOT_MAX;
        reason = STILE__REASON_TRUNCATED;
    }
    record->stack_start = from;
    uint32_t *link = &record->block;
    while (left > 0) {
        uint32_t i = stile__block_take(s, r, (uint32_t)stile__thread.id);
        if (i == STILE__BLOCK_NONE)
            return STILE__REASON_BUFFER_FULL;
        struct stile__block *block = stile__region_block(r, s->size, i);
        uint64_t n = left < STILE__BLOCK_DATA ? left : STILE__BLOCK_DATA;
        *link = i;
        link = &block->next;
        block->next = STILE__BLOCK_NONE;
        block->used = (uint32_t)n;
        copy(block->data, (const void *)from, n);
        record->stack_len += (uint32_t)n;
        from += n;
        left -= n;
    }
    return reason;
}
