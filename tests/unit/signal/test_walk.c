/* signal/walk.c over stacks, registers and rules that the test makes up. The stack, the record and the thread's memo lie
 * between pages that cannot be touched: a read beside them ends the test. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "profiler/agent/signal/handler.h"
#include "profiler/region/check.h"

#define SLOTS      16u
#define SLOT       3u
#define BLOCKS     64u
#define PAGES      64u
#define CELLS      32u /* what the handler gives a record at best, in a small ring */
#define INLINE_MAX ((CELLS * STILE__CELL_BYTES - sizeof(struct stile__record)) / 8 - STILE__REG_COUNT)
#define STACK      (1u << 20)
#define CODE       0x7f0000400000ull
#define BLOCK      256u
#define WORDS      (STILE__BLOCK_DATA / 8)

static struct stile__region *region;
static struct stile__session session;
static struct stile__thread thread;
static struct stile__place place;
static uint64_t regs[NGREG];

/* Of register i in DWARF's order, as the record has them. */
static uint64_t *reg(unsigned i)
{
    static const uint8_t order[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                    REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                    REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    return &regs[order[i]];
}
static uint8_t *memory; /* the thread's stack */
static struct stile__record *record;
static uint32_t n_kinds, n_rows;
static uint64_t sessions; /* so far */
static const struct stile__region_size size_made = {SLOTS, BLOCKS, STILE__RING_CELLS_MIN, PAGES, 0, 0};

/* Memory with a page before and one after it that cannot be touched. */
static uint8_t *guarded(size_t bytes)
{
    uint8_t *at = mmap(NULL, bytes + 2 * (size_t)STILE__PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    assert_int_equal(mprotect(at + STILE__PAGE, bytes, PROT_READ | PROT_WRITE), 0);
    return at + STILE__PAGE;
}

static void guarded_free(void *at, size_t bytes)
{
    munmap((uint8_t *)at - STILE__PAGE, bytes + 2 * (size_t)STILE__PAGE);
}

/* As a new session finds things: nothing learned, nothing walked. */
static void session_begin(void)
{
    size_t size = stile__region_layout(size_made).size;
    if (region != NULL)
        munmap(region, size);
    region = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(region != MAP_FAILED);
    region->size = size_made;
    region->start_mono_ns = ++sessions * 1000000;
    atomic_store(&region->blocks_ready, BLOCKS);
    for (uint32_t i = SLOT - 1; i <= SLOT + 1; i += 2)
        assert_int_equal(mprotect(stile__region_memo(region, size_made, i), STILE__PAGE, PROT_NONE), 0);
    n_kinds = 1;
    n_rows = 2 * STILE__RULES_PAGE_WORDS;
    uint64_t chunk = CODE >> STILE__RULES_CHUNK_BITS;
    atomic_store(&stile__region_rules(region, size_made)->chunks[stile__rules_hash(chunk)], chunk << 16 | 1);
}

static int set_up(void **state)
{
    (void)state;
    memset(&session, 0, sizeof session);
    stile__session_size_set(&session, size_made);
    session.depth = STILE__DEPTH_MAX;
    session_begin();
    memory = guarded(STACK);
    uint8_t *at = guarded(STILE__PAGE);
    record = (struct stile__record *)(void *)(at + STILE__PAGE - (size_t)CELLS * STILE__CELL_BYTES);
    memset(&thread, 0, sizeof thread);
    thread.id = 5ull << 32 | SLOT;
    thread.stack = (struct stile__bounds){(uintptr_t)memory, (uintptr_t)memory + STACK};
    memset(&place, 0, sizeof place);
    place.regs = regs;
    for (unsigned i = 0; i < STILE__REG_COUNT; i++)
        *reg(i) = 0xaa00 + i;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guarded_free(memory, STACK);
    guarded_free((void *)((uintptr_t)record & ~(uintptr_t)(STILE__PAGE - 1)), STILE__PAGE);
    munmap(region, stile__region_layout(size_made).size);
    region = NULL;
    return 0;
}

/* Function i of the program: a block of code. */
static uint64_t function(uint32_t i)
{
    return CODE + (uint64_t)i * BLOCK;
}

/* Where a call from function i returns to. The frame is one byte before. */
static uint64_t after_call(uint32_t i)
{
    return function(i) + 0x21;
}

/* The rule for all of a function. */
static void learn(uint32_t i, uint64_t rule)
{
    struct stile__rules *rules = stile__region_rules(region, size_made);
    rules->kinds[n_kinds] = rule;
    (&rules->arena[0][0])[n_rows] = n_kinds++;
    atomic_store(stile__rules_block(rules, PAGES, function(i)), rule != 0 ? n_rows++ << 8 | 1 : 0);
}

static uint64_t by_rsp(int32_t offset)
{
    return stile__rule_make(STILE__RULE_RSP, offset, 0, 0);
}

static void put(uint64_t address, uint64_t word)
{
    *(uint64_t *)address = word;
}

static uint64_t top(void)
{
    return thread.stack.hi;
}

static void walk_begin(uint64_t rsp, uint64_t rbp, uint64_t pc)
{
    *reg(STILE__REG_RSP) = rsp;
    *reg(STILE__REG_RBP) = rbp;
    *reg(STILE__REG_RIP) = pc;
    memset((void *)record, 0xdd, (size_t)CELLS * STILE__CELL_BYTES);
    record->cells = CELLS;
    record->kind = STILE__RECORD_WALKED;
    record->kept = 0;
    record->n_barriers = 0;
    record->flags = 0;
    record->reason = 0;
    record->frames_block = STILE__BLOCK_NONE;
    record->block = STILE__BLOCK_NONE;
    record->stack_len = 0;
    record->lost_regs = 0;
    record->walk_cycles = 0;
    record->n_new = record->n_inline = 1;
    record->words[0] = pc;
}

static uint32_t blocks_used(void)
{
    uint32_t n = 0;
    for (unsigned w = 0; w < STILE__BLOCK_MAX / 64; w++)
        n += (uint32_t)__builtin_popcountll(atomic_load(&region->blocks_used[w]));
    return n;
}

/* Blocks of a chain; all in use. */
static uint32_t chain(uint32_t i)
{
    uint32_t n = 0;
    for (; i != STILE__BLOCK_NONE; n++) {
        assert_true(i < BLOCKS && n < BLOCKS);
        assert_true(atomic_load(&region->blocks_used[i / 64]) & 1ull << i % 64);
        i = stile__region_block(region, size_made, i)->next;
    }
    return n;
}

/* The record is as record.h says: its frames and snapshot are where they are said to be, and no block is taken beyond. */
static void record_is_sound(uint32_t blocks_before)
{
    uint32_t outside = record->n_new - record->n_inline, frame_blocks = chain(record->frames_block);
    assert_null(stile__record_check(record, CELLS, BLOCKS));
    assert_int_equal(frame_blocks, (outside + WORDS - 1) / WORDS);
    uint32_t blocks = chain(record->block), have = 0, i = record->block;
    assert_int_equal(blocks, (record->stack_len + STILE__BLOCK_DATA - 1) / STILE__BLOCK_DATA);
    for (; i != STILE__BLOCK_NONE; i = stile__region_block(region, size_made, i)->next) {
        const struct stile__block *b = stile__region_block(region, size_made, i);
        assert_memory_equal(b->data, (void *)(record->stack_start + have), b->used);
        have += b->used;
    }
    assert_int_equal(have, record->stack_len);
    assert_int_equal(blocks_used(), blocks_before + frame_blocks + blocks);
}

static void blocks_forget(void)
{
    for (unsigned w = 0; w < STILE__BLOCK_MAX / 64; w++)
        atomic_store(&region->blocks_used[w], 0);
}

/* Walks once. The blocks are free before it. */
static void walk(uint64_t rsp, uint64_t rbp, uint64_t pc)
{
    blocks_forget();
    walk_begin(rsp, rbp, pc);
    stile__walk(&session, region, &thread, &place, record);
    record_is_sound(0);
}

/* Frame i of the record, leaf first. */
static uint64_t frame(uint32_t i)
{
    assert_true(i < record->n_new);
    if (i < record->n_inline)
        return record->words[i];
    uint32_t block = record->frames_block;
    for (i -= record->n_inline; i >= WORDS; i -= WORDS)
        block = stile__region_block(region, size_made, block)->next;
    return ((const uint64_t *)(const void *)stile__region_block(region, size_made, block)->data)[i];
}

#define WALKED(...)                                                                                          \
    do {                                                                                                     \
        const uint64_t wanted[] = {__VA_ARGS__};                                                             \
        assert_int_equal(record->kind, STILE__RECORD_WALKED);                                                \
        assert_int_equal(record->n_new, sizeof wanted / sizeof *wanted);                                     \
        for (uint32_t wanted_i = 0; wanted_i < record->n_new; wanted_i++)                                    \
            assert_int_equal(frame(wanted_i), wanted[wanted_i]);                                             \
    } while (0)

static uint64_t snapshot_reg(int i)
{
    return record->words[record->n_inline + (uint32_t)i];
}

/* The rest was left from the interrupted frame on: none is listed. */
static void left_from_the_leaf(void)
{
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->n_new, 0);
    assert_int_equal(record->lost_regs, 0);
    for (int i = 0; i < STILE__REG_COUNT; i++)
        assert_int_equal(snapshot_reg(i), *reg(i));
    uint64_t from = *reg(STILE__REG_RSP) - STILE__RED_ZONE;
    uint64_t lo =
        *reg(STILE__REG_RSP) - place.alt.lo < place.alt.hi - place.alt.lo ? place.alt.lo : thread.stack.lo;
    assert_int_equal(record->stack_start, from > lo ? from : lo);
}

/* n frames of 16 bytes from rsp up, called by one another: functions first, first + 1, ... The outermost returns to 0. */
static void calls_put(uint64_t rsp, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, rsp += 16) {
        put(rsp, 0x1111);
        put(rsp + 8, i + 1 < n ? after_call(first + i + 1) : 0);
    }
}

