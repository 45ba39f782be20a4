/* collector/settle.c: what was booked is brought to what the clocks say, and the rest told by its cause. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <time.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PERIOD 10000000ull

static struct hand_made h;
static const uint64_t code = 0x1230; /* of nothing that is mapped */

static int set_up(void **state)
{
    (void)state;
    hand_made_new(&h);
    /* A process of which nobody else can tell the clock. */
    h.process->start_cpu_ns = 0;
    h.process->used_cpu_ns = 1ull << 60;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    return 0;
}

/* The thread of slot 0 ticked n times, on two stacks 3 : 1, and ended with its clock at cpu_ns. */
static void thread_lived(uint32_t n, uint64_t cpu_ns)
{
    uint64_t one = code, other = code + 1;
    hand_made_tick(&h, &one, 1, STILE__REASON_NONE, n - n / 4);
    if (n >= 4)
        hand_made_tick(&h, &other, 1, STILE__REASON_NONE, n / 4);
    atomic_store(&h.slot->signals, 1);
    atomic_store(&h.slot->exit_cpu_ns, cpu_ns);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(h.process);
    assert_null(h.process->damage);
}

static uint64_t reason_ns(enum stile__reason reason)
{
    return h.process->reason_ns[reason];
}

static void settle_with(uint64_t process_ns)
{
    uint64_t sum = 0;
    atomic_store(&h.region->end_cpu_ns, process_ns);
    process_settle(h.process);
    for (uint32_t i = 0; i < h.process->tree.n_samples; i++)
        sum += h.process->tree.samples[i].ns;
    assert_int_equal(sum, h.process->cpu_ns);
}

static void test_a_thread_is_brought_to_its_clock(void **state)
{
    const struct call_tree *t = &h.process->tree;
    (void)state;
    thread_lived(20, 20 * PERIOD + 3456789);
    settle_with(20 * PERIOD + 3456789);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD + 3456789);
    assert_int_equal(t->n_samples, 2);
    assert_int_equal(t->samples[0].ns, 15 * PERIOD + 3456789); /* the heavier stack has it */
    assert_int_equal(t->samples[1].ns, 5 * PERIOD);
    assert_int_equal(t->samples[0].ticks, 15); /* it is no sample more */
}

static void test_and_down_to_it(void **state)
{
    (void)state;
    thread_lived(20, 20 * PERIOD - 3456789);
    settle_with(20 * PERIOD - 3456789);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD - 3456789);
    assert_int_equal(h.process->tree.samples[0].ns, 15 * PERIOD - 3456789);
}

static void test_from_where_it_is_accounted_for(void **state)
{
    (void)state;
    h.slot->base_cpu_ns = 7 * PERIOD;
    thread_lived(20, 27 * PERIOD + 5);
    settle_with(20 * PERIOD + 5);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD + 5);
}

static void test_a_short_thread_is_left_as_it_is(void **state)
{
    (void)state;
    thread_lived(1, PERIOD / 10);
    settle_with(PERIOD / 10);
    assert_int_equal(h.process->cpu_ns, PERIOD); /* nine others have none */
}

static void test_much_more_was_not_sampled(void **state)
{
    (void)state;
    thread_lived(20, 60 * PERIOD);
    settle_with(60 * PERIOD);
    assert_int_equal(h.process->cpu_ns, 60 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_UNSAMPLED), 40 * PERIOD);
    assert_int_equal(h.process->tree.samples[0].ns, 15 * PERIOD);
}

static void test_a_thread_without_a_tick(void **state)
{
    (void)state;
    atomic_store(&h.slot->exit_cpu_ns, 30 * PERIOD);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(h.process);
    assert_int_equal(h.process->n_threads, 1);
    settle_with(30 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_UNSAMPLED), 30 * PERIOD);
}

static void test_a_thread_that_lives_on(void **state)
{
    uint64_t frame = code;
    (void)state;
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 20);
    atomic_store(&h.slot->signals, 1);
    atomic_store(&h.slot->exit_cpu_ns, 20 * PERIOD + 99);
    process_drain(h.process);
    settle_with(20 * PERIOD + 99);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD + 99);
}

static void test_start_and_ends(void **state)
{
    (void)state;
    h.process->start_cpu_ns = 5000000;
    h.process->from_birth = true;
    thread_lived(20, 20 * PERIOD);
    settle_with(5000000 + 20 * PERIOD + 150000); /* the last is the thread's own end */
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 5150000);
    assert_int_equal(reason_ns(STILE__REASON_UNSAMPLED), 0);
    assert_int_equal(h.process->cpu_ns, 5150000 + 20 * PERIOD);
}

static void test_start_of_a_session_in_the_middle(void **state)
{
    (void)state;
    h.process->start_cpu_ns = 5000000;
    thread_lived(20, 20 * PERIOD);
    settle_with(5000000 + 20 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 0);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD);
}

static void test_images_before_this_one(void **state)
{
    (void)state;
    h.process->start_cpu_ns = 505000000;
    h.process->earlier_cpu_ns = 500000000; /* it is in their profiles */
    h.process->from_birth = true;
    thread_lived(20, 20 * PERIOD);
    settle_with(505000000 + 20 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 5000000);

    hand_made_free(&h);
    set_up(NULL);
    h.process->start_cpu_ns = 5000000000; /* of an image that nobody profiled: not ours */
    h.process->from_birth = true;
    thread_lived(20, 20 * PERIOD);
    settle_with(5000000000 + 20 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 0);
}

