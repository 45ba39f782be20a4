/* collector/waits.c: waits that have ended and waits that go on add up to what they took, whatever becomes of a look; and
 * nothing that a program leaves does harm. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/waits.h"
#include "profiler/region/check.h"

#define RATE_NS 1000u
#define HOUR_NS 3600000000000ull

static struct hand_made h;
static struct process *p;

static int set_up(void **state)
{
    (void)state;
    hand_made_waits_new(&h, RATE_NS, HOUR_NS);
    p = h.process;
    atomic_store(&h.slot->tid, 0x3ffffff0); /* nobody's: what it waits elsewhere is not known */
    stile__stack_begin(&h.slot->status);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    return 0;
}

/* Frame i of a stack, which is in this program's text. */
static uint64_t frame(uint64_t i)
{
    return (uintptr_t)&set_up + i;
}

/* Fills in a record of n frames, leaf first, from `first` on. */
static void record_fill(struct stile__record *r, uint32_t n, uint64_t first)
{
    r->kind = STILE__RECORD_WALKED;
    r->flags = STILE__IS_WAIT;
    r->n_new = r->n_inline = n;
    for (uint32_t i = 0; i < n; i++)
        r->words[i] = frame(first + i);
}

/* Writes the record of a wait that has ended. */
static void wait_write(uint32_t n_frames, uint64_t why, uint32_t count, uint64_t delay_ns,
                       enum stile__reason reason)
{
    const struct stile__wait_words words = {delay_ns, why, frame(1)};
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(&h, n_frames + STILE__WAIT_WORDS, &commit);
    record_fill(r, n_frames, 1);
    r->reason = (uint8_t)reason;
    r->ticks = count;
    memcpy(r->words + n_frames, &words, sizeof words);
    stile__ring_commit(&h.slot->head, commit);
}

/* The thread begins to wait: what it leaves, then its state. */
static void wait_begin(enum stile__wait_reason why, uint64_t since_ns)
{
    memset(h.left, 0, STILE__PAGE);
    h.left->since_ns = since_ns;
    h.left->hook = frame(1);
    record_fill(&h.left->record, 3, 1);
    h.left->record.cells = (uint8_t)stile__record_cells(3 + STILE__WAIT_WORDS);
    h.left->record.frames_block = h.left->record.block = STILE__BLOCK_NONE;
    h.left->record.ticks = 1;
    assert_true(stile__stack_wait(&h.slot->status, why));
}

/* It comes back: as the agent does, it tells the rest. Returns when the wait ended. */
static uint64_t wait_end(uint64_t why)
{
    uint64_t status = stile__stack_resume(&h.slot->status, NULL), now = now_mono_ns();
    uint64_t told = h.left->told_ns[stile__stack_side(status)];
    wait_write(3, why, told == 0, now - (told != 0 ? told : h.left->since_ns), STILE__REASON_NONE);
    return now;
}

static void test_records(void **state)
{
    const struct call_tree *t = &p->waits.tree;
    (void)state;
    wait_write(3, STILE__WAIT_MUTEX, 1, 5000, STILE__REASON_NONE);
    wait_write(3, STILE__WAIT_MUTEX, 7, 1000, STILE__REASON_NONE);
    wait_write(3, STILE__WAIT_READ, 1, 70000, STILE__REASON_NONE);
    wait_write(2, STILE__WAIT_MUTEX | STILE__WAIT_WAKES, 2, 0, STILE__REASON_NO_UNWIND_INFO);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.n, 9);
    assert_int_equal(p->waits.ns, 76000);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_MUTEX], 8);
    assert_int_equal(p->waits.reason_ns[STILE__WAIT_READ], 70000);
    assert_int_equal(p->waits.wakes, 2);
    assert_int_equal(p->waits.part_n[STILE__REASON_NO_UNWIND_INFO], 2);
    assert_int_equal(t->n_samples, 3);
    assert_int_equal(t->samples[0].label, STILE__WAIT_MUTEX);
    assert_int_equal(t->samples[0].ticks, 8);
    assert_int_equal(t->samples[0].ns, 6000);
    assert_int_equal(t->samples[1].node, t->samples[0].node); /* the same stack, another reason */
    assert_int_equal(t->samples[1].label, STILE__WAIT_READ);
    assert_int_equal(t->samples[2].label, STILE__WAIT_MUTEX | STILE__WAIT_WAKES);
    for (uint32_t i = 1, node = t->samples[0].node; i <= 3; i++, node = t->nodes[node].parent)
        assert_int_equal(t->nodes[node].address, frame(i));
    assert_int_equal(p->ticks + p->cpu_ns + p->tree.n_samples, 0); /* no CPU time of anybody's */
}

