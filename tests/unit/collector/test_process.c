/* collector/process.c and drain.c: ticks arrive, counters add up, and no scribbling in the region does harm. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "profiler/agent/region_make.h"

static struct hand_made h;

static int set_up(void **state)
{
    (void)state;
    hand_made_new(&h);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    return 0;
}

static uint64_t code(void)
{
    return (uintptr_t)&code;
}

static void test_ticks_arrive(void **state)
{
    const struct call_tree *t = &h.process->tree;
    uint64_t frames[] = {code(), code() + 3, 0x123};

    (void)state;
    hand_made_tick(&h, frames, 3, STILE__REASON_NONE, 2);
    hand_made_tick(&h, frames, 3, STILE__REASON_NONE, 5);
    hand_made_tick(&h, frames, 1, STILE__REASON_STACK_LOCKED, 1);
    process_drain(h.process);
    assert_null(h.process->damage);
    assert_int_equal(atomic_load(&h.slot->tail), atomic_load(&h.slot->head));
    assert_int_equal(h.process->ticks, 8);
    assert_int_equal(h.process->cpu_ns, 80000000);
    assert_int_equal(h.process->reason_ticks[STILE__REASON_STACK_LOCKED], 1);
    assert_int_equal(h.process->reason_ns[STILE__REASON_STACK_LOCKED], 10000000);
    assert_int_equal(h.process->n_threads, 1);
    assert_int_equal(h.process->threads[0].tid, gettid());

    assert_int_equal(t->n_samples, 2);
    assert_int_equal(t->samples[0].ticks, 7);
    assert_int_equal(t->samples[0].ns, 70000000);
    uint32_t node = t->samples[0].node;
    assert_int_equal(t->nodes[node].address, frames[0]);
    assert_int_equal(t->nodes[node].mapping, mappings_find(&h.process->mappings, code()));
    node = t->nodes[node].parent;
    assert_int_equal(t->nodes[node].address, frames[1]);
    node = t->nodes[node].parent;
    assert_int_equal(t->nodes[node].address, 0x123);
    assert_int_equal(t->nodes[node].mapping, MAPPING_NONE);
    assert_int_equal(t->nodes[node].parent, CALL_TREE_ROOT);
    node = t->nodes[t->samples[1].node].parent;
    assert_int_equal(t->nodes[node].mapping, CALL_TREE_REASON);
    assert_int_equal(t->nodes[node].address, STILE__REASON_STACK_LOCKED);
}

static void test_a_ring_goes_round(void **state)
{
    uint64_t frames[40];
    (void)state;
    for (int i = 0; i < 40; i++)
        frames[i] = code() + (uint64_t)i;
    for (uint32_t i = 0; i < 1000; i++) {
        hand_made_tick(&h, frames, i % 41, STILE__REASON_NONE, 1);
        if (i % 8 == 7)
            process_drain(h.process);
    }
    process_drain(h.process);
    assert_null(h.process->damage);
    assert_int_equal(h.process->ticks, 1000);
}

static void test_counters(void **state)
{
    (void)state;
    atomic_store(&h.slot->signals, 10);
    atomic_store(&h.slot->lost_ticks, 4);
    atomic_store(&h.slot->lost_ns, 40000000);
    process_drain(h.process);
    process_drain(h.process); /* what was taken is not taken again */
    assert_int_equal(h.process->signals, 10);
    assert_int_equal(h.process->reason_ticks[STILE__REASON_BUFFER_FULL], 4);
    assert_int_equal(h.process->cpu_ns, 40000000);
    atomic_store(&h.slot->signals, 13);
    atomic_store(&h.slot->lost_ticks, 5);
    atomic_store(&h.slot->lost_ns, 50000000);
    process_drain(h.process);
    assert_int_equal(h.process->signals, 13);
    assert_int_equal(h.process->reason_ticks[STILE__REASON_BUFFER_FULL], 5);
    assert_int_equal(h.process->ticks, 5);
    assert_int_equal(h.process->cpu_ns, 50000000);
}