static void test_by_rsp(void **state)
{
    uint64_t rsp = top() - 4000;
    (void)state;
    learn(1, by_rsp(8));
    learn(2, by_rsp(24));
    learn(3, by_rsp(128));
    put(rsp, after_call(2));
    put(rsp + 8 + 16, after_call(3));
    put(rsp + 8 + 24 + 120, 0);
    walk(rsp, 7, function(1) + 3); /* zero is no end where rbp is something */
    left_from_the_leaf();
    walk(rsp, 0, function(1) + 3);
    WALKED(function(1) + 3, after_call(2) - 1, after_call(3) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    assert_int_equal(record->block, STILE__BLOCK_NONE);
    assert_int_equal(record->walk_cycles, 0);
    /* The outermost frame by its rule, with a return address that is none of ours. */
    learn(3, stile__rule_make(STILE__RULE_END, 0, 0, 0));
    session_begin();
    learn(1, by_rsp(8));
    learn(2, stile__rule_make(STILE__RULE_END, 0, 0, 0));
    walk(rsp, 7, function(1) + 3);
    WALKED(function(1) + 3, after_call(2) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
}

/* A frame that ends exactly with the stack, and one that would go on behind it. */
static void test_the_stacks_end(void **state)
{
    (void)state;
    learn(1, by_rsp(16));
    put(top() - 8, 0);
    walk(top() - 16, 0, function(1));
    WALKED(function(1));
    assert_int_equal(record->reason, STILE__REASON_NONE);
    put(top() - 8, after_call(1));
    walk(top() - 16, 0, function(1)); /* its caller would begin where the stack ends */
    left_from_the_leaf();
    walk(top() - 8, 0, function(1));
    left_from_the_leaf();
    assert_int_equal(record->stack_len, 8 + STILE__RED_ZONE);
    walk(top() - 1, 0, function(1));
    left_from_the_leaf();
    walk(thread.stack.lo, 0, function(2)); /* no room for a red zone */
    left_from_the_leaf();
    assert_int_equal(record->reason, STILE__REASON_TRUNCATED);
    walk(thread.stack.lo + 5, 0, function(2));
    left_from_the_leaf();
}

static void test_by_rbp(void **state)
{
    uint64_t rsp = top() - 4000, rbp = rsp + 0x40;
    (void)state;
    learn(1, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    learn(2, stile__rule_make(STILE__RULE_RSP, 32, -2, 0)); /* saves rbp, uses it for something else */
    learn(3, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    put(rbp, 0x1234);
    put(rbp + 8, after_call(2));
    put(rbp + 16 + 16, rbp + 0x100); /* the saved rbp of function 2 is that of function 3 */
    put(rbp + 16 + 24, after_call(3));
    put(rbp + 0x100, 0);
    put(rbp + 0x108, 0);
    walk(rsp, rbp, function(1));
    WALKED(function(1), after_call(2) - 1, after_call(3) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* rbp kept by function 2: it is what function 1 has saved. */
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    learn(2, by_rsp(32));
    learn(3, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    put(rbp, rbp + 0x100);
    put(rbp + 16 + 16, 0);
    walk(rsp, rbp, function(1));
    WALKED(function(1), after_call(2) - 1, after_call(3) - 1);
    /* Lost on the way: what is built on it is not guessed. */
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    learn(2, stile__rule_make(STILE__RULE_RSP, 32, STILE__RULE_LOST, 0));
    learn(3, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    walk(rsp, rbp, function(1));
    left_from_the_leaf();
    learn(4, by_rsp(16)); /* that does not need it */
    put(rbp + 16 + 24, after_call(4));
    put(rbp + 16 + 40, 0);
    walk(rsp, rbp, function(1));
    WALKED(function(1), after_call(2) - 1, after_call(4) - 1);
    /* Saved where nothing may be read: below the red zone, or behind the stack. */
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_RSP, 32, -100, 0));
    put(rsp + 24, 0x100000);
    walk(rsp, rbp, function(1));
    left_from_the_leaf();
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_RSP, 32, INT16_MAX, 0));
    walk(rsp, rbp, function(1));
    left_from_the_leaf();
    session_begin(); /* the last word of the red zone */
    learn(1, stile__rule_make(STILE__RULE_RSP, 32, -20, 0));
    learn(2, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    put(rsp - 128, rbp);
    put(rsp + 24, after_call(2));
    put(rbp, 0);
    put(rbp + 8, 0);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
}

static void test_through_memory(void **state)
{
    uint64_t rsp = top() - 4000, rbp = rsp + 0x80, cfa = rsp + 0x200;
    (void)state;
    /* As gcc realigns a stack: the CFA lies at rbp - 8, the caller's rbp where rbp points to. */
    learn(1, stile__rule_make(STILE__RULE_DEREF_RBP, -8, 1, 0) | STILE__RULE_AT_BASE);
    learn(2, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    put(rbp - 8, cfa);
    put(rbp, cfa + 0x100);
    put(cfa - 8, after_call(2));
    put(cfa + 0x108, 0);
    walk(rsp, rbp, function(1));
    WALKED(function(1), after_call(2) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* The same by rsp, and with something added: *(rsp + 24) + 2 words. */
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_DEREF_RSP, 24, 0, 2));
    learn(2, by_rsp(16));
    put(rsp + 24, cfa - 16);
    put(cfa + 8, 0);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    session_begin();
    learn(1, stile__rule_make(STILE__RULE_DEREF_RSP, 24, -3, -2));
    learn(2, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    put(rsp + 24, cfa + 16);
    put(cfa - 24, cfa + 0x100);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    /* A pointer that leads nowhere, and one that cannot be read. */
    const uint64_t wild[] = {0, 8, 0x1111, UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 48, top() + 4};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        put(rsp + 24, wild[i]);
        walk(rsp, 0, function(1));
        left_from_the_leaf();
        learn(3, stile__rule_make(STILE__RULE_DEREF_RBP, -8, 0, 0));
        walk(rsp, wild[i], function(3));
        left_from_the_leaf();
    }
    learn(4, stile__rule_make(STILE__RULE_DEREF_RSP, INT32_MAX, 0, 0));
    walk(rsp, 0, function(4));
    left_from_the_leaf();
    learn(5, stile__rule_make(STILE__RULE_DEREF_RSP, INT32_MIN, 0, 0));
    walk(rsp, 0, function(5));
    left_from_the_leaf();
}

static void test_by_another_register(void **state)
{
    uint64_t rsp = top() - 4000;
    (void)state;
    learn(1, stile__rule_make(STILE__RULE_REGISTER, 8, 0, 10)); /* r10 + 8 */
    learn(2, by_rsp(16));
    put(rsp + 0x18, after_call(2));
    put(rsp + 0x28, 0);
    *reg(10) = rsp + 0x18;
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    /* A caller's is not known. */
    learn(3, stile__rule_make(STILE__RULE_REGISTER, 8, 0, 12));
    *reg(12) = rsp + 0x100;
    put(rsp + 0x28, after_call(3));
    put(rsp + 0x100, 0);
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    /* Numbers that are no register's, as a scribbled table has. */
    for (int extra = INT8_MIN; extra <= INT8_MAX; extra++) {
        session_begin();
        learn(1, stile__rule_make(STILE__RULE_REGISTER, 8, 0, (int8_t)extra));
        walk(rsp, 0, function(1));
    }
}

static void test_plt(void **state)
{
    uint64_t rsp = top() - 4000;
    (void)state;
    learn(1, stile__rule_make(STILE__RULE_PLT, 0, 0, 11));
    learn(2, by_rsp(16));
    for (uint32_t byte = 0; byte < 32; byte++) {
        bool pushed = byte % 16 >= 11;
        put(rsp, pushed ? 3 : after_call(2));
        put(rsp + 8, pushed ? after_call(2) : 0x99);
        put(rsp + (pushed ? 24 : 16), 0);
        for (int again = 0; again < 2; again++) { /* from the table, then from what was looked up before */
            walk(rsp, 0, function(1) + byte);
            WALKED(function(1) + byte, after_call(2) - 1);
            assert_int_equal(record->reason, STILE__REASON_NONE);
        }
    }
}

/* What the kernel leaves on a handler's stack, at the stack pointer after its return address is popped. */
static void signal_frame_put(uint64_t at, uint64_t rsp, uint64_t rbp, uint64_t pc)
{
    for (uint32_t i = 0; i < 23; i++)
        put(at + 40 + 8 * (uint64_t)i, 0xbb00 + i);
    put(at + 40 + 80, rbp);
    put(at + 40 + 120, rsp);
    put(at + 40 + 128, pc);
}

#define SIGNAL_RULE stile__rule_make(STILE__RULE_SIGNAL, 0, 0, 0)

static void test_across_a_signal(void **state)
{
    uint64_t rsp = top() - 4000, below = top() - 3000;
    (void)state;
    learn(1, by_rsp(8));
    learn(2, SIGNAL_RULE);
    learn(3, stile__rule_make(STILE__RULE_RBP, 16, -2, 0));
    learn(4, by_rsp(16));
    learn(5, stile__rule_make(STILE__RULE_REGISTER, 8, 0, 12));
    put(rsp, after_call(2));
    signal_frame_put(rsp + 8, below, below + 0x20, function(3));
    put(below + 0x20, 0);
    put(below + 0x28, after_call(4));
    put(below + 0x38, 0);
    walk(rsp, 0, function(1));
    /* The interrupted instruction itself, not one byte before it. */
    WALKED(function(1), after_call(2) - 1, function(3), after_call(4) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* Interrupted where a register says it: r12 is word 4. */
    signal_frame_put(rsp + 8, below, 0, function(5));
    put(rsp + 8 + 40 + 8 * 4, below + 0x28);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1, function(5), after_call(4) - 1);
    /* Stuck above it: the rest is left from the interrupted frame on, with its registers. */
    put(below + 0x38, after_call(9));
    walk(rsp, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->n_new, 2);
    assert_int_equal(record->lost_regs, 0);
    assert_int_equal(snapshot_reg(STILE__REG_RSP), below);
    assert_int_equal(snapshot_reg(STILE__REG_RIP), function(5));
    assert_int_equal(snapshot_reg(STILE__REG_RBP), 0);
    static const uint8_t dwarf_of[] = {8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16};
    for (uint32_t i = 0; i < STILE__REG_COUNT; i++)
        if (i != 4 && i != 10 && i != 15 && i != 16)
            assert_int_equal(snapshot_reg(dwarf_of[i]), 0xbb00 + i);
    assert_int_equal(record->stack_start, below - STILE__RED_ZONE);
    assert_int_equal(record->stack_start + record->stack_len, top());
    /* The frame does not fit on what is left of the stack. */
    put(top() - 200, after_call(2));
    walk(top() - 200, 0, function(1));
    left_from_the_leaf();
}

/* A handler on an alternate stack, above or below the thread's. */
static void test_across_stacks(void **state)
{
    uint8_t *alt = guarded(16 * (size_t)STILE__PAGE);
    uint64_t at = (uintptr_t)alt + 40000, below = top() - 3000;
    (void)state;
    learn(1, by_rsp(8));
    learn(2, SIGNAL_RULE);
    learn(4, by_rsp(16));
    put(at, after_call(2));
    signal_frame_put(at + 8, below, 0, function(4));
    calls_put(below, 4, 1);
    place.alt = (struct stile__bounds){(uintptr_t)alt, (uintptr_t)alt + 16 * (uintptr_t)STILE__PAGE};
    walk(at, 0, function(1));
    WALKED(function(1), after_call(2) - 1, function(4));
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* Stuck on the thread's stack: of the alternate one nothing is copied. */
    put(below + 8, after_call(9));
    walk(at, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->n_new, 2);
    assert_int_equal(record->stack_start, below - STILE__RED_ZONE);
    assert_int_equal(record->stack_start + record->stack_len, top());
    /* Stuck on the alternate one: as far as that goes. */
    walk(at, 0, function(9));
    left_from_the_leaf();
    assert_int_equal(record->stack_start + record->stack_len, place.alt.hi);
    /* To where nothing is known to be: what was interrupted is the last that is listed. */
    static const uint64_t wild[] = {0, 8, 1ull << 47, UINT64_MAX, UINT64_MAX - 4096};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        signal_frame_put(at + 8, wild[i], 0, function(4));
        walk(at, 0, function(1));
        WALKED(function(1), after_call(2) - 1, function(4));
        assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    }
    guarded_free(alt, 16 * (size_t)STILE__PAGE);
}

static void test_signal_frames_in_a_circle(void **state)
{
    uint8_t *alt = guarded(16 * (size_t)STILE__PAGE);
    uint64_t at = (uintptr_t)alt + 40000, below = top() - 3000;
    (void)state;
    place.alt = (struct stile__bounds){(uintptr_t)alt, (uintptr_t)alt + 16 * (uintptr_t)STILE__PAGE};
    learn(2, SIGNAL_RULE);
    signal_frame_put(at, below, 0, function(2));
    signal_frame_put(below, at, 0, function(2));
    walk(at, 0, function(2));
    assert_int_equal(record->kind, STILE__RECORD_WALKED);
    assert_int_equal(record->reason, STILE__REASON_TRUNCATED);
    assert_true(record->n_new > 10 && record->n_new < 200);
    signal_frame_put(at, at, 0, function(2)); /* into itself */
    walk(at, 0, function(2));
    assert_int_equal(record->reason, STILE__REASON_TRUNCATED);
    guarded_free(alt, 16 * (size_t)STILE__PAGE);
}

static void test_by_frame_pointer(void **state)
{
    const uint64_t rule = stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0), rsp = top() - 4000;
    (void)state;
    learn(1, rule);
    learn(2, by_rsp(16));
    put(rsp + 0x40, rsp + 0x80);
    put(rsp + 0x48, after_call(1));
    put(rsp + 0x80, 0);
    put(rsp + 0x88, after_call(2));
    put(rsp + 0x98, 0);
    walk(rsp, rsp + 0x40, function(1));
    WALKED(function(1), after_call(1) - 1, after_call(2) - 1);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* rbp is anything. */
    const uint64_t wild[] = {0,         8,          rsp - 8,    rsp + 0x41, top(),
                             top() - 8, UINT64_MAX, 1ull << 63, top() + 64, UINT64_MAX - 15};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        walk(rsp, wild[i], function(1));
        left_from_the_leaf();
    }
    /* It is a pointer to zeros in a caller's frame: that is no end. */
    put(rsp + 0xc0, 0);
    put(rsp + 0xc8, 0);
    walk(rsp, rsp + 0xc0, function(1));
    left_from_the_leaf();
    walk(rsp, top() - 16, function(1)); /* the last two words */
    assert_int_equal(record->reason, STILE__REASON_NONE);
    WALKED(function(1));
    /* Code without CFI at the very end of the stack: the process began there. */
    walk(top() - 16, 0, function(1));
    WALKED(function(1));
    assert_int_equal(record->reason, STILE__REASON_NONE);
    walk(top() - 24, 0, function(1));
    left_from_the_leaf();
}

/* No rule, one for libunwind, numbers that are no rule: the rest is left to the collector. */
static void test_stuck(void **state)
{
    uint64_t rsp = top() - 4000;
    (void)state;
    walk(rsp, 1, function(1));
    left_from_the_leaf();
    assert_int_equal(record->reason, STILE__REASON_NONE);
    assert_int_equal(record->stack_start + record->stack_len, top());
    for (uint32_t op = STILE__RULE_OTHER; op < 16; op++) {
        learn(op, op | 0x0001000300100000ull);
        walk(rsp, 1, function(op));
        left_from_the_leaf();
    }
    walk(rsp, 1, 0);
    left_from_the_leaf();
    walk(rsp, 1, UINT64_MAX);
    left_from_the_leaf();
    walk(rsp, 1, 0xffffffffff600000ull);
    left_from_the_leaf();
    /* CFAs that do not ascend, or lie beside the words, or beyond the stack. */
    static const int32_t offsets[] = {0, -8, INT32_MIN, 12, 17, INT32_MAX, 4008};
    for (uint32_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        learn(100 + i, by_rsp(offsets[i]));
        walk(rsp, 1, function(100 + i));
        left_from_the_leaf();
        learn(200 + i, stile__rule_make(STILE__RULE_RBP, offsets[i], 0, 0));
        walk(rsp, rsp, function(200 + i));
        left_from_the_leaf();
    }
    learn(300, stile__rule_make(STILE__RULE_RBP, 16, 0, 0));
    const uint64_t wild[] = {0, UINT64_MAX, UINT64_MAX - 16, rsp - 16, top(), 1ull << 63};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        put(rsp - 8, after_call(300));
        walk(rsp, wild[i], function(300));
        left_from_the_leaf();
    }
    /* A stack pointer that is no multiple of a word. */
    learn(301, by_rsp(7));
    put(rsp + 8 - 8, 0);
    walk(rsp + 1, 0, function(301));
    WALKED(function(301));
    /* Return addresses that are none. */
    static const uint64_t returns[] = {1, 4096, 65535, 1ull << 48, UINT64_MAX, 1ull << 63};
    learn(302, by_rsp(8));
    session.depth = 1; /* what they say is no frame */
    for (size_t i = 0; i < sizeof returns / sizeof *returns; i++) {
        put(rsp, returns[i]);
        walk(rsp, 1, function(302));
        left_from_the_leaf();
    }
}

