/* signal/walk.c and handler.c with barriers, on a stack that the test makes up: what a record tells is the whole stack, and
 * what tells none leaves barriers and base alone. */
#include "tests/unit/support.h"

#include <string.h>
#include <sys/mman.h>

#include "barriers/stack_lock.h"
#include "tests/unit/signal/barrier_world.h"

#define STACK     (1u << 20)
#define BLOCK     256u
#define FUNCTIONS 200u
#define FRAMES    4000u
#define NEAR      9u /* frames at the leaf that never have a barrier */
#define JMP       7u /* a stub's second instruction */

static uint64_t regs[NGREG];
static struct stile__place place = {.regs = regs};
static uint8_t *memory, *code_memory;
static uint64_t code;
static uint32_t n_kinds, n_rows;
static struct stile__bounds real_stack;

/* The stack, outermost first: frame i is in function who[i], its registers begin at rsp[i]. */
static uint32_t who[FRAMES], n_frames;
static uint64_t rsp[FRAMES], rbp;
static int32_t size_of[FUNCTIONS];

static uint64_t function(uint32_t i)
{
    return code + (uint64_t)i * BLOCK;
}

static uint64_t after_call(uint32_t i)
{
    return function(i) + 0x21;
}

static void learn(uint32_t i, uint64_t rule)
{
    struct stile__rules *rules = stile__region_rules(world.region, world.session.size);
    rules->kinds[n_kinds] = rule;
    (&rules->arena[0][0])[n_rows] = n_kinds++;
    atomic_store(stile__rules_block(rules, 2048, function(i)), n_rows++ << 8 | 1);
}

static void put(uint64_t address, uint64_t word)
{
    *(uint64_t *)address = word;
}

static uint64_t top(void)
{
    return (uintptr_t)memory + STACK;
}

static int set_up_for(enum stile__barriers_wish wish)
{
    const size_t chunk = 1u << STILE__RULES_CHUNK_BITS;
    memory = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    code_memory = mmap(NULL, 2 * chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || code_memory == MAP_FAILED)
        return -1;
    code = ((uintptr_t)code_memory + chunk - 1) & ~(uint64_t)(chunk - 1);
    real_stack = stile__thread.stack;
    world_begin(wish);
    stile__thread.stack = (struct stile__bounds){(uintptr_t)memory, top()};
    n_kinds = 1;
    n_rows = 2 * STILE__RULES_PAGE_WORDS;
    uint64_t number = code >> STILE__RULES_CHUNK_BITS;
    atomic_store(&stile__region_rules(world.region, world.session.size)->chunks[stile__rules_hash(number)],
                 number << 16 | 1);
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        memset((void *)function(i), 0xcc, BLOCK);
        memcpy((void *)(after_call(i) - 5), "\xe8\0\0\0", 5);
        size_of[i] = 16 + 16 * (int32_t)(i % 4);
        learn(i, stile__rule_make(STILE__RULE_RSP, size_of[i], 0, 0));
    }
    n_frames = 0;
    memset(regs, 0, sizeof regs);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_for(STILE__BARRIERS_ALL);
}

static int tear_down(void **state)
{
    (void)state;
    world_end();
    stile__thread.stack = real_stack;
    munmap(memory, STACK);
    munmap(code_memory, 2u << STILE__RULES_CHUNK_BITS);
    return 0;
}

static uint64_t *slot(uint32_t frame)
{
    return (uint64_t *)(rsp[frame] + (uint64_t)size_of[who[frame]] - 8);
}

static uint64_t ra_of(uint32_t frame)
{
    return frame == 0 ? 0 : after_call(who[frame - 1]);
}

static uint32_t stub_at(uint32_t frame)
{
    return stile__stub_of(*slot(frame));
}

static void push(uint32_t f)
{
    if (n_frames == FRAMES)
        return;
    who[n_frames] = f;
    rsp[n_frames] = (n_frames == 0 ? top() : rsp[n_frames - 1]) - (uint64_t)size_of[f];
    *slot(n_frames) = ra_of(n_frames);
    n_frames++;
}

