/* signal/snapshot.c: the stack's memory in chained blocks, as far as there are bounds, room and blocks. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "profiler/agent/signal/handler.h"

#define SLOTS  16u
#define BLOCKS 64u

static struct stile__region *region;
static struct stile__session session;
static uint8_t *memory; /* stands for a stack of 512 KiB */
static struct stile__bounds stack;
static struct stile__record record;
static const struct stile__region_size size_made = {SLOTS, BLOCKS, STILE__RING_CELLS_MIN, 0, 0, 0};

static int set_up(void **state)
{
    uint64_t numbers = 3;
    size_t size = stile__region_layout(size_made).size, stack_size = 512u << 10;
    (void)state;
    region = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory = mmap(NULL, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED || memory == MAP_FAILED)
        return -1;
    fill_random(memory, stack_size, &numbers);
    stack = (struct stile__bounds){(uintptr_t)memory, (uintptr_t)memory + stack_size};
    memset(&session, 0, sizeof session);
    region->size = size_made;
    stile__session_size_set(&session, size_made);
    atomic_store(&region->blocks_ready, BLOCKS);
    memset(&record, 0, sizeof record);
    record.block = STILE__BLOCK_NONE;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(region, stile__region_layout(size_made).size);
    munmap(memory, 512u << 10);
    return 0;
}

static unsigned blocks_used(void)
{
    unsigned n = 0;
    for (unsigned w = 0; w < STILE__BLOCK_MAX / 64; w++)
        n += (unsigned)__builtin_popcountll(atomic_load(&region->blocks_used[w]));
    return n;
}

/* The chain has exactly the memory from the record's start on. Returns how many blocks it has. */
static unsigned chain_check(void)
{
    uint32_t i = record.block, have = 0;
    unsigned n = 0;
    for (; i != STILE__BLOCK_NONE; n++) {
        assert_true(i < BLOCKS && n < BLOCKS);
        assert_true(atomic_load(&region->blocks_used[i / 64]) & 1ull << i % 64);
        const struct stile__block *b = stile__region_block(region, size_made, i);
        assert_true(b->used > 0 && b->used <= STILE__BLOCK_DATA);
        assert_memory_equal(b->data, (void *)(record.stack_start + have), b->used);
        have += b->used;
        i = b->next;
    }
    assert_int_equal(have, record.stack_len);
    return n;
}

static void take(uint64_t from)
{
    record.reason = (uint8_t)stile__snapshot_take(&session, region, from, stack.hi, &record);
}

static void test_whole_stack(void **state)
{
    static const uint64_t depths[] = {8, 128, STILE__BLOCK_DATA, STILE__BLOCK_DATA + 1, 40000, 256u << 10};
    unsigned before = 0;
    (void)state;
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        uint64_t depth = depths[i];
        memset(&record, 0, sizeof record);
        record.block = STILE__BLOCK_NONE;
        take(stack.hi - depth);
        assert_int_equal(record.reason, STILE__REASON_NONE);
        assert_int_equal(record.stack_start, stack.hi - depth);
        assert_int_equal(record.stack_len, depth);
        unsigned n = chain_check();
        assert_int_equal(n, (depth + STILE__BLOCK_DATA - 1) / STILE__BLOCK_DATA);
        assert_int_equal(blocks_used(), before + n);
        before += n;
    }
    assert_int_equal(atomic_load(&region->blocks_short), 0);
}

static void test_deeper_than_is_recorded(void **state)
{
    (void)state;
    take(stack.lo + 4096);
    assert_int_equal(record.reason, STILE__REASON_TRUNCATED);
    assert_int_equal(record.stack_len, STILE__SNAPSHOT_MAX);
    assert_int_equal(record.stack_start, stack.lo + 4096); /* the leaf's end of it */
    chain_check();
}

static void test_a_chain_goes_back(void **state)
{
    (void)state;
    take(stack.hi - 100000);
    unsigned used = blocks_used();
    assert_true(used > 1);
    uint32_t kept = stile__block_take(&session, region, 0);
    stile__blocks_give_back(&session, region, record.block);
    assert_int_equal(blocks_used(), 1);
    assert_true(atomic_load(&region->blocks_used[kept / 64]) & 1ull << kept % 64);
    /* A link that leads nowhere, or round in a circle. */
    stile__region_block(region, size_made, kept)->next = 1000000;
    stile__blocks_give_back(&session, region, kept);
    assert_int_equal(blocks_used(), 0);
    stile__region_block(region, size_made, kept)->next = kept;
    stile__blocks_give_back(&session, region, kept);
    assert_int_equal(blocks_used(), 0);
}

static void test_no_block_free(void **state)
{
    (void)state;
    atomic_store(&region->blocks_used[0], ~0ull);
    take(stack.hi - 5000);
    assert_int_equal(record.reason, STILE__REASON_BUFFER_FULL);
    assert_int_equal(record.block, STILE__BLOCK_NONE);
    assert_int_equal(record.stack_len, 0);
    assert_int_equal(atomic_load(&region->blocks_short), 1);
}

static void test_blocks_run_out(void **state)
{
    (void)state;
    atomic_store(&region->blocks_used[0], ~(1ull << 17 | 1ull << 40));
    take(stack.hi - 100000);
    assert_int_equal(record.reason, STILE__REASON_BUFFER_FULL);
    assert_int_equal(record.stack_len, 2 * STILE__BLOCK_DATA);
    assert_int_equal(chain_check(), 2);
    assert_int_equal(atomic_load(&region->blocks_short), 1);
}

static void test_only_ready_blocks(void **state)
{
    (void)state;
    atomic_store(&region->blocks_ready, 3);
    take(stack.hi - 100000);
    assert_int_equal(record.reason, STILE__REASON_BUFFER_FULL);
    assert_int_equal(atomic_load(&region->blocks_used[0]) & ~7ull, 0);
    assert_int_equal(chain_check(), 3);
    /* A word that says more than there is. */
    atomic_store(&region->blocks_ready, 1000);
    atomic_store(&region->blocks_used[0], ~0ull);
    memset(&record, 0, sizeof record);
    record.block = STILE__BLOCK_NONE;
    take(stack.hi - 100);
    assert_int_equal(record.block, STILE__BLOCK_NONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole_stack),   TEST(test_deeper_than_is_recorded), TEST(test_a_chain_goes_back),
        TEST(test_no_block_free), TEST(test_blocks_run_out),          TEST(test_only_ready_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