/* Short threads may be off by chance; what is more than that is not lost. */
/* A main thread of a millisecond that met a tick has the rest of the period by chance. */
static void test_chance_the_other_way_round(void **state)
{
    (void)state;
    thread_lived(20, 20 * PERIOD);
    uint64_t frame = code;
    atomic_store(&h.slot->generation, 2);
    atomic_store(&h.slot->tid, (uint32_t)getpid());
    atomic_store(&h.slot->exit_cpu_ns, 0);
    atomic_store(&h.slot->state, STILE__SLOT_LIVE);
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    atomic_store(&h.slot->exit_cpu_ns, 1000000);
    process_drain(h.process);
    settle_with(20 * PERIOD + 1000000);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD + 1000000);
    assert_int_equal(h.process->threads[0].booked_ns, 20 * PERIOD);
    assert_int_equal(h.process->threads[1].booked_ns, 1000000);
}

static void test_chance_explains_little(void **state)
{
    (void)state;
    thread_lived(20, 20 * PERIOD);
    h.process->threads_ended = 65;
    atomic_store(&h.region->slots_used, 4); /* so many at once */
    settle_with(20 * PERIOD + 13000000 + 150 * PERIOD);
    assert_int_equal(h.process->cpu_ns, 20 * PERIOD + 13000000 + 150 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 13000000);
    assert_int_equal(reason_ns(STILE__REASON_UNSAMPLED), 150 * PERIOD - 4 * PERIOD);
}

static void test_what_nothing_explains(void **state)
{
    (void)state;
    thread_lived(20, 20 * PERIOD);
    settle_with(50 * PERIOD);
    assert_int_equal(reason_ns(STILE__REASON_UNSAMPLED) + reason_ns(STILE__REASON_EXEC_AND_EXIT),
                     30 * PERIOD);
    assert_true(reason_ns(STILE__REASON_EXEC_AND_EXIT) <= 1000000); /* one thread's end is no more */
    assert_int_equal(h.process->cpu_ns, 50 * PERIOD);
}

static void test_a_process_that_nobody_saw_tick(void **state)
{
    (void)state;
    atomic_store(&h.slot->state, STILE__SLOT_FREE);
    atomic_store(&h.region->slots_used, 0);
    snprintf(h.process->command, sizeof h.process->command, "/usr/bin/true --version");
    h.process->start_cpu_ns = 800000;
    h.process->from_birth = true;
    settle_with(800000);
    assert_int_equal(h.process->n_threads, 1);
    assert_string_equal(h.process->threads[0].comm, "true");
    assert_int_equal(h.process->threads[0].tid, h.process->own_pid);
    assert_int_equal(reason_ns(STILE__REASON_EXEC_AND_EXIT), 800000);
}

/* Whatever the program leaves in place of its clocks, no sum comes out negative or larger than the real one. */
static void test_clocks_that_lie(void **state)
{
    uint64_t numbers = 5;
    (void)state;
    for (int i = 0; i < 200; i++) {
        hand_made_free(&h);
        set_up(NULL);
        h.process->used_cpu_ns = 100 * PERIOD;
        h.slot->base_cpu_ns = next_number(&numbers) >> next_number(&numbers) % 64;
        thread_lived(20, next_number(&numbers) >> next_number(&numbers) % 64);
        uint64_t all = next_number(&numbers) >> next_number(&numbers) % 64;
        settle_with(all);
        /* The clock of this very process is looked at, too. */
        struct timespec own;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
        uint64_t used = (uint64_t)own.tv_sec * 1000000000u + (uint64_t)own.tv_nsec;
        used = used > 100 * PERIOD ? used : 100 * PERIOD;
        assert_true(reason_ns(STILE__REASON_EXEC_AND_EXIT) <= used);
        assert_true(h.process->cpu_ns <= used + 20 * PERIOD);
    }
}

static void test_the_clock_of_a_process(void **state)
{
    (void)state;
    h.process->used_cpu_ns = 0;
    uint64_t before = process_cpu_ns();
    process_clock_read(h.process);
    assert_true(h.process->used_cpu_ns >= before && h.process->used_cpu_ns <= process_cpu_ns());
    h.process->pid = 0x3ffffff0; /* nobody's any more: what was seen last stays */
    before = h.process->used_cpu_ns;
    process_clock_read(h.process);
    assert_int_equal(h.process->used_cpu_ns, before);
}

static void test_clocks_in_words(void **state)
{
    char text[256];
    (void)state;
    process_clock_describe(h.process, text, sizeof text);
    assert_string_equal(text, "");
    atomic_store(&h.region->clocks[STILE__CLOCK_PERF], 1);
    atomic_store(&h.region->clocks[STILE__CLOCK_TIMER], 2);
    atomic_store(&h.region->perf_error, 1);
    process_clock_describe(h.process, text, sizeof text);
    assert_string_equal(text,
                        "perf cpu-clock and thread timer for 1 thread, thread timer for 2 threads; no perf: "
                        "Operation not permitted");
    for (size_t size = 1; size < sizeof text; size++) {
        memset(text, 'x', sizeof text);
        process_clock_describe(h.process, text, size);
        assert_true(strlen(text) < size);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_thread_is_brought_to_its_clock),
        TEST(test_and_down_to_it),
        TEST(test_from_where_it_is_accounted_for),
        TEST(test_a_short_thread_is_left_as_it_is),
        TEST(test_much_more_was_not_sampled),
        TEST(test_a_thread_without_a_tick),
        TEST(test_a_thread_that_lives_on),
        TEST(test_start_and_ends),
        TEST(test_start_of_a_session_in_the_middle),
        TEST(test_images_before_this_one),
        TEST(test_chance_explains_little),
        TEST(test_chance_the_other_way_round),
        TEST(test_what_nothing_explains),
        TEST(test_a_process_that_nobody_saw_tick),
        TEST(test_clocks_that_lie),
        TEST(test_the_clock_of_a_process),
        TEST(test_clocks_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