/* The first frame at which the walk is stuck is too far up to copy everything below it: only the rest is. */
static void test_stuck_far_up(void **state)
{
    uint64_t far = 300u << 10, rsp = top() - far, stuck;
    uint32_t n = 17000;
    (void)state;
    for (uint32_t i = 1; i < 10; i++)
        learn(i, by_rsp(16));
    for (uint32_t i = 0; i < n; i++)
        put(rsp + 16 * (uint64_t)i + 8, after_call(i + 1 < n ? 1 + i % 9 : 11));
    stuck = rsp + 16 * (uint64_t)n;
    walk(rsp, 0x77, function(1));
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->reason, STILE__REASON_NONE);
    assert_int_equal(record->n_new, n);
    assert_int_equal(frame(0), function(1));
    for (uint32_t i = 1; i < n; i++)
        assert_int_equal(frame(i), after_call(1 + (i - 1) % 9) - 1);
    assert_int_equal(snapshot_reg(STILE__REG_RIP), after_call(11) - 1);
    assert_int_equal(snapshot_reg(STILE__REG_RSP), stuck);
    assert_int_equal(snapshot_reg(STILE__REG_RBP), 0x77);
    assert_int_equal(record->lost_regs, 0x1ffffu & ~(1u << 6 | 1u << 7 | 1u << 16));
    assert_int_equal(record->stack_start, stuck - STILE__RED_ZONE);
    assert_int_equal(record->stack_start + record->stack_len, top());
    /* As far as everything can be copied, it is, and no frame is listed that libunwind finds again. */
    rsp = top() - (STILE__SNAPSHOT_MAX - STILE__RED_ZONE);
    put(rsp + 8, after_call(11));
    walk(rsp, 0x77, function(1));
    left_from_the_leaf();
    assert_int_equal(record->stack_len, STILE__SNAPSHOT_MAX);
    rsp -= 16;
    put(rsp + 8, after_call(11));
    walk(rsp, 0x77, function(1));
    assert_int_equal(record->n_new, 1);
    assert_int_equal(snapshot_reg(STILE__REG_RIP), after_call(11) - 1);
    assert_int_equal(record->lost_regs, 0x1ffffu & ~(1u << 6 | 1u << 7 | 1u << 16));
}

