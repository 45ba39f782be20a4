/* collector/elsewhere.c: what of a thread's life is in no book is booked once, in the piece that it belongs to. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

#include <stdio.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/waits.h"

#define MS_NS   1000000ull
#define HOUR_NS 3600000000000ull

static struct hand_made h;
static struct process *p;

static int set_up(void **state)
{
    (void)state;
    hand_made_waits_new(&h, 1000, HOUR_NS);
    p = h.process;
    h.slot->birth_mono_ns = h.region->start_mono_ns + 5000 * MS_NS;
    stile__stack_begin(&h.slot->status);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    return 0;
}

static uint64_t booked(void)
{
    return p->waits.reason_ns[STILE__WAIT_ELSEWHERE];
}

/* The thread ends after this life; it has used and been kept from the processor for so long. */
static void thread_ends(uint64_t life_ns, uint64_t cpu_ns, uint64_t run_delay_ns)
{
    stile__stack_die(&h.slot->status);
    h.slot->base_cpu_ns = 7 * MS_NS;
    atomic_store(&h.slot->exit_mono_ns, h.slot->birth_mono_ns + life_ns);
    atomic_store(&h.slot->exit_cpu_ns, cpu_ns != 0 ? 7 * MS_NS + cpu_ns : 0);
    atomic_store(&h.slot->run_delay_ns, run_delay_ns);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(p);
    assert_null(p->damage);
}

static void test_an_end(void **state)
{
    (void)state;
    hand_made_wait(&h, 0, STILE__WAIT_MUTEX, 1, 150 * MS_NS, STILE__REASON_NONE);
    process_drain(p);
    thread_ends(1000 * MS_NS, 200 * MS_NS, 50 * MS_NS);
    assert_int_equal(booked(), 600 * MS_NS);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_ELSEWHERE], 1);
    assert_int_equal(p->waits.tree.n_samples, 2);
    const struct call_sample *s = &p->waits.tree.samples[1];
    assert_int_equal(s->label, STILE__WAIT_ELSEWHERE);
    assert_int_equal(p->waits.tree.nodes[s->node].mapping, CALL_TREE_ELSEWHERE);
    assert_int_equal(p->waits.tree.nodes[s->node].parent, CALL_TREE_ROOT);
    assert_int_equal(p->threads[0].waited_ns, 150 * MS_NS);
}

/* Noise, more than there is, and what is not known. */
static void test_nothing_to_book(void **state)
{
    static const uint64_t lives[][3] = {{100 * MS_NS, 99 * MS_NS, 500000}, /* half a millisecond */
                                        {30000 * MS_NS, 29980 * MS_NS, 0}, /* one in 1500 */
                                        {100 * MS_NS, 90 * MS_NS, 90 * MS_NS},
                                        {100 * MS_NS, 10 * MS_NS, UINT64_MAX - 1},
                                        {100 * MS_NS, UINT64_MAX / 2, 0},
                                        {100 * MS_NS, 10 * MS_NS, UINT64_MAX}, /* not known */
                                        {100 * MS_NS, 0, 0}};
    (void)state;
    for (uint32_t i = 0; i < sizeof lives / sizeof *lives; i++) {
        atomic_store(&h.slot->generation, i + 1);
        atomic_store(&h.slot->tid, 0x3ffffff0);
        stile__stack_begin(&h.slot->status);
        atomic_store(&h.slot->state, STILE__SLOT_LIVE);
        thread_ends(lives[i][0], lives[i][1], lives[i][2]);
        assert_int_equal(booked(), 0);
        assert_int_equal(p->threads[i].clocked, i < 5);
    }
    assert_int_equal(p->n_threads, 7);
}

