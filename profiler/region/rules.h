/* Unwind rules: what the collector has learned from CFI, in the form that the handler walks by. Part of the region.
 *
 * A rule says, for a range of code, how to get from a frame to its caller's. The table is a map from addresses to rules,
 * like a page table of two levels:
 *
 *   chunks[]   256 KiB of the address space each: a hash by address, holding the number of a page of the arena
 *   page       one word for each 256 bytes of the chunk (a block): where the block's rows lie, and how many
 *   rows       first byte within the block, and number of the rule, ascending by the byte; the first has byte 0
 *   kinds[]    the rules by number
 *
 * Invariants
 *  - A block is learned whole or not at all: its word is 0, or all its rows are right.
 *  - Written by the collector only. What a word points to is written before the word: a release that the handler's
 *    acquire pairs with. Rows and rules never change once they are written; a block's word goes back to 0 when the
 *    code goes.
 *  - Pages are populated by the collector before they are pointed to, so that a read cannot fault.
 *  - The handler believes no number in it: whatever is here, it reads inside the table, and on its own stack.
 *
 * An unloaded library. `unloads` counts them, by the agent in dlclose and by the collector when it sees one gone;
 * `rules_unloads` is that count as of which the table is right. While they differ, or somebody is in dlclose, no rule is
 * used. What lies on a thread's stack cannot be unloaded, so a walk under way needs no protection. */
#ifndef STILE_REGION_RULES_H
#define STILE_REGION_RULES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define STILE__RULES_BLOCK_BITS 8u  /* of an address: the byte in a block */
#define STILE__RULES_CHUNK_BITS 18u /* the byte in a chunk */
#define STILE__RULES_PAGE_WORDS (1u << (STILE__RULES_CHUNK_BITS - STILE__RULES_BLOCK_BITS))
#define STILE__RULES_CHUNKS     1024u  /* 256 MiB of code that is used */
#define STILE__RULES_PROBES     16u    /* chunks looked at for an address */
#define STILE__RULES_KINDS      16384u /* different rules; cc1plus has about a thousand */
#define STILE__RULES_PAGES_MAX  4096u  /* of the arena: 16 MiB */
#define STILE__RULES_ROWS_MAX   255u   /* of a block */

enum stile__rule_op {
    STILE__RULE_NONE,          /* not known */
    STILE__RULE_RSP,           /* CFA = rsp + offset */
    STILE__RULE_RBP,           /* CFA = rbp + offset */
    STILE__RULE_DEREF_RSP,     /* CFA = *(rsp + offset) + 8 * extra */
    STILE__RULE_DEREF_RBP,     /* CFA = *(rbp + offset) + 8 * extra */
    STILE__RULE_REGISTER,      /* CFA = register `extra` + offset: known in the interrupted frame only */
    STILE__RULE_PLT,           /* CFA = rsp + 8, and 8 more from byte `extra` of the entry's 16 on */
    STILE__RULE_SIGNAL,        /* the interrupted registers lie in the kernel's signal frame at rsp */
    STILE__RULE_FRAME_POINTER, /* no CFI: rbp points to the saved rbp, below the return address */
    STILE__RULE_END,           /* the outermost frame */
    STILE__RULE_OTHER,         /* there is CFI, but it takes more than this: libunwind's */
    STILE__RULE_OPS
};

/* A rule in one word: op in bits 0-3, STILE__RULE_AT_BASE in bit 4, STILE__RULE_READS_RA in bit 5, extra in 8-15 (signed), saved in 16-31 (signed),
 * offset in 32-63 (signed). The return address lies at CFA - 8. saved: where the caller's rbp lies, in words from
 * the CFA; 0: rbp is still the caller's; STILE__RULE_LOST: it cannot be had. */
#define STILE__RULE_AT_BASE 16u /* saved counts from the word before rbp, not from the CFA: rbp's own is 1 */
#define STILE__RULE_LOST    INT16_MIN
#define STILE__RULE_READS_RA                                                                                 \
    32u /* the function may read its own return address: no barrier may stand there */

static inline uint64_t stile__rule_make(enum stile__rule_op op, int32_t offset, int16_t saved, int8_t extra)
{
    return (uint64_t)op | (uint64_t)(uint8_t)extra << 8 | (uint64_t)(uint16_t)saved << 16 |
           (uint64_t)(uint32_t)offset << 32;
}
static inline enum stile__rule_op stile__rule_op(uint64_t rule)
{
    return (enum stile__rule_op)(rule & 15);
}
/* The op of a plain rule, which has nothing else there that a walk need know. */
static inline unsigned stile__rule_plain(uint64_t rule)
{
    return (unsigned)rule & (0xffu & ~STILE__RULE_READS_RA);
}
static inline int8_t stile__rule_extra(uint64_t rule)
{
    return (int8_t)(rule >> 8);
}
static inline int16_t stile__rule_saved(uint64_t rule)
{
    return (int16_t)(rule >> 16);
}
static inline int32_t stile__rule_offset(uint64_t rule)
{
    return (int32_t)(rule >> 32);
}