/* Frames that were listed in blocks, and then are not: the blocks go back. */
static void test_blocks_of_dropped_frames(void **state)
{
    uint64_t rsp = top() - (200u << 10);
    uint32_t n = 10000;
    (void)state;
    learn(1, by_rsp(16));
    learn(2, SIGNAL_RULE);
    for (uint32_t i = 0; i < n; i++)
        put(rsp + 16 * (uint64_t)i + 8, after_call(i + 1 < n ? 1 : 11));
    walk(rsp, 0, function(1)); /* all of them */
    left_from_the_leaf();
    /* Those above a signal frame: some of the rest stay in a block. */
    uint64_t low = rsp - 32000, frames = 1000;
    for (uint64_t i = 0; i < frames; i++)
        put(low + 16 * i + 8, after_call(i + 1 < frames ? 1 : 2));
    signal_frame_put(low + 16 * frames, rsp, 0, function(1));
    walk(low, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->n_new, frames + 1);
    assert_int_equal(snapshot_reg(STILE__REG_RIP), function(1));
    assert_int_equal(snapshot_reg(STILE__REG_RSP), rsp);
    assert_int_equal(frame((uint32_t)frames), after_call(2) - 1);
    assert_int_equal(frame((uint32_t)frames - 1), after_call(1) - 1);
}