/* More ticks than their weight is worth are not believed. */
static void test_counters_that_cannot_be(void **state)
{
    (void)state;
    atomic_store(&h.slot->signals, 1);
    atomic_store(&h.slot->lost_ticks, UINT64_MAX / 2 + 3);
    atomic_store(&h.slot->lost_ns, 30000000);
    process_drain(h.process);
    assert_int_equal(h.process->ticks, 3);
    assert_int_equal(h.process->cpu_ns, 30000000);
}

/* What became of barriers, by thread: taken once, and from zero for the next thread of the slot. */
static void test_barrier_counts(void **state)
{
    const struct barrier_totals *b = &h.process->barrier_totals;
    struct stile__barrier_counts *c = &stile__region_memo(h.region, h.process->size, 0)->barriers;
    (void)state;
    atomic_store(&h.slot->signals, 1);
    atomic_store(&c->placed, 10);
    process_drain(h.process);
    assert_int_equal(b->placed, 0); /* there are none */
    h.process->barriers = STILE__BARRIERS_ON;
    atomic_store(&c->hit, 5);
    atomic_store(&c->retired, 3);
    atomic_store(&c->restored, 2);
    process_drain(h.process);
    process_drain(h.process);
    assert_int_equal(b->placed, 10);
    assert_int_equal(b->hit, 5);
    assert_int_equal(b->retired, 3);
    assert_int_equal(b->restored, 2);
    atomic_store(&c->placed, 11);
    atomic_store(&c->restored, 3);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(h.process);
    assert_int_equal(b->placed, 11);
    assert_int_equal(b->restored, 3);
    atomic_store(&h.slot->generation, 2);
    atomic_store(&c->placed, 4);
    atomic_store(&c->hit, 0);
    atomic_store(&c->retired, 0);
    atomic_store(&c->restored, 1);
    atomic_store(&h.slot->state, STILE__SLOT_LIVE);
    process_drain(h.process);
    assert_int_equal(b->placed, 15);
    assert_int_equal(b->hit, 5);
    assert_int_equal(b->retired, 3);
    assert_int_equal(b->restored, 4);
}

/* A program that says it used more time than it did is not believed. */
static void test_more_time_than_there_is(void **state)
{
    (void)state;
    h.process->start_cpu_ns = 0;
    h.process->used_cpu_ns = 4000000000;
    h.process->used_read_ns = now_mono_ns();
    atomic_store(&h.slot->signals, 10);
    atomic_store(&h.slot->lost_ticks, 100);
    atomic_store(&h.slot->lost_ns, 1000000000);
    process_drain(h.process);
    assert_null(h.process->damage);
    assert_int_equal(h.process->cpu_ns, 1000000000);
    atomic_store(&h.slot->lost_ns, 30000000000);
    process_drain(h.process);
    assert_non_null(h.process->damage);
    assert_int_equal(h.process->cpu_ns, 1000000000);
}

static void test_a_slot_used_again(void **state)
{
    uint64_t frame = code();
    (void)state;
    atomic_store(&h.slot->tid, 0x3ffffff0); /* that thread is gone: its name is what it left */
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    memcpy(h.slot->comm, "sixteen letters!", 16); /* without a NUL */
    atomic_store(&h.slot->signals, 1);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(h.process);
    assert_int_equal(atomic_load(&h.slot->state), STILE__SLOT_FREE);
    assert_string_equal(h.process->threads[0].comm, "sixteen letters!");
    process_drain(h.process);
    assert_int_equal(h.process->ticks, 1);

    atomic_store(&h.slot->generation, 2);
    atomic_store(&h.slot->tid, 77);
    atomic_store(&h.slot->signals, 0);
    atomic_store(&h.slot->state, STILE__SLOT_LIVE);
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    atomic_store(&h.slot->signals, 1);
    process_drain(h.process);
    assert_int_equal(h.process->n_threads, 2);
    assert_int_equal(h.process->threads[1].tid, 77);
    assert_int_equal(h.process->tree.n_samples, 2); /* the same stack, another thread */
    assert_int_equal(h.process->signals, 2);
}