static void test_depth(void **state)
{
    (void)state;
    p->depth = 2;
    wait_write(3, STILE__WAIT_JOIN, 1, 9000, STILE__REASON_NONE);
    process_drain(p);
    const struct call_tree *t = &p->waits.tree;
    uint32_t node = t->samples[0].node;
    assert_int_equal(t->nodes[node].address, frame(1));
    node = t->nodes[node].parent;
    assert_int_equal(t->nodes[node].address, frame(2));
    node = t->nodes[node].parent;
    assert_int_equal(t->nodes[node].mapping, CALL_TREE_REASON);
    assert_int_equal(p->waits.part_ns[STILE__REASON_TRUNCATED], 9000);
}

static void expect_damage(const char *why)
{
    uint64_t ns = p->waits.ns;
    process_drain(p);
    assert_non_null(p->damage);
    assert_string_equal(p->damage, why);
    assert_int_equal(p->waits.ns, ns);
    p->damage = NULL;
    atomic_store(&h.slot->tail, atomic_load(&h.slot->head));
}

static void test_damage(void **state)
{
    (void)state;
    wait_write(1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS + 500000000, STILE__REASON_NONE);
    process_drain(p);
    assert_null(p->damage); /* a second beyond its life */
    wait_write(1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS + 600000000000, STILE__REASON_NONE);
    expect_damage("a wait took longer than there was time");
    wait_write(1, STILE__WAIT_MUTEX, 1, UINT64_MAX, STILE__REASON_NONE);
    expect_damage("a wait took longer than there was time");
    wait_write(1, STILE__WAIT_MUTEX, (uint32_t)stile__wait_rate_max(RATE_NS) + 2, 1000, STILE__REASON_NONE);
    expect_damage("a record stands for more waits than there can be");
    wait_write(1, STILE__WAIT_MUTEX | STILE__WAIT_WAKES, 1, 1, STILE__REASON_NONE);
    expect_damage("who ends a wait waits for nothing");
    const uint64_t reasons[] = {STILE__WAIT_NONE, STILE__WAIT_ELSEWHERE, STILE__WAIT_REASONS, 1ull << 9,
                                1ull << 40 | STILE__WAIT_MUTEX};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        wait_write(1, reasons[i], 1, 1000, STILE__REASON_NONE);
        expect_damage("a wait's reason is unknown");
    }
    p->waits.on = false;
    wait_write(1, STILE__WAIT_MUTEX, 1, 1000, STILE__REASON_NONE);
    expect_damage("a record tells of a wait, and there is no blocking profile");
    p->waits.on = true;
    p->threads[0].birth_ns = now_mono_ns(); /* a thread that has just begun */
    wait_write(1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS, STILE__REASON_NONE);
    expect_damage("a wait took longer than there was time");
}

static void test_lost(void **state)
{
    (void)state;
    atomic_store(&h.slot->lost_waits, 5);
    atomic_store(&h.slot->lost_delay_ns, 80000);
    process_drain(p);
    atomic_store(&h.slot->lost_waits, 6);
    atomic_store(&h.slot->lost_delay_ns, 90000);
    atomic_store(&h.slot->signals, 3); /* CPU ticks have their own */
    process_drain(p);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.lost, 6);
    assert_int_equal(p->waits.lost_ns, 90000);
    assert_int_equal(p->waits.n, 6);
    assert_int_equal(p->waits.part_n[STILE__REASON_BUFFER_FULL], 6);
    assert_int_equal(p->waits.tree.n_samples, 1);
    assert_int_equal(p->waits.tree.samples[0].label, 0);
    assert_int_equal(p->reason_ticks[STILE__REASON_BUFFER_FULL], 0);
    atomic_store(&h.slot->lost_delay_ns, UINT64_MAX / 2);
    process_drain(p);
    assert_string_equal(p->damage, "waits took longer than there was time");
}