static void test_many_frames(void **state)
{
    static const uint32_t counts[] = {1,
                                      INLINE_MAX - 1,
                                      INLINE_MAX,
                                      INLINE_MAX + 1,
                                      INLINE_MAX + WORDS,
                                      INLINE_MAX + WORDS + 1,
                                      INLINE_MAX + 2 * WORDS,
                                      20000};
    (void)state;
    for (uint32_t i = 1; i < 100; i++)
        learn(i, by_rsp(16));
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int again = 0; again < 2; again++) {
            uint32_t n = counts[c];
            uint64_t rsp = top() - 16 * (uint64_t)n;
            for (uint32_t i = 0; i < n; i++)
                put(rsp + 16 * (uint64_t)i + 8, i + 1 < n ? after_call(1 + i % 99) : 0);
            walk(rsp, 0, function(1));
            assert_int_equal(record->kind, STILE__RECORD_WALKED);
            assert_int_equal(record->reason, STILE__REASON_NONE);
            assert_int_equal(record->n_new, n);
            assert_int_equal(record->n_inline, n < INLINE_MAX ? n : INLINE_MAX);
            assert_int_equal(frame(0), function(1));
            for (uint32_t i = 1; i < n; i++)
                assert_int_equal(frame(i), after_call(1 + (i - 1) % 99) - 1);
        }
}

