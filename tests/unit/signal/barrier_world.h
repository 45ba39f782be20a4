/* A session without a collector, for tests of barriers in the handler: what it publishes is taken from the ring at once and
 * put together as record.h says, so that a tick tells a whole stack. */
#ifndef STILE_TESTS_UNIT_SIGNAL_BARRIER_WORLD_H
#define STILE_TESTS_UNIT_SIGNAL_BARRIER_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/agent/signal/handler.h"

#define WORLD_FRAMES 40000u

struct world {
    struct stile__session session;
    struct stile__region *region;
    struct stile__slot *slot;
    /* The last tick. */
    uint64_t frames[WORLD_FRAMES]; /* leaf first */
    uint32_t n, kept;
    struct stile__record record; /* without what follows it */
    bool told;                   /* frames has the whole stack */
    /* The last base, root first. */
    uint64_t base[WORLD_FRAMES];
    uint32_t n_base;
    const char *broken; /* what a record said that cannot be, or NULL */
};
extern struct world world;

/* The calling thread gets the slot; its stack's bounds are the caller's business. */
void world_begin(enum stile__barriers_wish wish);
/* Its barriers go, and their stubs. */
void world_end(void);

/* Takes this thread's barriers off, under its stack's lock. Async-signal-safe. */
void world_barriers_remove(void);

/* Takes one tick of this thread and looks at what was published. Async-signal-safe. */
void world_tick(const struct stile__place *at);

struct stile__barrier_counts *world_counts(void);

#endif