struct stile__rules {
    /* (address >> STILE__RULES_CHUNK_BITS) << 16 | page of the arena; 0: free. Never changes back. Page 0 is not used. */
    _Atomic uint64_t chunks[STILE__RULES_CHUNKS];
    uint64_t kinds[STILE__RULES_KINDS]; /* number 0: STILE__RULE_NONE */
    /* Pages for chunks, whose words are row index << 8 | rows, and for rows, which are byte << 24 | number of the rule. */
    _Atomic uint32_t arena[][STILE__RULES_PAGE_WORDS];
};

static inline uint64_t stile__rules_bytes(uint32_t pages)
{
    return pages != 0 ? sizeof(struct stile__rules) + (uint64_t)pages * STILE__RULES_PAGE_WORDS * 4 : 0;
}

/* Where to look first for a chunk. Neighbours go to neighbours. */
static inline uint32_t stile__rules_hash(uint64_t chunk)
{
    return (uint32_t)(chunk ^ chunk >> 12) % STILE__RULES_CHUNKS;
}

/* The word of the block that has an address, or NULL if its chunk is not known. Async-signal-safe. */
static inline _Atomic uint32_t *stile__rules_block(struct stile__rules *t, uint32_t pages, uint64_t address)
{
    uint64_t chunk = address >> STILE__RULES_CHUNK_BITS;
    uint32_t h = stile__rules_hash(chunk);
    for (uint32_t k = 0; k < STILE__RULES_PROBES; k++) {
        /* Acquire pairs with chunk_add's release: the page is there, and zero or written. */
        uint64_t c = atomic_load_explicit(&t->chunks[(h + k) % STILE__RULES_CHUNKS], memory_order_acquire);
        if (c == 0)
            return NULL;
        if (c >> 16 == chunk)
            return (c & 0xffff) < pages ? &t->arena[c & 0xffff][address >> STILE__RULES_BLOCK_BITS &
                                                                (STILE__RULES_PAGE_WORDS - 1)]
                                        : NULL;
    }
    return NULL;
}

/* The rule for an address, as it stands in the table, or 0. Async-signal-safe. */
static inline uint64_t stile__rules_find(struct stile__rules *t, uint32_t pages, uint64_t address)
{
    const _Atomic uint32_t *block = stile__rules_block(t, pages, address);
    if (block == NULL)
        return 0;
    /* Acquire pairs with block_publish's release: the rows are there. */
    uint32_t word = atomic_load_explicit(block, memory_order_acquire);
    uint32_t first = word >> 8, n = word & 0xff, byte = address & ((1u << STILE__RULES_BLOCK_BITS) - 1);
    if (n == 0 || (uint64_t)first + n > (uint64_t)pages * STILE__RULES_PAGE_WORDS)
        return 0;
    const _Atomic uint32_t *rows = &t->arena[0][0] + first;
    uint32_t number = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = atomic_load_explicit(&rows[i], memory_order_relaxed);
        if (row >> 24 > byte)
            break;
        number = row & 0xffffff;
    }
    return number < STILE__RULES_KINDS ? t->kinds[number] : 0;
}

/* The state of unloading, one word that both sides change by read-modify-write: libraries unloaded so far << 12 | threads
 * that are in dlclose. */
#define STILE__UNLOADS_ONE  4096u
#define STILE__UNLOADS_MASK (UINT32_MAX / STILE__UNLOADS_ONE) /* of a count, which goes round */

/* Whether a count is beyond another one. */
static inline bool stile__unloads_beyond(uint32_t unloads, uint32_t other)
{
    return ((unloads - other) & STILE__UNLOADS_MASK) - 1 < STILE__UNLOADS_MASK / 2;
}
#define STILE__RULES_NONE UINT32_MAX /* of rules_unloads: there is no table yet */

/* Whether the table may be used: nobody is unloading, and it knows of all that were. */
static inline bool stile__rules_fresh(uint32_t unloads, uint32_t rules_unloads)
{
    return (unloads & (STILE__UNLOADS_ONE - 1)) == 0 && unloads / STILE__UNLOADS_ONE == rules_unloads;
}

#endif
