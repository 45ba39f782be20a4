/* collector/pieces.c: cuts move all there is, once; a toggle's pieces take their own records and no others. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/collector/names.h"
#include "profiler/collector/pieces.h"

static struct hand_made h;
static struct process *p;

static int set_up(void **state)
{
    (void)state;
    hand_made_new(&h);
    p = h.process;
    p->files[FILE_CPU].owns = p->numbered = true;
    strcpy(p->files[FILE_CPU].base, "/d/x.pb");
    names_next(p);
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

/* A tick of a piece. */
static void tick(uint32_t piece, uint32_t ticks)
{
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(&h, 1, &commit);
    r->n_new = r->n_inline = 1;
    r->words[0] = code();
    r->ticks = ticks;
    r->piece = piece;
    stile__ring_commit(&h.slot->head, commit);
}

static uint64_t sum(const struct call_tree *t)
{
    uint64_t ticks = 0;
    for (uint32_t i = 0; i < t->n_samples; i++)
        ticks += t->samples[i].ticks;
    return ticks;
}

/* The oldest piece that was cut, which the caller frees; NULL if there is none. */
static struct process *taken(void)
{
    struct process **at = &p->cut;
    while (*at != NULL && (*at)->next != NULL)
        at = &(*at)->next;
    struct process *piece = *at;
    *at = NULL;
    return piece;
}

static void expect_piece(const char *path, uint64_t ticks)
{
    struct process *piece = taken();
    assert_non_null(piece);
    assert_string_equal(piece->files[FILE_CPU].path, path);
    assert_int_equal(piece->ticks, ticks);
    assert_int_equal(piece->cpu_ns, ticks * 10000000);
    assert_int_equal(sum(&piece->tree), ticks);
    assert_int_equal(piece->state, PROCESS_ENDED);
    assert_ptr_equal(piece->origin, p);
    assert_true(piece->end_mono_ns >= piece->start_mono_ns);
    process_free(piece);
}

static void look(uint64_t now)
{
    process_drain(p);
    pieces_look(p, now);
    assert_null(p->damage);
}

static void test_interval(void **state)
{
    uint64_t from = now_mono_ns(), start = p->start_mono_ns, unix_start = p->start_unix_ns, total = 0;
    (void)state;
    p->interval_ns = 100000000;
    p->next_cut_ns = from + p->interval_ns;
    for (uint32_t i = 0; i < 10; i++) { /* a look each 30 ms */
        tick(0, i + 1);
        total += i + 1;
        look(from + i * 30000000);
    }
    assert_int_equal(pieces_next_ns(p), from + 300000000);
    struct process *first = taken();
    assert_int_equal(first->start_mono_ns, start);
    assert_int_equal(first->end_mono_ns, from + 120000000);
    assert_int_equal(first->ticks, 15);
    struct process *second = taken();
    assert_int_equal(second->start_mono_ns, from + 120000000);
    assert_int_equal(second->start_unix_ns, unix_start + (second->start_mono_ns - start));
    assert_int_equal(second->end_mono_ns, from + 210000000);
    assert_null(taken());
    assert_int_equal(first->ticks + second->ticks + p->ticks, total);
    assert_int_equal(sum(&first->tree) + sum(&second->tree) + sum(&p->tree), total);
    assert_int_equal(first->cpu_ns + second->cpu_ns + p->cpu_ns, total * 10000000);
    assert_string_equal(second->files[FILE_CPU].path, "/d/x.2.pb");
    assert_string_equal(p->files[FILE_CPU].path, "/d/x.3.pb");
    assert_int_equal(p->n_threads, 1);
    assert_int_equal(p->pieces_open, 2);
    process_free(first);
    process_free(second);
    assert_int_equal(p->pieces_open, 0);
}