static void push_many(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        push(1 + (n_frames * 7 + i) % 150);
}

/* Returns as the processor would. */
static void pop(uint32_t n)
{
    for (; n > 0 && n_frames > 1; n--) {
        uint32_t stub = stub_at(--n_frames);
        if (stub != STILE__STUB_NONE) {
            assert_int_equal(stile__stub_ra(stub), ra_of(n_frames));
            atomic_store(&stile__stub_entries[stub].hit, 1);
        }
    }
}

static uint32_t stubs(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_frames; i++)
        n += stub_at(i) != STILE__STUB_NONE;
    return n;
}

static void tick_at(uint64_t sp, uint64_t pc)
{
    regs[REG_RSP] = sp;
    regs[REG_RIP] = pc;
    regs[REG_RBP] = rbp;
    world_tick(&place);
    if (world.broken != NULL)
        fail_msg("%s", world.broken);
}

/* A tick here; the stack that it tells is this one. */
static void sample(void)
{
    static uint64_t ticks;
    uint64_t pc = function(who[n_frames - 1]) + ticks++ % 200;
    tick_at(rsp[n_frames - 1], pc);
    assert_int_equal(world.told, stile__barriers_go(world.region)); /* a base, on which others may be built */
    assert_int_equal(world.record.reason, STILE__REASON_NONE);
    assert_int_equal(world.n, n_frames);
    assert_int_equal(world.frames[0], pc);
    for (uint32_t i = 1; i < n_frames; i++)
        if (world.frames[i] != after_call(who[n_frames - 1 - i]) - 1)
            fail_msg("frame %u of %u (%u kept) is another's", i, n_frames, world.kept);
    for (uint32_t i = 0; i < n_frames; i++)
        if (*slot(i) != ra_of(i) &&
            (stub_at(i) == STILE__STUB_NONE || stile__stub_ra(stub_at(i)) != ra_of(i)))
            fail_msg("frame %u of %u returns elsewhere", i, n_frames);
}

/* Where barriers stand, and what a sample costs then. */
static void test_places(void **state)
{
    (void)state;
    push_many(40);
    sample();
    assert_int_equal(world.kept, 0);
    for (uint32_t i = 0; i < n_frames; i++)
        assert_int_equal(stub_at(i) != STILE__STUB_NONE, i > 0 && n_frames - i >= NEAR);
    sample();
    assert_int_equal(world.record.n_new, NEAR);
    assert_int_equal(world.kept, 40 - NEAR);
    pop(20);
    sample();
    assert_int_equal(world.record.n_new, 1);
    push_many(30);
    sample();
    assert_int_equal(world.kept, 19);
    assert_int_equal(atomic_load(&world_counts()->hit), 20 - NEAR + 1);
}

/* No barrier where no call precedes, where frames are guessed, in a slot whose caller's are, and in the frame of a function
 * that reads its own return address. */
static void test_no_places(void **state)
{
    (void)state;
    push_many(5);
    memset((void *)(after_call(151) - 5), 0xcc, 5); /* no call */
    learn(152, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0));
    size_of[152] = 16;
    push(151);
    push_many(3);
    push(152);
    rbp = rsp[n_frames - 1]; /* which all others keep */
    put(rbp, 0);
    push_many(3);
    learn(153, stile__rule_make(STILE__RULE_RSP, size_of[153], 0, 0) | STILE__RULE_READS_RA);
    push(153);
    push_many(20);
    for (int again = 0; again < 3; again++) { /* by the table, by the memo */
        tick_at(rsp[n_frames - 1], function(who[n_frames - 1]));
        assert_true(world.told);
        assert_int_equal(world.n, n_frames);
        for (uint32_t i = 1; i < n_frames; i++)
            assert_int_equal(world.frames[i], after_call(who[n_frames - 1 - i]) - 1);
    }
    rbp = 0;
    for (uint32_t i = 0; i < n_frames; i++) {
        bool none = i == 0 || n_frames - i < NEAR || i == 6 /* returns to 151 */ || i == 9 /* is 152 */ ||
                    i == 10 /* returns to it */ || i == 13 /* is 153 */;
        if ((stub_at(i) == STILE__STUB_NONE) != none)
            fail_msg("frame %u of %u", i, n_frames);
    }
}