/* Three looks and the thread's own rest are the whole wait, to the nanosecond. */
static void test_generations(void **state)
{
    uint64_t since = now_mono_ns() - 50000000, before = 0;
    (void)state;
    wait_begin(STILE__WAIT_COND, since);
    for (int i = 0; i < 3; i++) {
        waits_look(p, true);
        assert_null(p->damage);
        assert_int_equal(p->waits.n, 1);
        assert_true(p->waits.ns > before && p->waits.ns <= now_mono_ns() - since);
        assert_int_equal(h.left->told_ns[stile__stack_side(atomic_load(&h.slot->status))],
                         since + p->waits.ns);
        before = p->waits.ns;
        usleep(2000);
    }
    assert_int_equal(p->waits.open, 3);
    uint64_t end = wait_end(STILE__WAIT_COND);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.ns, end - since);
    assert_int_equal(p->waits.n, 1);
    assert_int_equal(p->threads[0].waited_ns, end - since);
    assert_int_equal(p->waits.tree.n_samples, 1); /* one stack, one reason */

    wait_begin(STILE__WAIT_COND, now_mono_ns() - 1000000); /* the next one counts anew */
    waits_look(p, true);
    assert_int_equal(p->waits.n, 2);
}

/* A period of generations; none before it is over, unless the books are wanted now. */
static void test_period(void **state)
{
    (void)state;
    wait_begin(STILE__WAIT_COND, now_mono_ns() - 1000000);
    p->waits.next_clock_ns = UINT64_MAX;
    waits_look(p, false);
    assert_int_equal(p->waits.n, 0);
    p->waits.next_ns = now_mono_ns();
    waits_look(p, false);
    assert_int_equal(p->waits.n, 1);
    assert_true(p->waits.next_ns > now_mono_ns() + HOUR_NS / 2);
    waits_look(p, false);
    assert_int_equal(p->waits.open, 1);
    p->waits.advance_ns = 0; /* each round */
    waits_look(p, false);
    waits_look(p, false);
    assert_int_equal(p->waits.open, 3);
}

/* What a thread that did not wait for the reader has taken back is void: its own record tells all. */
static void test_broken(void **state)
{
    uint64_t since = now_mono_ns() - 50000000, seen;
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        uint64_t ns = p->waits.ns;
        p->debug = round < 2 ? 0 : STILE__DEBUG_OWNERSHIP;
        wait_begin(STILE__WAIT_READ, since);
        if (round % 2 == 1)
            waits_look(p, true);
        uint64_t looked = p->waits.ns, told = h.left->told_ns[0] + h.left->told_ns[1];
        assert_true((looked > ns) == (round % 2 == 1));
        assert_int_equal(stile__scan_begin(&h.slot->status, &seen), STILE__SCAN_TAKEN);
        atomic_store(&h.slot->status, (seen & ~STILE__STACK_SCAN) + (2ull << STILE__STACK_SCANS_SHIFT));
        waits_left_read(p, 0, seen);
        assert_null(p->damage);
        assert_int_equal(p->waits.ns, looked);
        assert_int_equal(p->waits.broken, round + 1);
        assert_int_equal(h.left->told_ns[stile__stack_side(atomic_load(&h.slot->status))], told);
        uint64_t end = wait_end(STILE__WAIT_READ);
        process_drain(p);
        assert_int_equal(p->waits.ns, ns + (end - since));
        assert_int_equal(p->waits.n, round + 1);
    }
}