/* Gives slot 0 a snapshot record whose stack is all zeros. */
static void snapshot(uint32_t block, uint32_t len)
{
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(&h, STILE__REG_COUNT, &commit);
    memset(r->words, 0, STILE__REG_COUNT * sizeof *r->words);
    r->words[STILE__REG_RIP] = code();
    r->words[STILE__REG_RSP] = r->stack_start = 0x7000;
    r->kind = STILE__RECORD_SNAPSHOT;
    r->block = block;
    r->stack_len = len;
    stile__ring_commit(&h.slot->head, commit);
}

static void test_snapshots(void **state)
{
    (void)state;
    uint32_t ready = atomic_load(&h.region->blocks_ready);
    assert_true(ready >= 16 && ready <= h.region->size.block_max); /* the collector has made some more */
    struct stile__block *b = stile__region_block(h.region, h.process->size, 3);
    b->next = 9;
    b->used = STILE__BLOCK_DATA;
    b = stile__region_block(h.region, h.process->size, 9);
    b->next = STILE__BLOCK_NONE;
    b->used = 100;
    atomic_store(&h.region->blocks_used[0], 1ull << 3 | 1ull << 9 | 1ull << 20);
    snapshot(3, STILE__BLOCK_DATA + 100);
    process_drain(h.process);
    assert_null(h.process->damage);
    assert_int_equal(h.process->ticks, 1);
    assert_int_equal(atomic_load(&h.region->blocks_used[0]), 1ull << 20); /* given back, and no other */
}

static void test_the_pool_grows(void **state)
{
    (void)state;
    uint32_t ready = atomic_load(&h.region->blocks_ready);
    atomic_fetch_add(&h.region->blocks_short, 1);
    process_drain(h.process);
    assert_int_equal(atomic_load(&h.region->blocks_ready), 2 * ready);
    process_drain(h.process);
    assert_int_equal(atomic_load(&h.region->blocks_ready), 2 * ready);
    process_blocks_grow(h.process, UINT32_MAX);
    assert_int_equal(atomic_load(&h.region->blocks_ready), h.region->size.block_max);
}

static void test_cyclic_blocks(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct stile__block *b = stile__region_block(h.region, h.process->size, i);
        b->next = (i + 1) % 3;
        b->used = i == 1 ? 0 : UINT32_MAX;
    }
    struct stile__block *full = stile__region_block(h.region, h.process->size, 5);
    full->next = 5; /* more bytes than a snapshot may have, if nobody counts */
    full->used = STILE__BLOCK_DATA;
    snapshot(0, STILE__SNAPSHOT_MAX);
    snapshot(1, 10);
    snapshot(5, STILE__SNAPSHOT_MAX);
    process_drain(h.process); /* ends */
    assert_null(h.process->damage);
    assert_int_equal(h.process->ticks, 3);
}

static void damaged(const char *why)
{
    process_drain(h.process);
    assert_non_null(h.process->damage);
    if (why != NULL)
        assert_string_equal(h.process->damage, why);
    uint64_t ticks = h.process->ticks;
    process_drain(h.process); /* not looked at again */
    process_end(h.process);
    assert_int_equal(h.process->state, PROCESS_ENDED);
    assert_int_equal(h.process->ticks, ticks);
}

static void test_damaged_head(void **state)
{
    (void)state;
    atomic_store(&h.slot->head, h.process->size.ring_cells + 1);
    damaged("a ring holds more than it can");
}

static void test_head_behind_tail(void **state)
{
    (void)state;
    atomic_store(&h.slot->tail, 5);
    atomic_store(&h.slot->head, 4);
    damaged("a ring holds more than it can");
}

static void test_damaged_record(void **state)
{
    uint64_t frame = code(), commit;
    (void)state;
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    struct stile__record *r = hand_made_reserve(&h, 1, &commit);
    r->n_new = r->n_inline = 1000;
    stile__ring_commit(&h.slot->head, commit);
    damaged("a record's frames exceed it");
    assert_int_equal(h.process->ticks, 1); /* what came before it counts */
}