static void inside_a_stub(uint64_t into)
{
    push_many(60);
    sample();
    pop(NEAR - 1);
    for (int again = 0; again < 3; again++) {
        uint32_t stub = stub_at(n_frames - 1);
        assert_int_not_equal(stub, STILE__STUB_NONE);
        uint64_t ra = ra_of(n_frames - 1);
        n_frames--;
        atomic_store(&stile__stub_entries[stub].hit, into != 0);
        for (int i = 0; i < 3; i++) {
            tick_at(rsp[n_frames - 1], stile__stub_address(stub) + into);
            assert_true(world.told);
            assert_int_equal(world.n, n_frames);
            assert_int_equal(world.frames[0], ra);
            for (uint32_t k = 1; k < n_frames; k++)
                assert_int_equal(world.frames[k], after_call(who[n_frames - 1 - k]) - 1);
            assert_int_equal(stile__stub_entries[stub].state, STILE__STUB_LEAVING);
            assert_int_equal(stile__stub_ra(stub), ra);
        }
        /* A tick that gets no stack tells the same leaf. */
        atomic_store(&world.slot->stack_lock, 1);
        tick_at(rsp[n_frames - 1], stile__stub_address(stub) + into);
        assert_int_equal(world.record.reason, STILE__REASON_STACK_LOCKED);
        assert_int_equal(world.frames[0], ra);
        atomic_store(&world.slot->stack_lock, 0);
        sample();
        assert_int_equal(stile__stub_entries[stub].state, STILE__STUB_IDLE);
    }
}

static void test_leaf_at_a_stubs_beginning(void **state)
{
    (void)state;
    inside_a_stub(0);
}

static void test_leaf_at_a_stubs_jump(void **state)
{
    (void)state;
    inside_a_stub(JMP);
}

/* Where it pays: not on shallow stacks, and on deep ones from the second sample on. */
static void test_auto(void **state)
{
    (void)state;
    world.session.barriers = STILE__BARRIERS_AUTO;
    push_many(99);
    for (int i = 0; i < 3; i++)
        sample();
    assert_int_equal(stubs(), 0);
    push_many(1);
    sample();
    assert_int_equal(stubs(), 0);
    sample();
    assert_in_range(stubs(), 2, 8);
    sample();
    assert_int_equal(world.record.n_new, NEAR);
    uint32_t before = stubs();
    pop(95);
    sample();
    push_many(90);
    sample(); /* still trusted, but no more are placed */
    assert_in_range(stubs(), 0, before);
    assert_int_equal(atomic_load(&world_counts()->placed), before);
}

/* Until barriers may be placed none is. Once they may not any more those that stand stay, are looked through, and are not
 * used again: somebody may have copied them. */
static void test_not_allowed(void **state)
{
    (void)state;
    atomic_store(&world.region->barriers_state, STILE__BARRIERS_UNVETTED);
    push_many(60);
    sample();
    assert_int_equal(stubs(), 0);
    atomic_store(&world.region->barriers_state, STILE__BARRIERS_GO);
    sample();
    assert_int_not_equal(stubs(), 0);
    stile__barriers_state_off(world.region, STILE__BARRIERS_OFF_COPIES);
    uint64_t copy[20], was[20], placed = atomic_load(&world_counts()->placed);
    for (uint32_t i = 0; i < 20; i++) {
        copy[i] = *slot(30 + i);
        was[i] = ra_of(30 + i);
    }
    sample();
    assert_int_equal(world.kept, 0);
    assert_int_equal(world.record.n_new, n_frames);
    for (uint32_t round = 0; round < 300; round++) { /* others are where the copied ones were */
        n_frames = 30;
        push_many(40);
        sample();
    }
    assert_int_equal(atomic_load(&world_counts()->placed), placed);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_not_equal(copy[i], was[i]);
        assert_int_equal(stile__stub_through(copy[i]), was[i]);
    }
}