static void test_blocks_run_out(void **state)
{
    uint32_t n = 20000;
    uint64_t rsp = top() - 16 * (uint64_t)n;
    (void)state;
    learn(1, by_rsp(16));
    for (uint32_t i = 0; i < n; i++)
        put(rsp + 16 * (uint64_t)i + 8, i + 1 < n ? after_call(1) : 0);
    for (uint32_t free_blocks = 0; free_blocks < 4; free_blocks++) {
        atomic_store(&region->blocks_ready, free_blocks);
        atomic_store(&region->blocks_short, 0);
        walk(rsp, 0, function(1));
        assert_int_equal(record->kind, STILE__RECORD_WALKED);
        assert_int_equal(record->reason, STILE__REASON_BUFFER_FULL);
        assert_int_equal(record->n_new, INLINE_MAX + free_blocks * WORDS);
        assert_int_equal(atomic_load(&region->blocks_short), 1);
    }
    /* None for a snapshot: the frames stay. */
    atomic_store(&region->blocks_ready, 0);
    put(top() - 8, after_call(11));
    walk(top() - 32, 0, function(1));
    WALKED(function(1), after_call(1) - 1, after_call(11) - 1);
    assert_int_equal(record->reason, STILE__REASON_BUFFER_FULL);
}

static void test_depth(void **state)
{
    uint64_t rsp = top() - 16 * 100;
    (void)state;
    learn(1, by_rsp(16));
    for (uint32_t i = 0; i < 100; i++)
        put(rsp + 16 * (uint64_t)i + 8, i + 1 < 100 ? after_call(1) : 0);
    for (uint32_t depth = 1; depth < 103; depth++) {
        session.depth = depth;
        walk(rsp, 0, function(1));
        assert_int_equal(record->kind, STILE__RECORD_WALKED);
        assert_int_equal(record->n_new, depth < 100 ? depth : 100);
        assert_int_equal(record->reason, depth < 100 ? STILE__REASON_TRUNCATED : STILE__REASON_NONE);
        assert_int_equal(frame(0), function(1)); /* the leaf's end is kept */
    }
}

static void unloads_set(uint32_t unloads, uint32_t rules_unloads)
{
    atomic_store(&region->unloads, unloads);
    atomic_store(&region->rules_unloads, rules_unloads);
}

static void test_unloads(void **state)
{
    uint64_t rsp = top() - 400;
    (void)state;
    learn(1, by_rsp(16));
    learn(2, by_rsp(16));
    calls_put(rsp, 1, 2);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    /* Another library lies there now. */
    put(rsp + 8, 0x5555);
    put(rsp + 24, after_call(2));
    put(rsp + 32 + 8, 0);
    learn(1, by_rsp(32));
    unloads_set(STILE__UNLOADS_ONE, 0); /* the collector does not know */
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    unloads_set(STILE__UNLOADS_ONE + 1, 1); /* somebody is in dlclose */
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    unloads_set(STILE__UNLOADS_ONE, 1);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    unloads_set(0, STILE__RULES_NONE);
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    /* A count of which a key has the lower part only. */
    unloads_set(0x10001 * STILE__UNLOADS_ONE, 0x10001);
    learn(1, by_rsp(48));
    put(rsp + 40, 0);
    walk(rsp, 0, function(1));
    WALKED(function(1));
    unloads_set(0xf0001 * STILE__UNLOADS_ONE, 0xf0001);
    learn(1, by_rsp(32));
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    /* The slot's memo knows a part only, too, if nothing was walked in between that the cache was for. */
    learn(1, by_rsp(48));
    unloads_set(0xe0001 * STILE__UNLOADS_ONE, 0xe0001);
    walk(rsp, 0, function(1));
    WALKED(function(1));
    /* No room for rules in this region. */
    session.size.rule_pages = 0;
    unloads_set(0, 0);
    walk(rsp, 0, function(1));
    left_from_the_leaf();
}

/* Rules that were looked up in an earlier session, or before a fork, are not those of this one: what was unloaded in
 * between nobody has counted. */
static void test_sessions(void **state)
{
    uint64_t rsp = top() - 400;
    (void)state;
    learn(1, by_rsp(16));
    learn(2, by_rsp(16));
    calls_put(rsp, 1, 2);
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    session_begin();
    walk(rsp, 0, function(1)); /* nothing learned */
    left_from_the_leaf();
    learn(1, by_rsp(32));
    put(rsp + 24, 0);
    walk(rsp, 0, function(1));
    WALKED(function(1));
}

