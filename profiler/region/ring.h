/* One single-producer, single-consumer ring per thread: the thread's SIGPROF handler writes, the collector drains.
 *
 *   handler (producer)                         collector (consumer)
 *   ------------------                         --------------------
 *   (A) load tail, acquire                     (C) load head, acquire
 *       fill cells [head, head + n)                read cells [tail, head)
 *   (B) store head, release                    (D) store tail, release
 *
 *   B pairs with C: a record is read only after it was written whole.
 *   D pairs with A: a cell is overwritten only after it was read.
 *
 * head and tail count cells and never wrap back; their difference is at most the ring's size in cells. A record lies in
 * adjacent cells; where it would cross the end, a pad record fills the rest. The handler never waits: a record
 * that does not fit is added to the thread's lost counters instead. */
#ifndef STILE_REGION_RING_H
#define STILE_REGION_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/region/record.h"

#define STILE__CELL_BYTES     64u
#define STILE__RING_CELLS_MIN 128u  /* also the longest record */
#define STILE__RING_CELLS_MAX 8192u /* at the highest rate about 40 ms of samples, 50 frames deep */
#define STILE__RECORD_BYTES   (STILE__CELL_BYTES * STILE__RING_CELLS_MIN)

struct stile__cell {
    _Alignas(STILE__CELL_BYTES) uint8_t bytes[STILE__CELL_BYTES];
};

/* Cells that a record with n_words trailing words takes. */
static inline uint32_t stile__record_cells(uint32_t n_words)
{
    return (uint32_t)((sizeof(struct stile__record) + n_words * sizeof(uint64_t) + STILE__CELL_BYTES - 1) /
                      STILE__CELL_BYTES);
}

/* Reserves, in a ring of ring_cells (a power of two), `cells` adjacent cells for one record and returns it with `cells`
 * and a kind set, or NULL when there is no room. Producer only; async-signal-safe. *commit is what stile__ring_commit
 * stores to publish it. */
static inline struct stile__record *stile__ring_reserve(struct stile__cell *ring, uint32_t ring_cells,
                                                        _Atomic uint64_t *head, _Atomic uint64_t *tail,
                                                        uint32_t cells, uint64_t *commit)
{
    uint64_t h = atomic_load_explicit(head, memory_order_relaxed); /* own word */
    uint64_t t = atomic_load_explicit(tail, memory_order_acquire); /* A, pairs with D */
    uint32_t at = (uint32_t)(h & (ring_cells - 1));
    uint32_t pad = at + cells > ring_cells ? ring_cells - at : 0;

    if (cells > STILE__RING_CELLS_MIN || h - t > ring_cells || h + pad + cells - t > ring_cells)
        return NULL;
    if (pad != 0) {
        struct stile__record *p = (struct stile__record *)(void *)&ring[at];
        p->cells = (uint8_t)pad;
        p->kind = STILE__RECORD_PAD;
        at = 0;
    }
    struct stile__record *r = (struct stile__record *)(void *)&ring[at];
    r->cells = (uint8_t)cells;
    r->kind = STILE__RECORD_WALKED;
    *commit = h + pad + cells;
    return r;
}

/* Gives back what the record does not need, once that is known. */
static inline void stile__ring_shrink(struct stile__record *r, uint32_t n_words, uint64_t *commit)
{
    uint32_t cells = stile__record_cells(n_words);
    *commit -= r->cells - cells;
    r->cells = (uint8_t)cells;
}

/* Publishes what was reserved. Producer only; async-signal-safe. */
static inline void stile__ring_commit(_Atomic uint64_t *head, uint64_t commit)
{
    atomic_store_explicit(head, commit, memory_order_release); /* B, pairs with C */
}

#endif
