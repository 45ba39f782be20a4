/* What waiting threads left. Runs in the handlers of crashes, under SCAN. */
#include "profiler/agent/crash/left.h"

#include <ucontext.h>

#include "barriers/ownership.h"
#include "barriers/ownership_check.h"
#include "profiler/agent/crash/frames.h"
#include "profiler/agent/crash/parts.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define BUSY_TRIES 40u /* of a reader that is about to let go: the collector's */
#define BUSY_NS    500000

struct stile__slot *stile__left_take(const struct stile__session *s, struct stile__region *r, uint32_t tid,
                                     uint64_t *seen)
{
    const uint32_t used = r != NULL && s->size.waits != 0 && s->leaves
                              ? atomic_load_explicit(&r->slots_used, memory_order_acquire)
                              : 0;
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
            atomic_load_explicit(&slot->tid, memory_order_relaxed) != tid)
            continue;
        enum stile__scan scan = stile__scan_begin(&slot->status, seen);
        for (unsigned k = 0; scan == STILE__SCAN_BUSY && k < BUSY_TRIES; k++) {
            stile__raw_sleep_ns(BUSY_NS);
            scan = stile__scan_begin(&slot->status, seen);
        }
        return scan == STILE__SCAN_TAKEN ? slot : NULL;
    }
    return NULL;
}

/* The chain of blocks that a record names. */
struct chain {
    struct stile__region *r;
    const struct stile__session *s;
    uint32_t first;
    uint64_t start, len; /* of the stack that is copied there */
};

/* The bytes at an offset into a chain, whose length is bounded by the number of blocks. NULL: beyond it. */
static const uint8_t *chain_at(const struct chain *c, uint64_t offset)
{
    uint32_t block = c->first;
    for (uint32_t k = 0; block < c->s->size.block_max && k <= STILE__SNAPSHOT_MAX / STILE__BLOCK_DATA; k++) {
        const struct stile__block *b = stile__region_block(c->r, c->s->size, block);
        if (offset + sizeof(uint64_t) <= STILE__BLOCK_DATA)
            return b->data + offset;
        if (offset < STILE__BLOCK_DATA)
            return NULL; /* words are aligned, and so are blocks */
        offset -= STILE__BLOCK_DATA;
        block = b->next;
    }
    return NULL;
}

static bool copy_read(void *arg, uint64_t address, uint64_t *word)
{
    const struct chain *c = arg;
    const uint64_t offset = address - c->start;
    if (address < c->start || offset + sizeof *word > c->len || address % sizeof *word != 0)
        return false;
    const uint8_t *at = chain_at(c, offset);
    if (at == NULL)
        return false;
    __builtin_memcpy(word, at, sizeof *word);
    return true;
}

/* From DWARF's order to the kernel's. */
static void registers_turn(const uint64_t *dwarf, uint64_t *regs)
{
    static const uint8_t kernel[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                     REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                     REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    for (unsigned i = 0; i < NGREG; i++)
        regs[i] = 0;
    for (unsigned i = 0; i < STILE__REG_COUNT; i++)
        regs[kernel[i]] = dwarf[i];
}

void stile__left_put(struct stile__text *t, const struct stile__session *s, struct stile__region *r,
                     const struct stile__slot *slot)
{
    static struct stile__frames frames;
    const uint32_t i = (uint32_t)(slot - stile__region_slot(r, 0));
    const struct stile__record *record = &stile__session_left(s, r, i)->record;
    const uint32_t room = (STILE__LEFT_CELLS - 1) * STILE__CELL_BYTES / sizeof(uint64_t);
    const uint32_t n = record->n_inline < room ? record->n_inline : room;

    for (uint32_t k = 0; k < n; k++)
        stile__report_frame(t, k, record->words[k]);
    if (record->kind == STILE__RECORD_SNAPSHOT && record->frames_block == STILE__BLOCK_NONE &&
        n + STILE__REG_COUNT <= room) {
        struct chain c = {
            .r = r, .s = s, .first = record->block, .start = record->stack_start, .len = record->stack_len};
        uint64_t regs[NGREG];
        registers_turn(record->words + n, regs);
        stile__frames_walk(&frames, regs, copy_read, &c);
        stile__report_frames(t, &frames, n);
    } else if (record->n_new > n) {
        stile__text(t, "  ... ");
        stile__text_decimal(t, record->n_new - n);
        stile__text(t, " frames more ...\n");
    }
}
