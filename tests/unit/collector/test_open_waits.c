/* collector/waits.c: waits that go on add up to what they took, whatever becomes of a look; and nothing that a program
 * leaves does harm. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

#include <pthread.h>
#include <sched.h>
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

/* Three looks and the thread's own rest are the whole wait, to the nanosecond. */
static void test_generations(void **state)
{
    uint64_t since = now_mono_ns() - 50000000, before = 0;
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_COND, since);
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
    uint64_t end = hand_made_wait_end(&h, STILE__WAIT_COND);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.ns, end - since);
    assert_int_equal(p->waits.n, 1);
    assert_int_equal(p->threads[0].waited_ns, end - since);
    assert_int_equal(p->waits.tree.n_samples, 1); /* one stack, one reason */

    hand_made_wait_begin(&h, STILE__WAIT_COND, now_mono_ns() - 1000000); /* the next one counts anew */
    waits_look(p, true);
    assert_int_equal(p->waits.n, 2);
}

/* A period of generations; none before it is over, unless the books are wanted now. */
static void test_period(void **state)
{
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_COND, now_mono_ns() - 1000000);
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
        hand_made_wait_begin(&h, STILE__WAIT_READ, since);
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
        uint64_t end = hand_made_wait_end(&h, STILE__WAIT_READ);
        process_drain(p);
        assert_int_equal(p->waits.ns, ns + (end - since));
        assert_int_equal(p->waits.n, round + 1);
    }
}

/* The thread has gone on while the reader was stopped, and is leaving its next wait: half a page is no damage. */
static void test_broken_in_the_middle(void **state)
{
    uint64_t seen;
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
    assert_int_equal(stile__scan_begin(&h.slot->status, &seen), STILE__SCAN_TAKEN);
    atomic_store(&h.slot->status, (seen & ~STILE__STACK_SCAN) + (2ull << STILE__STACK_SCANS_SHIFT));
    stile__stack_resume(&h.slot->status, NULL);
    h.left->record.flags = 0;
    waits_left_read(p, 0, seen);
    assert_null(p->damage);
    assert_int_equal(p->waits.broken, 1);
    assert_int_equal(p->waits.n + p->waits.ns, 0);
}

/* Shorter than the rate, so far: chance decides, when it is over. */
static void test_short(void **state)
{
    (void)state;
    p->waits.rate_ns = HOUR_NS;
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
    b->next = STILE__BLOCK_NONE;
    b->used = 16;
    memcpy(b->data, (const uint64_t[]){hand_made_frame(4), hand_made_frame(5)}, 16);
    atomic_store(&h.region->blocks_used[0], 4);
    h.left->record.n_new = 5;
    h.left->record.frames_block = 2;
    waits_look(p, true);
    assert_null(p->damage);
    assert_int_equal(atomic_load(&h.region->blocks_used[0]), 4);
    uint32_t node = p->waits.tree.samples[0].node;
    for (uint32_t i = 1; i <= 5; i++, node = p->waits.tree.nodes[node].parent)
        assert_int_equal(p->waits.tree.nodes[node].address, hand_made_frame(i));
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
}

static void test_damaged_pages(void **state)
{
    uint64_t now = now_mono_ns();
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_READ, now - 1000000);
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
    hand_made_wait_begin(&h, (enum stile__wait_reason)200, now - 1000000);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, since);
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
        assert_int_equal(p->waits.tree.nodes[node].address, hand_made_frame(i));
    uint64_t end = hand_made_wait_end(&h, STILE__WAIT_READ);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 50000000);
    process_end(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_READ], 1);
    assert_true(p->waits.reason_ns[STILE__WAIT_READ] >= 50000000);
    assert_int_equal(p->cpu_ns, 0); /* nothing was settled: nobody wanted ticks */
}

/* The thread waits and comes back as it likes, and we look all the time: not a nanosecond is lost or told twice. */
enum { RACE_WAITS = 3000 };
static _Atomic bool race_over;
static uint64_t race_ns;

static void *race_thread(void *arg)
{
    uint64_t numbers = 8;
    for (unsigned i = 0; i < RACE_WAITS; i++) {
        uint64_t since = now_mono_ns();
        hand_made_wait_begin(&h, STILE__WAIT_COND, since);
        for (uint64_t left = next_number(&numbers) % 4; left != 0; left--)
            sched_yield();
        race_ns += hand_made_wait_end(&h, STILE__WAIT_COND) - since;
        while (atomic_load(&h.slot->head) - atomic_load(&h.slot->tail) > p->size.ring_cells / 2)
            sched_yield();
    }
    atomic_store(&race_over, true);
    return arg;
}

static void test_races(void **state)
{
    pthread_t thread;
    (void)state;
    if (UNDER_TSAN)
        skip(); /* the word's functions are the product's own objects, of which it sees nothing */
    p->waits.rate_ns = 1;
    p->debug = STILE__DEBUG_OWNERSHIP;
    assert_int_equal(pthread_create(&thread, NULL, race_thread, NULL), 0);
    while (!atomic_load(&race_over)) {
        waits_look(p, true);
        process_drain(p);
        if (p->damage != NULL)
            break;
    }
    assert_null(p->damage);
    pthread_join(thread, NULL);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.n, RACE_WAITS);
    assert_int_equal(p->waits.ns, race_ns);
    assert_true(p->waits.open > 0);
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
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns() - 1000000);
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
        hand_made_wait_begin(&h, (enum stile__wait_reason)(1 + pick % STILE__WAIT_READ),
                             now_mono_ns() - 1000000);
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
        TEST(test_generations),
        TEST(test_period),
        TEST(test_broken),
        TEST(test_broken_in_the_middle),
        TEST(test_short),
        TEST(test_not_given_away),
        TEST(test_blocks_stay),
        TEST(test_damaged_pages),
        TEST(test_maps_first),
        TEST(test_cut),
        TEST(test_end),
        TEST(test_races),
        cmocka_unit_test(test_violations),
        TEST(test_hostile_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