/* A rule that was not there when the stack was walked last is found once it is. */
static void test_learned_in_between(void **state)
{
    uint64_t rsp = top() - 400;
    (void)state;
    learn(1, by_rsp(16));
    learn(3, by_rsp(16));
    calls_put(rsp, 1, 3);
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    walk(rsp, 0, function(1));
    left_from_the_leaf();
    learn(2, by_rsp(16));
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1, after_call(3) - 1);
}

/* Stacks that are what they were, or not quite. */
static void test_walks_one_after_the_other(void **state)
{
    uint64_t rng = 5;
    uint32_t n = 150; /* more than are remembered */
    uint64_t rsp[200], rules[400];
    (void)state;
    for (uint32_t i = 1; i < 400; i++) {
        rules[i] = by_rsp((int32_t)(8 + 8 * (i % 6)));
        learn(i, rules[i]);
    }
    uint32_t who[200];
    for (uint32_t i = 0; i < n; i++)
        who[i] = 1 + (uint32_t)(next_number(&rng) % 399);
    for (unsigned round = 0; round < 3000; round++) {
        /* From a random frame down, other functions; the leaf's place changes always. */
        uint32_t from = (uint32_t)(next_number(&rng) % n), depth = n - (uint32_t)(next_number(&rng) % 100);
        for (uint32_t i = from; i < n && round % 3 != 0; i++)
            who[i] = 1 + (uint32_t)(next_number(&rng) % 399);
        uint64_t at = top(); /* outermost first */
        for (uint32_t i = 0; i < depth; i++) {
            put(at - 8, i == 0 ? 0 : after_call(who[i - 1]));
            at -= (uint64_t)stile__rule_offset(rules[who[i]]);
            rsp[i] = at;
        }
        walk(rsp[depth - 1], 0, function(who[depth - 1]) + round % 200);
        assert_int_equal(record->kind, STILE__RECORD_WALKED);
        assert_int_equal(record->n_new, depth);
        assert_int_equal(frame(0), function(who[depth - 1]) + round % 200);
        for (uint32_t i = 1; i < depth; i++)
            assert_int_equal(frame(i), after_call(who[depth - 1 - i]) - 1);
    }
}

/* Whatever lies in the memo and in the table, nothing beside the stack is read. */
static void test_scribbles(void **state)
{
    struct stile__memo *memo = stile__region_memo(region, size_made, SLOT);
    struct stile__rules *rules = stile__region_rules(region, size_made);
    uint64_t rng = 8;
    uint64_t *words = (uint64_t *)(void *)memo;
    (void)state;
    for (unsigned round = 0; round < 30000; round++) {
        for (uint32_t i = 0; i < STILE__PAGE / 8; i++)
            words[i] = next_number(&rng);
        uint64_t rsp = thread.stack.lo + next_number(&rng) % STACK, low = rsp & ~7ull;
        for (unsigned half = 0; half < 2; half++) {
            uint64_t r = next_number(&rng);
            memo->halves[half].n = r % 4 == 0 ? UINT32_MAX : (uint32_t)(r / 4 % (STILE__MEMO_FRAMES + 3));
            memo->halves[half].unloads = r % 8;
            for (uint32_t i = 0; i <= STILE__MEMO_FRAMES; i++) /* some of which are believed */
                memo->halves[half].frames[i] = (struct stile__memo_frame){
                    i == 0 ? rsp : low + next_number(&rng) % 8 * 8, function(i % 8), next_number(&rng)};
        }
        for (uint64_t at = low; at < top() && at < low + 800; at += 8) {
            uint64_t r = next_number(&rng);
            put(at, r % 3 == 0 ? after_call((uint32_t)(r / 3 % 8)) : r % 3 == 1 ? low + r / 3 % 900 : r);
        }
        for (uint32_t i = 0; i < 8; i++) {
            uint64_t r = next_number(&rng);
            r = stile__rule_make((enum stile__rule_op)(r & 15), (int32_t)(r >> 32) % 200,
                                 (int16_t)(r >> 16) % 10, (int8_t)(r >> 8)) |
                (r & STILE__RULE_AT_BASE);
            rules->kinds[i + 1] = next_number(&rng) % 8 == 0 ? next_number(&rng) : r;
            (&rules->arena[0][0])[2048 + i] = i + 1;
            atomic_store(&rules->arena[1][i], (uint32_t)(2048 + i) << 8 | 1);
        }
        unloads_set(round % 8 * STILE__UNLOADS_ONE, round % 8);
        region->start_mono_ns = round * 4096ull;
        walk(rsp, low + next_number(&rng) % 64 * 8, function((uint32_t)(next_number(&rng) % 8)));
    }
}

/* A stack of the program's making: walked as far as it can be read, and nothing of it is copied. */
static void test_a_fibers_stack(void **state)
{
    uint64_t bytes = 64 * (uint64_t)STILE__PAGE;
    uint64_t fiber = (uintptr_t)guarded(bytes), end = fiber + bytes;
    (void)state;
    learn(1, by_rsp(16));
    learn(2, by_rsp(4096));
    learn(3, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0));
    learn(4, stile__rule_make(STILE__RULE_DEREF_RSP, 0, 0, 0));
    calls_put(end - 32, 1, 1);
    walk(end - 32, 0, function(1));
    WALKED(function(1));
    assert_int_equal(record->reason, STILE__REASON_NONE);
    /* Up to the guard. */
    for (uint64_t rsp = fiber; rsp < end; rsp += 16)
        put(rsp + 8, after_call(1));
    walk(fiber, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_WALKED);
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    assert_int_equal(record->n_new, bytes / 16 + 1);
    walk(end - 16, 0, function(1));
    WALKED(function(1), after_call(1) - 1);
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    walk(end - 8, 0, function(1));
    WALKED(function(1));
    walk(end - 4096, 0, function(2));
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    assert_int_equal(record->n_new, 2);
    walk(end - 4000, 0, function(2));
    WALKED(function(2));
    walk(end - 16, end - 16, function(3));
    WALKED(function(3), after_call(1) - 1);
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    walk(end - 16, end, function(3));
    WALKED(function(3)); /* no end of the stack: of that nobody knows */
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    put(end - 16, end + 8);
    walk(end - 16, 0, function(4));
    WALKED(function(4));
    learn(5, stile__rule_make(STILE__RULE_DEREF_RSP, -4096, 0, 0));
    walk(fiber, 0, function(5)); /* what lies below nobody has looked at */
    WALKED(function(5));
    /* No rules: the leaf. */
    unloads_set(1, 0);
    walk(fiber, 0, function(1));
    WALKED(function(1));
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    guarded_free((void *)fiber, bytes);
}

