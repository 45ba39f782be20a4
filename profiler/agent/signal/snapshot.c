/* Third stage of a sample: the copy of the stack, in chained blocks of the region. Runs in the signal handler. */
#include "profiler/agent/signal/handler.h"

#include "profiler/agent/signal/poison.h"

#define RED_ZONE                                                                                             \
    128u /* bytes below rsp that code may use, and that CFI names: System V ABI for x86-64, 3.2.2 */

/* Other frames' memory is not ours to be checked by a sanitizer, and memcpy may be one's wrapper. */
static void copy(void *to, const void *from, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

/* Takes a free block. Bounded: looks at each word of the bitmap once. Acquire pairs with the collector's release of
 * the block: it has read what was there. */
static uint32_t block_take(struct stile__session *s, struct stile__region *r, uint32_t hint)
{
    uint32_t ready = atomic_load_explicit(&r->blocks_ready, memory_order_acquire);
    if (ready > s->size.block_max)
        ready = s->size.block_max;
    uint32_t words = (ready + 63) / 64;
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
    return STILE__BLOCK_NONE;
}

void stile__snapshot_take(struct stile__session *s, struct stile__region *r,
                          const struct stile__bounds *stack, uint64_t rsp, uint32_t hint,
                          struct stile__record *record)
{
    if (rsp < stack->lo || rsp >= stack->hi) {
        record->reason = STILE__REASON_UNKNOWN_STACK;
        return;
    }
    uint64_t from = rsp - stack->lo > RED_ZONE ? rsp - RED_ZONE : stack->lo;
    uint64_t left = stack->hi - from;
    if (left > STILE__SNAPSHOT_MAX) {
        left = STILE__SNAPSHOT_MAX;
        record->reason = STILE__REASON_TRUNCATED;
    }
    record->stack_start = from;
    uint32_t *link = &record->block;
    while (left > 0) {
        uint32_t i = block_take(s, r, hint / 4);
        if (i == STILE__BLOCK_NONE) {
            atomic_fetch_add_explicit(&r->blocks_short, 1, memory_order_relaxed);
            record->reason = STILE__REASON_BUFFER_FULL;
            break;
        }
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
}
