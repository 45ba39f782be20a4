/* See barrier_world.h. */
#include "tests/unit/signal/barrier_world.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "barriers/stack_lock.h"
#include "tests/unit/support.h"

struct world world;

static const struct stile__region_size size_made = {4, 256, STILE__RING_CELLS_MAX, 2048, 0, 0};

void world_begin(enum stile__barriers_wish wish)
{
    static uint64_t sessions;
    struct stile__thread *t = &stile__thread;
    memset(&world, 0, sizeof world);
    world.region = mmap(NULL, stile__region_layout(size_made).size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(world.region != MAP_FAILED);
    world.region->size = size_made;
    world.region->debug = STILE__DEBUG_OWNERSHIP;
    world.region->start_mono_ns = ++sessions << 30;
    atomic_store(&world.region->blocks_ready, size_made.block_max);
    atomic_store(&world.region->barriers_state, STILE__BARRIERS_GO);
    stile__session_size_set(&world.session, size_made);
    world.session.depth = STILE__DEPTH_MAX;
    world.session.period_ns = 1000;
    world.session.tick_ns = 4000;
    world.session.barriers = wish;
    world.session.signal = SIGPROF;
    atomic_store(&world.session.region, world.region);
    world.slot = stile__region_slot(world.region, 0);
    atomic_store(&world.slot->state, STILE__SLOT_LIVE);
    atomic_store(&world.slot->tid, (uint32_t)gettid());
    stile__stack_begin(&world.slot->status);
    t->slot = world.slot;
    t->region = world.region;
    t->id = (100 + sessions) << 32;
    atomic_store(&t->slot->generation, (uint32_t)(100 + sessions));
    t->tid = (uint32_t)gettid();
    t->stack_read = 0;
    memset(&t->barriers, 0, sizeof t->barriers);
    stile__session = &world.session;
}

void world_barriers_remove(void)
{
    stile__stack_lock(&world.slot->stack_lock, stile__thread.tid);
    stile__thread_barriers_remove(&stile__thread, world.region);
    stile__stack_unlock(&world.slot->stack_lock);
}

void world_end(void)
{
    struct stile__thread *t = &stile__thread;
    world_barriers_remove();
    stile__barriers_give_back(&t->barriers);
    t->slot = NULL;
    t->region = NULL;
    stile__session = NULL;
    munmap(world.region, stile__region_layout(size_made).size);
    world.region = NULL;
}

struct stile__barrier_counts *world_counts(void)
{
    return &stile__session_memo(&world.session, world.region, 0)->barriers;
}

static void record_take(const struct stile__record *r)
{
    uint32_t block = r->frames_block, at = 0;
    world.record = *r;
    world.n = 0;
    world.kept = r->kept;
    world.told = (r->flags & STILE__IS_BASE) != 0;
    if (r->n_new + r->kept > WORLD_FRAMES || r->kept > world.n_base) {
        world.broken = "more frames are kept than there are";
        return;
    }
    for (; world.n < r->n_inline; world.n++)
        world.frames[world.n] = r->words[world.n];
    for (; world.n < r->n_new; world.n++, at++) {
        if (at == STILE__BLOCK_DATA / 8) {
            block = stile__region_block(world.region, size_made, block)->next;
            at = 0;
        }
        const struct stile__block *b = stile__region_block(world.region, size_made, block);
        world.frames[world.n] = ((const uint64_t *)(const void *)b->data)[at];
    }
    for (uint32_t i = r->kept; i > 0; i--)
        world.frames[world.n++] = world.base[i - 1];
    if (!world.told) {
        if (r->kept != 0 && (r->kind != STILE__RECORD_SNAPSHOT || r->n_barriers == 0))
            world.broken = "frames are kept by what is no base, and no snapshot that ends at a barrier";
        return;
    }
    for (uint32_t i = r->kept; i < world.n; i++)
        world.base[i] = world.frames[world.n - 1 - i];
    world.n_base = world.n;
}

void world_tick(const struct stile__place *at)
{
    const struct stile__tick tick = {.ticks = 1};
    world.told = false;
    stile__tick_take(&world.session, world.region, &stile__thread, at, &tick);
    uint64_t head = atomic_load(&world.slot->head), tail = atomic_load(&world.slot->tail);
    const struct stile__cell *ring = stile__region_ring(world.region, size_made, 0);
    while (tail != head) {
        const struct stile__record *r = (const void *)&ring[tail % size_made.ring_cells];
        if (r->kind != STILE__RECORD_PAD)
            record_take(r);
        tail += r->cells;
    }
    atomic_store(&world.slot->tail, tail);
    for (uint32_t i = 0; i < size_made.block_max / 64; i++)
        atomic_store(&world.region->blocks_used[i], 0);
}