/* Shorter than the rate, so far: chance decides, when it is over. */
static void test_short(void **state)
{
    (void)state;
    p->waits.rate_ns = HOUR_NS;
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
    h.left->told_ns[1] = 77; /* of a wait before it */
    h.left->told_ns[0] = 0;
    assert_int_equal(stile__stack_side(atomic_load(&h.slot->status)), 0);
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(p->waits.n + p->waits.ns, 0);
    assert_int_equal(h.left->told_ns[1], 0);
    p->waits.rate_ns = RATE_NS;
    waits_look(p, true);
    assert_int_equal(p->waits.n, 1);
}

/* Of who runs, executes in its wait, is being read, or is gone, nothing is read. */
static void test_not_given_away(void **state)
{
    uint64_t seen;
    (void)state;
    p->debug = STILE__DEBUG_OWNERSHIP;
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
    stile__stack_resume(&h.slot->status, NULL);
    fill_random(h.left, STILE__PAGE, &(uint64_t){4});
    waits_look(p, true);
    assert_true(stile__stack_wait_executing(&h.slot->status, STILE__WAIT_COLLECTOR));
    waits_look(p, true);
    stile__stack_resume(&h.slot->status, NULL);
    assert_true(stile__stack_wait(&h.slot->status, STILE__WAIT_READ));
    assert_int_equal(stile__scan_begin(&h.slot->status, &seen), STILE__SCAN_TAKEN);
    waits_look(p, true);
    assert_true(stile__scan_end(&h.slot->status, seen));
    stile__stack_die(&h.slot->status);
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(p->waits.n + p->waits.ns + p->waits.checks, 0);
}

/* Frames in blocks are the thread's until its record is in the ring. */
static void test_blocks_stay(void **state)
{
    struct stile__block *b = stile__region_block(h.region, p->size, 2);
    (void)state;
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
    b->next = STILE__BLOCK_NONE;
    b->used = 16;
    memcpy(b->data, (const uint64_t[]){frame(4), frame(5)}, 16);
    atomic_store(&h.region->blocks_used[0], 4);
    h.left->record.n_new = 5;
    h.left->record.frames_block = 2;
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(atomic_load(&h.region->blocks_used[0]), 4);
    uint32_t node = p->waits.tree.samples[0].node;
    for (uint32_t i = 1; i <= 5; i++, node = p->waits.tree.nodes[node].parent)
        assert_int_equal(p->waits.tree.nodes[node].address, frame(i));
    assert_int_equal(node, CALL_TREE_ROOT);
}

static void damaged_left(const char *why)
{
    uint64_t side = stile__stack_side(atomic_load(&h.slot->status)), told = h.left->told_ns[side];
    waits_look(p, true);
    assert_non_null(p->damage);
    assert_string_equal(p->damage, why);
    assert_int_equal(p->waits.n + p->waits.ns, 0);
    uint64_t status = atomic_load(&h.slot->status);
    assert_int_equal(status & STILE__STACK_SCAN, 0); /* whatever was found, it is given back */
    assert_int_equal(h.left->told_ns[stile__stack_side(status)], told);
    p->damage = NULL;
    stile__stack_resume(&h.slot->status, NULL);
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
}

static void test_damaged_pages(void **state)
{
    uint64_t now = now_mono_ns();
    (void)state;
    wait_begin(STILE__WAIT_READ, now - 1000000);
    h.left->since_ns = now + HOUR_NS;
    damaged_left("a wait began when it cannot have");
    h.left->since_ns = now - 2 * HAND_MADE_AGE_NS;
    damaged_left("a wait began when it cannot have");
    h.left->told_ns[0] = h.left->told_ns[1] = now + HOUR_NS;
    damaged_left("a wait was told up to when it cannot have been");
    h.left->told_ns[0] = h.left->told_ns[1] = 1;
    damaged_left("a wait was told up to when it cannot have been");
    h.left->record.cells = STILE__LEFT_CELLS + 1;
    damaged_left("a record is longer than what was written");
    h.left->record.flags = 0;
    damaged_left("what a waiting thread left is no wait");
    h.left->record.kind = STILE__RECORD_PAD;
    damaged_left("what a waiting thread left is no wait");
    h.left->record.unloads = 5;
    damaged_left("a record counts libraries that were not unloaded");
    stile__stack_resume(&h.slot->status, NULL);
    wait_begin((enum stile__wait_reason)200, now - 1000000);
    damaged_left("a wait's reason is unknown");
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(p->waits.n, 1);
}