/* Of a live thread the kernel tells: this one sleeps for all of its life but what it has used. */
static void test_alive(void **state)
{
    (void)state;
    h.slot->base_cpu_ns = 0;
    waits_look(p, true);
    assert_null(p->damage);
    uint64_t life = now_mono_ns() - h.slot->birth_mono_ns;
    assert_true(p->threads[0].clocked);
    assert_true(booked() > life / 2 && booked() <= life);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_ELSEWHERE], 1);
    uint64_t before = booked();
    usleep(150000);
    waits_look(p, true);
    assert_true(booked() - before >= 100 * MS_NS && booked() <= now_mono_ns() - h.slot->birth_mono_ns);
}

/* What goes on in a hook is not elsewhere, though it is in no record yet. */
static void test_open_waits(void **state)
{
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_READ, h.slot->birth_mono_ns);
    waits_look(p, true);
    assert_null(p->damage);
    assert_true(p->threads[0].clocked);
    assert_true(p->waits.reason_ns[STILE__WAIT_READ] > 50000 * MS_NS);
    assert_true(booked() < 50 * MS_NS); /* the time between two looks at the clock */
}

/* Nor is what has ended, and lies in the ring. */
static void test_ended_waits(void **state)
{
    (void)state;
    waits_look(p, false); /* the thread is known */
    h.slot->base_cpu_ns = 0;
    uint64_t life = now_mono_ns() - h.slot->birth_mono_ns;
    hand_made_wait(&h, 0, STILE__WAIT_MUTEX, 1, life, STILE__REASON_NONE);
    waits_look(p, true);
    assert_null(p->damage);
    assert_true(p->threads[0].clocked);
    assert_int_equal(p->waits.reason_ns[STILE__WAIT_MUTEX], life);
    assert_true(booked() < 50 * MS_NS);
}

/* Waits that are recorded by chance may be fewer than there were: that is no time elsewhere. */
static void test_by_chance(void **state)
{
    static const uint64_t lives[][2] = {{9000 * MS_NS, 0}, {30000 * MS_NS, 26000 * MS_NS}};
    (void)state;
    p->waits.rate_ns = 1000 * MS_NS;
    for (uint32_t i = 0; i < sizeof lives / sizeof *lives; i++) {
        atomic_store(&h.slot->generation, i + 1);
        atomic_store(&h.slot->tid, 0x3ffffff0);
        stile__stack_begin(&h.slot->status);
        atomic_store(&h.slot->state, STILE__SLOT_LIVE);
        for (int n = 0; n < 4; n++)
            hand_made_wait(&h, 0, STILE__WAIT_MUTEX, 1000, 1000 * MS_NS, STILE__REASON_NONE);
        thread_ends(lives[i][0], 1, 0);
        assert_int_equal(booked(), lives[i][1] != 0 ? lives[i][1] - 1 : 0);
    }
}

static struct process *taken(void)
{
    struct process *piece = p->cut;
    assert_non_null(piece);
    p->cut = piece->next;
    return piece;
}

/* Each piece has its share. */
static void test_pieces(void **state)
{
    (void)state;
    p->interval_ns = HOUR_NS;
    p->files[FILE_BLOCK].owns = true;
    p->next_cut_ns = now_mono_ns();
    pieces_look(p, p->next_cut_ns);
    struct process *piece = taken();
    uint64_t first = piece->waits.reason_ns[STILE__WAIT_ELSEWHERE];
    assert_true(first > 25000 * MS_NS);
    assert_int_equal(booked(), 0);
    usleep(150000);
    thread_ends(first + 70 * MS_NS, 1, 0);
    assert_int_equal(booked(), 70 * MS_NS - 1);
    assert_int_equal(p->waits.reason_n[STILE__WAIT_ELSEWHERE], 1);
    process_free(piece);
}

static void test_toggles(void **state)
{
    (void)state;
    p->toggles = true;
    waits_look(p, true);
    thread_ends(1000 * MS_NS, 1, 0);
    assert_int_equal(booked(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_end),      TEST(test_nothing_to_book), TEST(test_alive),  TEST(test_open_waits),
        TEST(test_ended_waits), TEST(test_by_chance),       TEST(test_pieces), TEST(test_toggles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