/* A large one, whose end is not looked for for ever. It stays one whose end is not known. */
static void test_a_large_fibers_stack(void **state)
{
    uint64_t bytes = 4u << 20;
    uint64_t fiber = (uintptr_t)guarded(bytes);
    (void)state;
    learn(1, by_rsp(64));
    learn(2, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0));
    for (uint64_t rsp = fiber; rsp < fiber + bytes; rsp += 64)
        put(rsp + 56, after_call(1));
    walk(fiber + 64, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_WALKED);
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    assert_int_equal(record->n_new, (1u << 20) / 64);
    /* Stuck where it was looked at last. */
    put(fiber + (1u << 20) - 8, after_call(9));
    walk(fiber, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_WALKED);
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    put(fiber + (1u << 20) - 8 - 64, after_call(2)); /* nor is that the end of it */
    put(fiber + (1u << 20) - 8, 0);
    walk(fiber, 0, function(1));
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    guarded_free((void *)fiber, bytes);
}

static void test_no_stack_at_all(void **state)
{
    uint8_t *hole = guarded(STILE__PAGE);
    const uint64_t wild[] = {0,
                             1,
                             8,
                             4088,
                             4095,
                             4096,
                             65535,
                             UINT64_MAX,
                             UINT64_MAX - 7,
                             UINT64_MAX - 4096,
                             1ull << 47,
                             1ull << 48,
                             1ull << 63,
                             (uintptr_t)hole - 8,
                             (1ull << 47) - 8,
                             (1ull << 48) - 8};
    (void)state;
    learn(1, by_rsp(16));
    learn(2, by_rsp(8));
    learn(3, SIGNAL_RULE);
    learn(4, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0));
    learn(5, stile__rule_make(STILE__RULE_DEREF_RSP, 8, 0, 0));
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++)
        for (uint32_t k = 1; k < 6; k++) {
            walk(wild[i], wild[i], function(k));
            WALKED(function(k));
            assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
        }
    /* Bounds that are not known yet, and a stack that can be read. */
    thread.stack = (struct stile__bounds){0, 0};
    calls_put((uintptr_t)memory + 800, 1, 1);
    walk((uintptr_t)memory + 800, 0, function(1));
    WALKED(function(1));
    assert_int_equal(record->reason, STILE__REASON_NONE);
    guarded_free(hole, STILE__PAGE);
}

/* Pages below what is in use are the program's to protect. */
static void test_guards_within_a_stack(void **state)
{
    uint8_t *guard = memory + 4 * STILE__PAGE;
    const uint64_t rsp = (uintptr_t)guard + STILE__PAGE + 16;
    (void)state;
    _Static_assert(STACK > 8 * STILE__PAGE, "there is room for a guard");
    assert_int_equal(mprotect(guard, STILE__PAGE, PROT_NONE), 0);
    walk(rsp, 0, function(9)); /* no rule: a snapshot, but not of the guard */
    assert_int_equal(record->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(record->stack_start, rsp - 16);
    walk((uintptr_t)guard + 64, 0, function(9)); /* a large frame, not written yet */
    WALKED(function(9));
    assert_int_equal(record->reason, STILE__REASON_UNKNOWN_STACK);
    walk(rsp + STILE__PAGE, 0, function(9));
    assert_int_equal(record->stack_start, rsp + STILE__PAGE - STILE__RED_ZONE);
    assert_int_equal(mprotect(guard, STILE__PAGE, PROT_READ | PROT_WRITE), 0);
}

static void test_debugging(void **state)
{
    uint64_t rsp = top() - 400;
    (void)state;
    region->debug = STILE__DEBUG_VERIFY;
    learn(1, by_rsp(16));
    learn(2, by_rsp(16));
    learn(3, SIGNAL_RULE);
    calls_put(rsp, 1, 2);
    walk(rsp, 0, function(1));
    assert_int_equal(record->kind, STILE__RECORD_VERIFY);
    assert_int_equal(record->n_new, 2);
    assert_int_equal(record->n_inline, 2);
    assert_int_equal(frame(1), after_call(2) - 1);
    for (int i = 0; i < STILE__REG_COUNT; i++)
        assert_int_equal(snapshot_reg(i), *reg(i));
    assert_int_equal(record->stack_start, rsp - STILE__RED_ZONE);
    assert_int_equal(record->stack_start + record->stack_len, top());
    assert_int_equal(record->walk_cycles, 0);
    signal_frame_put(rsp - 1000, rsp, 0, function(1)); /* of one stack there is a copy */
    walk(rsp - 1000, 0, function(3));
    assert_int_equal(record->kind, STILE__RECORD_VERIFY);
    assert_int_equal(record->n_new, 3);
    assert_int_equal(record->stack_start, rsp - 1000 - STILE__RED_ZONE);
    region->debug = STILE__DEBUG_WALK_TIME;
    walk(rsp, 0, function(1));
    WALKED(function(1), after_call(2) - 1);
    assert_true(record->walk_cycles > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_by_rsp),
        TEST(test_the_stacks_end),
        TEST(test_by_rbp),
        TEST(test_through_memory),
        TEST(test_by_another_register),
        TEST(test_plt),
        TEST(test_across_a_signal),
        TEST(test_across_stacks),
        TEST(test_signal_frames_in_a_circle),
        TEST(test_by_frame_pointer),
        TEST(test_stuck),
        TEST(test_stuck_far_up),
        TEST(test_blocks_of_dropped_frames),
        TEST(test_many_frames),
        TEST(test_blocks_run_out),
        TEST(test_depth),
        TEST(test_unloads),
        TEST(test_sessions),
        TEST(test_learned_in_between),
        TEST(test_walks_one_after_the_other),
        TEST(test_scribbles),
        TEST(test_a_fibers_stack),
        TEST(test_a_large_fibers_stack),
        TEST(test_no_stack_at_all),
        TEST(test_guards_within_a_stack),
        TEST(test_debugging),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