static void test_too_many_slots(void **state)
{
    (void)state;
    atomic_store(&h.region->slots_used, h.process->size.slot_max + 1);
    damaged("more thread slots are in use than there are");
}

static void test_limits_are_kept_not_read_again(void **state)
{
    (void)state;
    h.region->size.slot_max = 0x7fffffff;
    h.region->size.block_max = 0x7fffffff;
    snapshot(STILE__BLOCK_MAX, 10);
    damaged("a record's snapshot is out of range");
    h.region->size.slot_max = h.process->size.slot_max; /* for its unmapping */
    h.region->size.block_max = h.process->size.block_max;
}

static void test_nonsense_weights(void **state)
{
    uint64_t frame = code();
    (void)state;
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, UINT32_MAX);
    atomic_store(&h.slot->signals, 1);
    atomic_store(&h.slot->lost_ns, UINT64_MAX / 2);
    process_drain(h.process);
    assert_true(h.process->cpu_ns <= 3600ull * 1000000000u);
}

/* The program writes anywhere: the header but its constants, slots, rings, blocks and texts. */
static void scribble(uint64_t *numbers)
{
    uint32_t slots = h.process->size.slot_max;
    static const uint64_t interesting[] = {0, 1, 2, 127, 128, 129, UINT32_MAX, UINT64_MAX, 4096, 1ull << 63};
    for (unsigned k = 0; k < 12; k++) {
        uint64_t pick = next_number(numbers), value = next_number(numbers) >> next_number(numbers) % 64;
        uint8_t *base;
        size_t size;
        if (pick & 1)
            value = interesting[value % (sizeof interesting / sizeof *interesting)];
        switch (pick / 2 % 8) {
        case 0: /* the header, past what determines the layout */
            base = (uint8_t *)h.region + offsetof(struct stile__region, modules_len) - 4;
            size = 1024;
            break;
        case 1:
            base = (uint8_t *)stile__region_modules(h.region);
            size = 256;
            atomic_store(&h.region->modules_len, (uint32_t)(pick >> 20) % 300);
            break;
        case 2:
        case 3:
            base = (uint8_t *)stile__region_slot(h.region, 0);
            size = 4 * sizeof(struct stile__slot);
            break;
        case 4:
            base = (uint8_t *)stile__region_block(h.region, h.process->size, (uint32_t)(pick >> 20) % 4);
            size = pick & 1u << 24 ? 16 : 2048;
            break;
        default:
            base = (uint8_t *)stile__region_ring(h.region, h.process->size, (uint32_t)(pick >> 20) % 4);
            size = pick & 1u << 24 ? 64 : STILE__RECORD_BYTES;
        }
        memcpy(base + (pick >> 32) % (size / 4) * 4, &value, pick & 1u << 25 ? 4 : 8);
    }
    uint32_t used = atomic_load(&h.region->slots_used);
    if (used > 4 && used <= slots) /* the collector may look at 16 384 slots; not every time */
        atomic_store(&h.region->slots_used, used % 5);
}