/* A stub that is not believed is what it stands for. */
static void test_untrusted_stubs_are_looked_through(void **state)
{
    (void)state;
    push_many(40);
    sample();
    for (uint32_t i = 25; i < 32; i++)
        if (stub_at(i) != STILE__STUB_NONE)
            atomic_store(&stile__stub_entries[stub_at(i)].hit, 1);
    sample();
    assert_int_equal(world.kept, 24);
    /* One that was copied from elsewhere: another slot's. */
    n_frames = 1;
    for (uint32_t i = 0; i < 40; i++)
        push(4 + 4 * (i % 30)); /* all of one size */
    sample();
    pop(10);
    sample();
    uint32_t last = stub_at(n_frames - 1);
    assert_int_not_equal(last, STILE__STUB_NONE);
    for (uint32_t i = 0; i < 20; i++)
        push(4 + 4 * (i % 30));
    *slot(n_frames - 2) = stile__stub_address(last);
    tick_at(rsp[n_frames - 1], function(who[n_frames - 1]));
    assert_true(world.told);
    assert_int_equal(world.frames[2], stile__stub_ra(last) - 1);
    assert_int_equal(world.n, n_frames);
    assert_int_equal(world.kept, 30);
}

/* On a handler's stack, above what a signal has interrupted. */
static void test_across_a_signal(void **state)
{
    (void)state;
    learn(160, stile__rule_make(STILE__RULE_SIGNAL, 0, 0, 0));
    push_many(60);
    sample();
    push_many(20); /* without barriers yet */
    uint32_t below = n_frames, before = stubs();
    uint64_t interrupted = function(who[below - 1]) + 9;
    /* The kernel's frame, and the handler's. */
    uint64_t frame = rsp[below - 1] - 1024;
    memset((void *)frame, 0, 512);
    put(frame + 40 + 120, rsp[below - 1]);
    put(frame + 40 + 128, interrupted);
    for (uint32_t n = 1; n < 30; n++) {
        uint64_t sp = frame - 16 * (uint64_t)n; /* n calls of function 4, whose frame is 16 bytes */
        for (uint32_t i = 0; i < n; i++)
            put(sp + 8 + 16 * (uint64_t)i, after_call(i + 1 < n ? 4 : 160));
        tick_at(sp, function(4));
        assert_true(world.told);
        assert_int_equal(world.n, n + 1 + below);
        assert_int_equal(world.frames[n], after_call(160) - 1);
        assert_int_equal(world.frames[n + 1], interrupted);
        for (uint32_t k = 1; k < below; k++)
            assert_int_equal(world.frames[n + 1 + k], after_call(who[below - 1 - k]) - 1);
        assert_int_equal(stubs(), before); /* nothing was placed in what was interrupted */
        /* nor in the slot that returns to the kernel's */
        assert_int_equal(*(uint64_t *)(frame - 8), after_call(160));
    }
    sample();
}

/* Interrupted inside a stub, by a handler with barriers of its own. */
static void test_inside_a_stub_beyond_a_signal(void **state)
{
    (void)state;
    learn(160, stile__rule_make(STILE__RULE_SIGNAL, 0, 0, 0));
    push_many(60);
    sample();
    pop(NEAR - 1);
    uint32_t stub = stub_at(n_frames - 1);
    assert_int_not_equal(stub, STILE__STUB_NONE);
    uint64_t ra = ra_of(n_frames - 1);
    n_frames--;
    uint64_t frame = rsp[n_frames - 1] - 1024;
    memset((void *)frame, 0, 512);
    put(frame + 40 + 120, rsp[n_frames - 1]);
    put(frame + 40 + 128, stile__stub_address(stub));
    uint64_t sp = frame - 16 * 30;
    for (uint32_t round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < 30; i++) /* the handler calls again and again: its frames are new */
            put(sp + 8 + 16 * (uint64_t)i, after_call(i + 1 < 30 ? 4 : 160));
        for (uint32_t again = 0; again < 3; again++) {
            tick_at(sp, function(4));
            assert_true(world.told);
            assert_int_equal(world.frames[31], ra);
            assert_int_equal(world.n, 31 + n_frames);
            assert_int_equal(stile__stub_ra(stub), ra);
            assert_int_equal(stile__stub_entries[stub].state, STILE__STUB_LEAVING);
        }
        assert_true(world.kept > 20);
    }
    sample();
    assert_int_equal(stile__stub_entries[stub].state, STILE__STUB_IDLE);
}