static void test_interval_without_ticks(void **state)
{
    uint64_t now = now_mono_ns();
    (void)state;
    p->interval_ns = 100000000;
    p->next_cut_ns = now;
    look(now);
    expect_piece("/d/x.1.pb", 0);
    assert_int_equal(pieces_next_ns(p), now + 100000000);
    p->files[FILE_CPU].owns = false; /* a child's: files only where it ran */
    look(now + 100000000);
    assert_null(taken());
    assert_int_equal(p->start_mono_ns, now + 100000000);
    tick(0, 1);
    look(now + 550000000); /* late by several: one file, and the grid is kept */
    expect_piece("/d/x.2.pb", 1);
    assert_int_equal(pieces_next_ns(p), now + 600000000);
}

static void toggles(void)
{
    h.region->toggle = SIGUSR2;
    pieces_init(p);
    assert_true(p->toggles && p->numbered);
}

/* As the handler does it. */
static void start(uint32_t k)
{
    struct stile__piece *e = &h.region->pieces[k % STILE__PIECES];
    e->start_mono_ns = now_mono_ns();
    atomic_store(&e->state, STILE__PIECE_RUNNING);
    atomic_store(&h.region->pieces_started, k);
}

static void stop(uint32_t k)
{
    struct stile__piece *e = &h.region->pieces[k % STILE__PIECES];
    e->stop_mono_ns = now_mono_ns();
    atomic_store(&e->state, STILE__PIECE_STOPPED);
}

static uint64_t later(void)
{
    return now_mono_ns() + 500000000;
}

static void test_toggle(void **state)
{
    (void)state;
    toggles();
    look(now_mono_ns());
    assert_false(pieces_running(p));
    start(1);
    uint64_t begun = h.region->pieces[1].start_mono_ns;
    tick(1, 3);
    look(now_mono_ns());
    assert_true(pieces_running(p));
    stop(1);
    look(h.region->pieces[1].stop_mono_ns + 1000000); /* some time to arrive is left */
    assert_null(taken());
    tick(1, 4);
    look(later());
    struct process *piece = taken();
    assert_int_equal(piece->ticks, 7);
    assert_int_equal(piece->start_mono_ns, begun);
    assert_int_equal(piece->end_mono_ns, h.region->pieces[1].stop_mono_ns);
    assert_int_equal(atomic_load(&h.region->pieces_done), 1);
    process_free(piece);
    assert_false(pieces_running(p));
    look(later() + 500000000);
    assert_null(taken());
}

/* The clock's cut leaves alone what was stopped before it. */
static void test_interval_after_a_stop(void **state)
{
    (void)state;
    h.region->interval_ns = 100000000;
    toggles();
    start(1);
    tick(1, 1);
    look(now_mono_ns());
    stop(1);
    p->next_cut_ns = h.region->pieces[1].stop_mono_ns + 1000000;
    look(p->next_cut_ns); /* due, but the stop is older, and waits for what is on its way */
    assert_null(taken());
    look(later());
    struct process *piece = taken();
    assert_int_equal(piece->ticks, 1);
    assert_int_equal(piece->end_mono_ns, h.region->pieces[1].stop_mono_ns);
    assert_true(piece->end_mono_ns > piece->start_mono_ns);
    process_free(piece);
    assert_null(taken());
    assert_int_equal(pieces_next_ns(p), UINT64_MAX);
}

/* Started and stopped and started again between two looks. */
static void test_pieces_do_not_mix(void **state)
{
    (void)state;
    toggles();
    start(1);
    tick(1, 1);
    stop(1);
    start(2);
    tick(2, 20);
    stop(2);
    start(3);
    tick(3, 300);
    process_drain(p);
    assert_int_equal(p->ticks, 1); /* what is not its turn waits in the ring */
    pieces_look(p, later());
    expect_piece("/d/x.1.pb", 1);
    expect_piece("/d/x.2.pb", 20);
    assert_null(taken());
    look(later());
    assert_int_equal(p->ticks, 300);
    assert_int_equal(atomic_load(&h.region->pieces_done), 2);
    process_end(p);
    assert_null(taken());
    assert_true(p->files[FILE_CPU].owns); /* it was running */
    assert_int_equal(p->ticks, 300);
    assert_string_equal(p->files[FILE_CPU].path, "/d/x.3.pb");
}