static void test_scribbling(void **state)
{
    uint64_t numbers = 10;
    unsigned survived = 0;
    (void)state;
    h.process->stubs = (struct stubs){code() - 1000, code()};
    h.process->barriers = STILE__BARRIERS_ALL;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 2000u : 10000u); round++) {
        for (uint32_t i = 0; i < 4; i++) {
            struct stile__slot *slot = stile__region_slot(h.region, i);
            uint64_t commit, n = next_number(&numbers) % 30;
            atomic_store(&slot->head, 120);
            atomic_store(&slot->tail, 120);
            atomic_store(&slot->state, STILE__SLOT_LIVE + next_number(&numbers) % 2);
            struct stile__record *r = stile__ring_reserve(
                stile__region_ring(h.region, h.process->size, i), stile__slot_cells(h.process->size, i),
                &slot->head, &slot->tail, stile__record_cells((uint32_t)n + STILE__REG_COUNT), &commit);
            if (r == NULL)
                abort();
            fill_random(&r->n_new, 60, &numbers);
            r->n_new = r->n_inline = (uint32_t)n;
            r->frames_block = i;
            r->n_new += next_number(&numbers) % 3 * 2000; /* some go on in blocks */
            r->kind = i < 2 ? STILE__RECORD_SNAPSHOT + next_number(&numbers) % 2 : STILE__RECORD_WALKED;
            r->unloads = 0;
            r->reason = 0;
            r->block = i < 2 ? i : STILE__BLOCK_NONE;
            r->stack_len %= STILE__SNAPSHOT_MAX + 1;
            r->kept = next_number(&numbers) % 2 == 0 ? r->kept % 64 : 0; /* of what other rounds have left */
            r->flags = (uint8_t)next_number(&numbers) & (STILE__IN_KERNEL | STILE__IS_BASE);
            r->n_barriers = i < 2 ? r->n_barriers % (STILE__STUBS + 1) : 0;
            stile__ring_commit(&slot->head, commit);
        }
        atomic_store(&h.region->slots_used, 4);
        scribble(&numbers);
        process_drain(h.process);
        if (round % 50 == 0)
            process_maps_refresh(h.process);
        survived += h.process->damage == NULL;
        h.process->damage = NULL;
    }
    assert_true(survived > 100); /* otherwise little was looked at */
    assert_true(h.process->ticks > 0);
}

static void test_regions_that_cannot_be(void **state)
{
    static struct stile__hello hello;
    unsigned before = count_descriptors();
    const char *why = NULL;
    struct stile__region *region;
    int fd, fds[STILE__HELLO_FDS];

    (void)state;
    assert_int_equal(stile__region_make(&region, &fd, 100, false, false), 0); /* without a rate */
    hand_made_descriptors(fd, fds);
    assert_null(process_new(&hello, fds, getpid(), &why));
    assert_string_equal(why, "the region's sampling rate is out of range");
    region->hz = 1;
    region->period_ns = 1;
    region->depth = 1;
    region->barriers = STILE__BARRIERS_WISHES;
    hand_made_descriptors(fd, fds);
    assert_null(process_new(&hello, fds, getpid(), &why));
    assert_string_equal(why, "the region's wish for barriers is out of range");
    region->magic++;
    hand_made_descriptors(fd, fds);
    assert_null(process_new(&hello, fds, getpid(), &why));
    assert_string_equal(why, "the region has not our magic number");
    stile__region_unmake(region);
    close(fd);
    fd = memfd_create("small", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 100), 0);
    hand_made_descriptors(fd, fds);
    assert_null(process_new(&hello, fds, getpid(), &why));
    assert_string_equal(why, "the region is smaller than its header");
    close(fd);
    assert_int_equal(count_descriptors(), before);
}

static void test_answers(void **state)
{
    (void)state;
    assert_false(process_image_gone(h.process));
    process_answer_flush(h.process, 3, "a remark");
    assert_int_equal(atomic_load(&h.region->flush_done), 3);
    assert_string_equal(h.region->message, "a remark");
    process_answer_finish(h.process, false, NULL);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_WRITTEN);
    assert_string_equal(h.region->message, "");
    process_answer_finish(h.process, true, "it failed");
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_FAILED);
    assert_string_equal(h.region->message, "it failed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ticks_arrive),
        TEST(test_a_ring_goes_round),
        TEST(test_counters),
        TEST(test_counters_that_cannot_be),
        TEST(test_barrier_counts),
        TEST(test_more_time_than_there_is),
        TEST(test_a_slot_used_again),
        TEST(test_snapshots),
        TEST(test_the_pool_grows),
        TEST(test_cyclic_blocks),
        TEST(test_damaged_head),
        TEST(test_head_behind_tail),
        TEST(test_damaged_record),
        TEST(test_too_many_slots),
        TEST(test_limits_are_kept_not_read_again),
        TEST(test_nonsense_weights),
        TEST(test_scribbling),
        cmocka_unit_test(test_regions_that_cannot_be),
        TEST(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