/* What tells no whole stack of the thread's own leaves chain and base as they were. */
static void nothing_changes(uint64_t sp, uint64_t pc, enum stile__reason reason)
{
    struct stile__barriers before = stile__thread.barriers;
    uint32_t on_stack = stubs(), n_base = world.n_base;
    for (int i = 0; i < 5; i++) {
        tick_at(sp, pc);
        assert_false(world.told);
        assert_int_equal(world.record.reason, reason);
        /* A snapshot may end at a barrier: it keeps frames, and is no base. */
        assert_true(world.record.kept == 0 || world.record.kind == STILE__RECORD_SNAPSHOT);
    }
    assert_int_equal(stubs(), on_stack);
    assert_int_equal(world.n_base, n_base);
    assert_int_equal(stile__thread.barriers.first, before.first);
    assert_int_equal(stile__thread.barriers.n_live, before.n_live);
    assert_int_equal(stile__thread.barriers.pending, STILE__STUB_NONE);
}

static void test_no_bases(void **state)
{
    const size_t bytes = 16 * STILE__PAGE;
    uint8_t *fiber = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_true(fiber != MAP_FAILED);
    push_many(40);
    sample();
    pop(15);
    push_many(30); /* the chain's youngest are dead now */
    /* A fiber: its end is found, it has room for barriers, it is none of the thread's stack. */
    uint64_t at = (uintptr_t)fiber + bytes / 2;
    for (uint32_t i = 0; i < 50; i++)
        put(at + 8 + 16 * (uint64_t)i, i < 49 ? after_call(4) : 0);
    struct stile__barriers before = stile__thread.barriers;
    for (int i = 0; i < 5; i++) {
        tick_at(at, function(4));
        assert_false(world.told);
        assert_int_equal(world.record.reason, STILE__REASON_NONE);
        assert_int_equal(world.n, 50);
        for (uint32_t k = 0; k < 50; k++)
            assert_int_equal(*(uint64_t *)(at + 8 + 16 * (uint64_t)k), k < 49 ? after_call(4) : 0);
    }
    assert_int_equal(stile__thread.barriers.first, before.first);
    assert_int_equal(stile__thread.barriers.n_live, before.n_live);
    /* Somebody has the stack. */
    atomic_store(&world.slot->stack_lock, 77);
    nothing_changes(rsp[n_frames - 1], function(3), STILE__REASON_STACK_LOCKED);
    atomic_store(&world.slot->stack_lock, 0);
    /* Not as deep as that. */
    world.session.depth = 20;
    nothing_changes(rsp[n_frames - 1], function(who[n_frames - 1]), STILE__REASON_TRUNCATED);
    world.session.depth = STILE__DEPTH_MAX;
    /* A frame without a rule, above the leaf and some more. */
    uint64_t ra = *slot(n_frames - 15);
    *slot(n_frames - 15) = code + (FUNCTIONS + 5) * BLOCK;
    nothing_changes(rsp[n_frames - 1], function(who[n_frames - 1]), STILE__REASON_NONE);
    *slot(n_frames - 15) = ra;
    sample();
    assert_true(world.kept > 0);
    assert_true(world.kept <= 25);
    munmap(fiber, bytes);
}