/* A library has gone, and the maps have not been read since: the wait is told in the next round. */
static void test_maps_first(void **state)
{
    (void)state;
    process_drain(p);
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
    atomic_store(&h.region->unloads, STILE__UNLOADS_ONE);
    h.left->record.unloads = 1;
    waits_look(p, true);
    assert_int_equal(p->waits.n, 0);
    process_drain(p);
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(p->waits.n, 1);
}

static struct process *taken(void)
{
    struct process *piece = p->cut;
    assert_non_null(piece);
    p->cut = piece->next;
    return piece;
}

/* Each piece has its share of a wait that goes on. */
static void test_cut(void **state)
{
    uint64_t since = now_mono_ns() - 50000000;
    (void)state;
    p->interval_ns = HOUR_NS;
    wait_begin(STILE__WAIT_READ, since);
    p->next_cut_ns = now_mono_ns();
    pieces_look(p, p->next_cut_ns);
    struct process *piece = taken();
    assert_int_equal(piece->waits.n, 1);
    assert_true(piece->waits.ns >= 50000000);
    assert_int_equal(p->waits.n + p->waits.ns, 0);
    assert_int_equal(p->waits.tree.n_samples, 0);
    usleep(1000);
    waits_look(p, true);
    assert_int_equal(p->waits.n, 0); /* it was counted */
    assert_true(p->waits.ns > 0);
    uint32_t node = p->waits.tree.samples[0].node;
    for (uint32_t i = 1; i <= 3; i++, node = p->waits.tree.nodes[node].parent)
        assert_int_equal(p->waits.tree.nodes[node].address, frame(i));
    uint64_t end = wait_end(STILE__WAIT_READ);
    process_drain(p);
    assert_int_equal(piece->waits.ns + p->waits.ns, end - since);
    process_free(piece);
}

/* With the process gone what it left is read all the same, whatever the period. */
static void test_end(void **state)
{
    (void)state;
    h.region->ticks_wanted = 0;
    p->waits.alone = true;
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 50000000);
    process_end(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_READ], 1);
    assert_true(p->waits.reason_ns[STILE__WAIT_READ] >= 50000000);
    assert_int_equal(p->cpu_ns, 0); /* nothing was settled: nobody wanted ticks */
}

static volatile sig_atomic_t aborted;

static void on_abort(int signal)
{
    (void)signal;
    aborted = 1;
}

/* Plants a read by who does not own the stack. */
static void violation(void *arg)
{
    const char *said = arg;
    uint64_t seen;
    hand_made_waits_new(&h, RATE_NS, HOUR_NS);
    p = h.process;
    p->debug = STILE__DEBUG_OWNERSHIP;
    atomic_store(&h.slot->tid, 0x3ffffff0);
    signal(SIGABRT, on_abort);
    stile__stack_begin(&h.slot->status);
    wait_begin(STILE__WAIT_READ, now_mono_ns() - 1000000);
    waits_look(p, true);
    CHILD_CHECK(!aborted && p->damage == NULL && p->waits.n == 1 && p->waits.checks == 1);
    if (strstr(said, "later") != NULL) {
        h.left->since_ns = now_mono_ns() + HOUR_NS;
        CHILD_CHECK(stile__scan_begin(&h.slot->status, &seen) == STILE__SCAN_TAKEN);
    } else {
        seen = atomic_load(&h.slot->status) | STILE__STACK_SCAN;
        if (strstr(said, "running") != NULL)
            stile__stack_resume(&h.slot->status, NULL);
    }
    uint64_t ns = p->waits.ns;
    waits_left_read(p, 0, seen);
    for (int i = 0; i < 1000 && !aborted; i++)
        usleep(1000);
    CHILD_CHECK(aborted && p->damage != NULL && p->waits.ns == ns);
    CHILD_CHECK(strstr(p->damage, "stack ownership violated: the collector reads what thread") != NULL);
    CHILD_CHECK(strstr(p->damage, said) != NULL);
    hand_made_free(&h);
}