static void test_late_records(void **state)
{
    (void)state;
    toggles();
    start(1);
    stop(1);
    look(later());
    expect_piece("/d/x.1.pb", 0);
    start(2);
    tick(1, 5); /* it was held up somewhere */
    tick(0, 6); /* and this one found its clock stopped */
    tick(2, 7);
    look(later());
    assert_int_equal(p->ticks, 7);
    assert_int_equal(p->late_ticks, 11);
}

static void test_end_takes_all(void **state)
{
    (void)state;
    toggles();
    for (uint32_t k = 1; k <= 10; k++) {
        start(k);
        tick(k, k);
        stop(k);
    }
    process_end(p); /* no time to arrive is left: the program is gone */
    for (uint64_t k = 1; k <= 10; k++) {
        struct process *piece = taken();
        assert_int_equal(piece->ticks, k);
        process_free(piece);
    }
    assert_null(taken());
    assert_int_equal(p->ticks, 0);
    assert_false(p->files[FILE_CPU].owns); /* nothing is left, so there is no file for it */
}

static void test_never_on(void **state)
{
    (void)state;
    toggles();
    look(later());
    process_end(p);
    assert_null(taken());
    assert_false(p->files[FILE_CPU].owns);
}

/* A piece that went on before we took it. */
static void test_reopened(void **state)
{
    (void)state;
    toggles();
    start(1);
    tick(1, 1);
    stop(1);
    look(now_mono_ns());
    atomic_store(&h.region->pieces[1].state, STILE__PIECE_RUNNING);
    tick(1, 2);
    look(later());
    assert_null(taken());
    stop(1);
    look(later());
    expect_piece("/d/x.1.pb", 3);
}

/* Whatever the program writes there, the times of a file make sense. */
static void test_nonsense(void **state)
{
    (void)state;
    toggles();
    start(1);
    h.region->pieces[1].start_mono_ns = UINT64_MAX;
    look(now_mono_ns());
    stop(1);
    h.region->pieces[1].stop_mono_ns = UINT64_MAX; /* another clock than ours: it is cut in the end */
    look(now_mono_ns());
    assert_null(taken());
    look(now_mono_ns() + 2000000000);
    expect_piece("/d/x.1.pb", 0);
    start(2);
    h.region->pieces[2].start_mono_ns = 0;
    stop(2);
    h.region->pieces[2].stop_mono_ns = 0;
    look(later() + 2000000000);
    expect_piece("/d/x.2.pb", 0);
    tick(1000, 1);
    process_drain(p);
    assert_string_equal(p->damage, "a record belongs to no piece");
    pieces_look(p, later());
    atomic_store(&h.region->pieces_started, 0x7fffffff);
    for (uint32_t i = 0; i < STILE__PIECES; i++)
        atomic_store(&h.region->pieces[i].state, 0x55);
    process_end(p);
}

static void test_a_slot_with_waiting_records(void **state)
{
    (void)state;
    toggles();
    start(1);
    stop(1);
    start(2);
    tick(2, 9);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(p);
    assert_int_equal(atomic_load(&h.slot->state),
                     STILE__SLOT_EXITED); /* they are not lost with their thread */
    look(later());
    expect_piece("/d/x.1.pb", 0);
    look(later());
    assert_int_equal(p->ticks, 9);
    assert_int_equal(atomic_load(&h.slot->state), STILE__SLOT_FREE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_interval),
        TEST(test_interval_without_ticks),
        TEST(test_toggle),
        TEST(test_interval_after_a_stop),
        TEST(test_pieces_do_not_mix),
        TEST(test_late_records),
        TEST(test_end_takes_all),
        TEST(test_never_on),
        TEST(test_reopened),
        TEST(test_nonsense),
        TEST(test_a_slot_with_waiting_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