/* The ring is full: nobody will hear of this tick. */
static void test_a_record_that_does_not_fit(void **state)
{
    (void)state;
    push_many(40);
    sample();
    pop(15);
    push_many(30);
    uint64_t head = atomic_load(&world.slot->head);
    struct stile__barriers before = stile__thread.barriers;
    uint32_t on_stack = stubs();
    const struct stile__tick tick = {.ticks = 1};
    regs[REG_RSP] = rsp[n_frames - 1];
    regs[REG_RIP] = function(who[n_frames - 1]);
    atomic_store(&world.slot->tail, head - STILE__RING_CELLS_MAX);
    for (int i = 0; i < 5; i++)
        stile__tick_take(&world.session, world.region, &stile__thread, &place, &tick);
    assert_int_equal(atomic_load(&world.slot->lost_ticks), 5);
    assert_int_equal(atomic_load(&world.slot->head), head);
    assert_memory_equal(&stile__thread.barriers, &before, sizeof before);
    assert_int_equal(stubs(), on_stack);
    atomic_store(&world.slot->tail, head);
    sample();
    assert_int_equal(world.kept, 24);
}

/* A stack whose frames go on in blocks, and there is none: no base, and nothing is placed. */
static void test_no_blocks(void **state)
{
    (void)state;
    push_many(3000);
    atomic_store(&world.region->blocks_ready, 0);
    nothing_changes(rsp[n_frames - 1], function(who[n_frames - 1]), STILE__REASON_BUFFER_FULL);
    assert_int_equal(stubs(), 0);
    atomic_store(&world.region->blocks_ready, 256);
    sample();
    sample();
    assert_int_equal(world.record.n_new, NEAR);
}

/* Whatever the program does: kept and new are the whole stack. */
static void any_program(enum stile__barriers_wish wish)
{
    uint64_t rng = 3, kept = 0, all = 0;
    world.session.barriers = wish;
    push_many(30);
    for (int round = 0; round < (UNDER_SANITIZER ? 5000 : 20000); round++) {
        uint64_t r = next_number(&rng);
        uint32_t n = (uint32_t)(r >> 8) % (r >> 20 & 3 ? 12 : 120);
        if (r % 3 == 0)
            pop(n);
        else if (r % 3 == 1)
            for (uint32_t i = 0; i < n && n_frames < (round % 1000 < 500 ? 1000 : 60); i++)
                push(1 + (uint32_t)(next_number(&rng) % 150));
        if (r >> 40 & 1)
            n_frames -= n_frames > 20 ? (uint32_t)(r >> 50) % 10 : 0; /* without a return */
        if (r >> 41 & 1)
            for (uint32_t i = 0; i < 40; i++) /* frames that were there are written over */
                put(rsp[n_frames - 1] - 8 - 8 * (uint64_t)i, next_number(&rng));
        sample();
        kept += world.kept;
        all += world.n;
    }
    assert_true(wish == STILE__BARRIERS_AUTO || kept > all / 4);
    assert_true(atomic_load(&world_counts()->placed) > 100);
}

static void test_any_program_all(void **state)
{
    (void)state;
    any_program(STILE__BARRIERS_ALL);
}

static void test_any_program_on(void **state)
{
    (void)state;
    any_program(STILE__BARRIERS_ON);
}

static void test_any_program_auto(void **state)
{
    (void)state;
    any_program(STILE__BARRIERS_AUTO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_places),
        TEST(test_no_places),
        TEST(test_not_allowed),
        TEST(test_auto),
        TEST(test_leaf_at_a_stubs_beginning),
        TEST(test_leaf_at_a_stubs_jump),
        TEST(test_untrusted_stubs_are_looked_through),
        TEST(test_across_a_signal),
        TEST(test_inside_a_stub_beyond_a_signal),
        TEST(test_no_bases),
        TEST(test_a_record_that_does_not_fit),
        TEST(test_no_blocks),
        TEST(test_any_program_all),
        TEST(test_any_program_on),
        TEST(test_any_program_auto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