static void test_violations(void **state)
{
    (void)state;
    assert_int_equal(in_child(violation, "which is waiting, reason read, without a reader"), 0);
    assert_int_equal(in_child(violation, "which is running, without a reader"), 0);
    assert_int_equal(in_child(violation, "with a reader; its wait begins later than now"), 0);
}

/* Any bytes: damage, or nothing. */
static void test_hostile_pages(void **state)
{
    uint64_t numbers = 3;
    unsigned survived = 0, damaged = 0;
    (void)state;
    p->interval_ns = HOUR_NS;
    for (unsigned round = 0; round < 10000; round++) {
        uint64_t pick = next_number(&numbers);
        stile__stack_begin(&h.slot->status);
        wait_begin((enum stile__wait_reason)(1 + pick % STILE__WAIT_READ), now_mono_ns() - 1000000);
        struct stile__record *r = &h.left->record;
        if (pick & 1u << 8) {
            fill_random(h.left, STILE__PAGE, &numbers);
        } else { /* nearly right: the checks are passed more often */
            fill_random(r->words, (STILE__LEFT_CELLS - 1) * STILE__CELL_BYTES, &numbers);
            fill_random(&r->n_new, 8, &numbers);
            r->n_inline = (uint32_t)(pick >> 16 & 31);
            r->n_new = r->n_inline + (uint32_t)(pick >> 24 & 1) * (r->n_new % 5000);
            r->frames_block = (uint32_t)(pick >> 32 & 7);
            r->kept = 0;
            r->kind = (uint8_t)(STILE__RECORD_WALKED + (pick >> 40) % 3);
            r->block = r->kind == STILE__RECORD_WALKED ? STILE__BLOCK_NONE : (uint32_t)(pick >> 44 & 7);
            r->stack_len = (uint32_t)next_number(&numbers) % (STILE__SNAPSHOT_MAX + 1);
            r->n_barriers = r->kind == STILE__RECORD_WALKED ? 0 : (uint32_t)(pick >> 48) % 100;
            r->reason = (uint8_t)((pick >> 56) % (STILE__REASON_COUNT + 1));
            r->cells = STILE__LEFT_CELLS;
        }
        for (uint32_t i = 0; i < 8; i++)
            fill_random(stile__region_block(h.region, p->size, i), 64, &numbers);
        atomic_store(&h.region->blocks_used[0], next_number(&numbers) & 0xff);
        uint64_t used = atomic_load(&h.region->blocks_used[0]);
        if (pick & 1u << 9)
            atomic_store(&h.slot->status, next_number(&numbers) >> next_number(&numbers) % 64);
        if ((pick & 31u << 10) == 0)
            h.slot->birth_mono_ns = next_number(&numbers);
        waits_look(p, true);
        assert_int_equal(atomic_load(&h.region->blocks_used[0]), used);
        survived += p->damage == NULL;
        damaged += p->damage != NULL;
        p->damage = NULL;
        if (round % 100 == 99) {
            p->next_cut_ns = now_mono_ns();
            pieces_look(p, p->next_cut_ns);
            if (p->cut != NULL)
                process_free(taken());
            p->damage = NULL;
        }
    }
    assert_true(survived > 100 && damaged > 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_records),       TEST(test_depth),         TEST(test_damage),
        TEST(test_lost),          TEST(test_generations),   TEST(test_period),
        TEST(test_broken),        TEST(test_short),         TEST(test_not_given_away),
        TEST(test_blocks_stay),   TEST(test_damaged_pages), TEST(test_maps_first),
        TEST(test_cut),           TEST(test_end),           cmocka_unit_test(test_violations),
        TEST(test_hostile_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
