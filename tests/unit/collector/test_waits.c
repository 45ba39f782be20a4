/* collector/waits.c: what records tell of waits that have ended. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

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

static void test_records(void **state)
{
    const struct call_tree *t = &p->waits.tree;
    (void)state;
    hand_made_wait(&h, 3, STILE__WAIT_MUTEX, 1, 5000, STILE__REASON_NONE);
    hand_made_wait(&h, 3, STILE__WAIT_MUTEX, 7, 1000, STILE__REASON_NONE);
    hand_made_wait(&h, 3, STILE__WAIT_READ, 1, 70000, STILE__REASON_NONE);
    hand_made_wait(&h, 2, STILE__WAIT_MUTEX | STILE__WAIT_WAKES, 2, 0, STILE__REASON_NO_UNWIND_INFO);
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
        assert_int_equal(t->nodes[node].address, hand_made_frame(i));
    assert_int_equal(p->ticks + p->cpu_ns + p->tree.n_samples, 0); /* no CPU time of anybody's */
}

static void test_depth(void **state)
{
    (void)state;
    p->depth = 2;
    hand_made_wait(&h, 3, STILE__WAIT_JOIN, 1, 9000, STILE__REASON_NONE);
    process_drain(p);
    const struct call_tree *t = &p->waits.tree;
    uint32_t node = t->samples[0].node;
    assert_int_equal(t->nodes[node].address, hand_made_frame(1));
    node = t->nodes[node].parent;
    assert_int_equal(t->nodes[node].address, hand_made_frame(2));
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
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS + 500000000, STILE__REASON_NONE);
    process_drain(p);
    assert_null(p->damage); /* a second beyond its life */
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS + 600000000000, STILE__REASON_NONE);
    expect_damage("a wait took longer than there was time");
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, 1, UINT64_MAX, STILE__REASON_NONE);
    expect_damage("a wait took longer than there was time");
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, (uint32_t)stile__wait_rate_max(RATE_NS) + 2, 1000,
                   STILE__REASON_NONE);
    expect_damage("a record stands for more waits than there can be");
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX | STILE__WAIT_WAKES, 1, 1, STILE__REASON_NONE);
    expect_damage("who ends a wait waits for nothing");
    const uint64_t reasons[] = {STILE__WAIT_NONE, STILE__WAIT_ELSEWHERE, STILE__WAIT_REASONS, 1ull << 9,
                                1ull << 40 | STILE__WAIT_MUTEX};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        hand_made_wait(&h, 1, reasons[i], 1, 1000, STILE__REASON_NONE);
        expect_damage("a wait's reason is unknown");
    }
    p->waits.on = false;
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, 1, 1000, STILE__REASON_NONE);
    expect_damage("a record tells of a wait, and there is no blocking profile");
    p->waits.on = true;
    p->threads[0].birth_ns = now_mono_ns(); /* a thread that has just begun */
    hand_made_wait(&h, 1, STILE__WAIT_MUTEX, 1, HAND_MADE_AGE_NS, STILE__REASON_NONE);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_records),
        TEST(test_depth),
        TEST(test_damage),
        TEST(test_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
