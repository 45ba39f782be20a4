/* barriers/ownership.c and ownership_check.c: each transition and each refusal; what orders what, under the thread sanitizer. */
#include "tests/unit/support.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "barriers/ownership.h"
#include "barriers/ownership_check.h"
#include "profiler/region/layout.h"

#define ROUNDS (UNDER_SANITIZER ? 4000 : 40000)
#define WORDS  32u

static _Atomic uint64_t status;
static _Atomic uint32_t freezing;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&status, 0);
    atomic_store(&freezing, 0);
    return 0;
}

static uint64_t word(void)
{
    return atomic_load(&status);
}

static enum stile__stack_state now(void)
{
    return stile__stack_state(word());
}

static void test_life_of_a_thread(void **state)
{
    (void)state;
    assert_int_equal(now(), STILE__STACK_NONE);
    stile__stack_begin(&status);
    assert_int_equal(now(), STILE__STACK_RUNNING);
    assert_true(stile__stack_wait(&status, STILE__WAIT_COND));
    assert_int_equal(now(), STILE__STACK_WAITING);
    assert_int_equal(stile__stack_reason(word()), STILE__WAIT_COND);
    uint64_t waited = word();
    assert_true(stile__stack_resume(&status, &freezing) == waited);
    assert_int_equal(now(), STILE__STACK_RUNNING);
    assert_int_equal(stile__stack_reason(word()), STILE__WAIT_NONE);
    assert_int_equal(stile__stack_number(word()), stile__stack_number(waited));
    assert_true(stile__stack_wait(&status, STILE__WAIT_MUTEX));
    assert_int_equal(stile__stack_number(word()), stile__stack_number(waited) + 1);
    stile__stack_die(&status); /* out of a wait that was left by no return */
    assert_int_equal(now(), STILE__STACK_DEAD);
    stile__stack_begin(&status); /* another thread has the slot */
    assert_true(stile__stack_wait(&status, STILE__WAIT_MUTEX));
    assert_int_equal(stile__stack_number(word()), stile__stack_number(waited) + 2);
}

static void test_refusals(void **state)
{
    uint64_t seen = 1, was;
    (void)state;
    assert_false(stile__stack_wait(&status, STILE__WAIT_MUTEX)); /* nobody is there */
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_GONE);
    assert_int_equal(word(), 0);
    stile__stack_begin(&status);
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_RUNNING);
    assert_false(stile__stack_resume_try(&status, &freezing, &was));
    uint64_t running = word();
    assert_true(stile__stack_resume(&status, &freezing) == running); /* its handler has been here */
    assert_true(stile__stack_wait(&status, STILE__WAIT_MUTEX));
    uint64_t waiting = word();
    assert_false(stile__stack_wait(&status, STILE__WAIT_MUTEX)); /* a wait inside a wait */
    assert_true(word() == waiting);
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
    assert_true(seen == (waiting | STILE__STACK_SCAN) && word() == seen);
    uint64_t other = 77;
    assert_int_equal(stile__scan_begin(&status, &other), STILE__SCAN_BUSY);
    assert_false(stile__stack_resume_try(&status, &freezing, &was));
    assert_true(was == seen);
    assert_true(stile__scan_end(&status, seen));
    assert_false(stile__scan_end(&status, seen)); /* once */
    assert_int_equal(stile__stack_side(word()), !stile__stack_side(waiting));
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
    assert_true(stile__scan_drop(&status, seen));
    assert_int_equal(stile__stack_side(word()), !stile__stack_side(waiting));
    atomic_store(&freezing, 1);
    assert_false(stile__stack_resume_try(&status, &freezing, &was));
    assert_true(stile__stack_resume_try(&status, NULL, &was)); /* for whom no freeze is */
    stile__stack_die(&status);
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_GONE);
    assert_false(stile__stack_wait(&status, STILE__WAIT_MUTEX));
}

/* A reason is for waits of one kind. */
static void test_table_of_executing_waits(void **state)
{
    (void)state;
    unsigned executing = 0;
    for (unsigned why = 0; why <= STILE__WAIT_REASONS; why++) {
        const bool executes = stile__wait_executes(why);
        executing += executes;
        atomic_store(&status, 0);
        stile__stack_begin(&status);
        assert_true(stile__stack_wait(&status, why) == !executes);
        atomic_store(&status, 0);
        stile__stack_begin(&status);
        assert_true(stile__stack_wait_executing(&status, why) == executes);
        if (!executes)
            continue;
        uint64_t seen;
        assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_EXECUTES);
        stile__stack_resume(&status, &freezing);
        assert_int_equal(now(), STILE__STACK_RUNNING);
    }
    assert_int_equal(executing, 1);
    assert_true(stile__wait_executes(STILE__WAIT_COLLECTOR));
}

/* Neither count reaches into its neighbour. */
static void test_counts_come_round(void **state)
{
    uint64_t seen;
    (void)state;
    const uint32_t last = (1u << 24) - 100;
    atomic_store(&status, (uint64_t)last << STILE__STACK_NUMBER_SHIFT);
    stile__stack_begin(&status);
    for (uint32_t i = last + 1; i <= last + 200; i++) {
        assert_true(stile__stack_wait(&status, STILE__WAIT_READ));
        if (stile__stack_number(word()) != (i & 0xffffff))
            fail_msg("wait %u has the number %u", i, stile__stack_number(word()));
        stile__stack_resume(&status, NULL);
    }
    assert_true(stile__stack_wait(&status, STILE__WAIT_READ));
    const uint64_t before = word();
    for (uint32_t i = 1; i <= 1u << 16; i++) {
        assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
        assert_true(stile__scan_end(&status, seen));
        assert_int_equal(stile__stack_side(word()), i & 1);
        assert_true((word() & 0xffffffffffff) == (before & 0xffffffffffff));
    }
    assert_true(word() == before);
}

/* A reader died with its scan. */
static void test_force(void **state)
{
    uint64_t seen, was;
    (void)state;
    stile__stack_begin(&status);
    assert_true(stile__stack_wait(&status, STILE__WAIT_SLEEP));
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
    was = stile__stack_resume(&status, &freezing); /* comes back, or the test does not end */
    assert_int_equal(now(), STILE__STACK_RUNNING);
    assert_int_equal(stile__stack_side(was), stile__stack_side(seen));
    assert_true((was & STILE__STACK_SCAN) == 0 && was != (seen & ~STILE__STACK_SCAN));
    assert_false(stile__scan_end(&status, seen)); /* it was not dead after all */
    assert_true(stile__stack_wait(&status, STILE__WAIT_SLEEP));
    assert_false(stile__scan_end(&status, seen));
    assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
    stile__stack_die(&status);
    assert_int_equal(now(), STILE__STACK_DEAD);
    assert_false(stile__scan_drop(&status, seen));
}

/* Who stopped the world for a dump died in it: one wait bears that, and none after it. */
static void test_freeze_of_the_dead(void **state)
{
    (void)state;
    stile__stack_begin(&status);
    atomic_store(&freezing, STILE__FREEZE_DUMP + 7);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(stile__stack_wait(&status, STILE__WAIT_SLEEP));
        stile__stack_resume(&status, &freezing);
        assert_int_equal(now(), STILE__STACK_RUNNING);
        assert_int_equal(atomic_load(&freezing), 0);
    }
}

static _Atomic bool through;

static void *resumes(void *unused)
{
    stile__stack_resume(&status, &freezing);
    atomic_store(&through, true);
    return unused;
}

static void *dies(void *unused)
{
    stile__stack_die(&status);
    atomic_store(&through, true);
    return unused;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* Whoever comes out of a wait stops there as long as a freeze lasts, however long that is. */
static void test_freeze_parks(void **state)
{
    pthread_t thread;
    uint64_t seen;
    (void)state;
    stile__stack_begin(&status);
    assert_true(stile__stack_wait(&status, STILE__WAIT_SLEEP));
    atomic_store(&through, false);
    atomic_store(&freezing, 1);
    assert_int_equal(pthread_create(&thread, NULL, resumes, NULL), 0);
    for (int i = 0; i < 50; i++) {
        sleep_ms(1);
        if (i == 10) { /* who looks at it sees it waiting */
            assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
            stile__scan_drop(&status, seen);
        }
        assert_false(atomic_load(&through));
        assert_int_equal(now(), STILE__STACK_WAITING);
    }
    atomic_store(&freezing, 0);
    pthread_join(thread, NULL);
    assert_int_equal(now(), STILE__STACK_RUNNING);
}

/* A freeze does not keep a thread from dying, a reader does. */
static void test_death_waits_for_a_reader(void **state)
{
    int waited = 0;
    (void)state;
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        uint64_t seen;
        stile__stack_begin(&status);
        assert_true(stile__stack_wait(&status, STILE__WAIT_SLEEP));
        atomic_store(&freezing, 1);
        atomic_store(&through, false);
        assert_int_equal(stile__scan_begin(&status, &seen), STILE__SCAN_TAKEN);
        assert_int_equal(pthread_create(&thread, NULL, dies, NULL), 0);
        sleep_ms(2);
        const bool early = atomic_load(&through);
        const bool kept = stile__scan_end(&status, seen);
        assert_false(early && kept); /* on a busy machine its patience may have ended: then it says so */
        waited += kept;
        pthread_join(thread, NULL);
        assert_int_equal(now(), STILE__STACK_DEAD);
    }
    assert_true(waited > 0);
}

/* What the thread leaves: plain memory, that nothing but the word orders. */
static struct {
    uint64_t words[WORDS];
} left;
static _Atomic uint64_t reads;
static _Atomic bool done, parked;

static void *owner_loop(void *unused)
{
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        if (i % 64 == 1)
            stile__stack_begin(&status);
        for (unsigned k = 0; k < WORDS; k++)
            left.words[k] = i;
        if (!stile__stack_wait(&status, STILE__WAIT_MUTEX))
            abort();
        /* Readers are met, or the rounds would say nothing. */
        for (uint64_t before = atomic_load_explicit(&reads, memory_order_relaxed), n = 0;
             i % 8 == 0 && n < 2000 && before == atomic_load_explicit(&reads, memory_order_relaxed); n++)
            sched_yield();
        stile__stack_resume(&status, &freezing);
        if (atomic_load_explicit(&parked, memory_order_relaxed))
            abort();
        left.words[i % WORDS] = ~i;
        if (i % 64 == 0)
            stile__stack_die(&status);
    }
    stile__stack_die(&status);
    atomic_store(&done, true);
    return unused;
}

/* tells: as the collector, which is one. */
static void *reader_loop(void *tells)
{
    uint64_t seen, words[WORDS];
    while (!atomic_load_explicit(&done, memory_order_relaxed)) {
        if (stile__scan_begin(&status, &seen) != STILE__SCAN_TAKEN) {
            sched_yield();
            continue;
        }
        for (unsigned k = 0; k < WORDS; k++)
            words[k] = left.words[k];
        if (!(tells != NULL ? stile__scan_end : stile__scan_drop)(&status, seen))
            continue;
        for (unsigned k = 1; k < WORDS; k++)
            if (words[k] != words[0])
                abort();
        if ((words[0] & 0xffffff) != stile__stack_number(seen))
            abort();
        atomic_fetch_add_explicit(&reads, 1, memory_order_relaxed);
    }
    return NULL;
}

static void *freezer_loop(void *unused)
{
    uint64_t seen;
    while (!atomic_load_explicit(&done, memory_order_relaxed)) {
        atomic_store(&freezing, 1);
        if (stile__scan_begin(&status, &seen) == STILE__SCAN_TAKEN && stile__scan_drop(&status, seen)) {
            atomic_store(&parked, true);
            sched_yield();
            atomic_store(&parked, false);
        }
        atomic_store(&freezing, 0);
        sleep_ms(1);
    }
    return unused;
}

/* A reader that is kept from running for longer than the thread is patient reads what changes, which the sanitizer would report,
 * though the scan's end fails: so here the thread has much patience (SLEEPS_MAX). */
static void test_readers_and_owner(void **state)
{
    pthread_t threads[4];
    (void)state;
    atomic_store(&done, false);
    atomic_store(&reads, 0);
    atomic_store(&parked, false);
    assert_int_equal(pthread_create(&threads[1], NULL, reader_loop, &left), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, reader_loop, NULL), 0);
    assert_int_equal(pthread_create(&threads[3], NULL, freezer_loop, NULL), 0);
    assert_int_equal(pthread_create(&threads[0], NULL, owner_loop, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&reads) > 100);
}

static void test_barriers_safe(void **state)
{
    (void)state;
    assert_int_equal(stile__barriers_safe(0, false, true), STILE__UNSAFE_TRANSITION);
    stile__stack_begin(&status);
    assert_int_equal(stile__barriers_safe(word(), false, true), STILE__SAFE);
    assert_int_equal(stile__barriers_safe(word(), true, true), STILE__UNSAFE_ASYNC);
    assert_true(stile__stack_wait_executing(&status, STILE__WAIT_COLLECTOR));
    assert_int_equal(stile__barriers_safe(word(), false, false), STILE__SAFE);
    assert_int_equal(stile__barriers_safe(word(), false, true), STILE__UNSAFE_EXECUTES);
    stile__stack_resume(&status, NULL);
    assert_true(stile__stack_wait(&status, STILE__WAIT_POLL));
    assert_int_equal(stile__barriers_safe(word(), false, false), STILE__UNSAFE_WAITS);
    stile__stack_resume(&status, NULL);
    stile__stack_die(&status);
    assert_int_equal(stile__barriers_safe(word(), false, false), STILE__UNSAFE_TRANSITION);
}

/* Which reader may do what, by the state of the thread: a letter each for sample, wait, barriers, plant. */
static void test_breaches(void **state)
{
    struct stile__ownership_facts f = {.slot_tid = 7, .lock = 7, .tid = 7, .self = 7};
    const char *may[] = {"----", "swbp", "s-b-", "----"};
    (void)state;
    for (unsigned s = 0; s < 4; s++)
        for (unsigned reader = 0; reader < 4; reader++) {
            f.status =
                s | (s == STILE__STACK_WAITING ? (uint64_t)STILE__WAIT_POLL << STILE__STACK_REASON_SHIFT : 0);
            assert_true((stile__ownership_breach(reader, &f) == NULL) == (may[s][reader] != '-'));
        }
    f.status = STILE__STACK_WAITING | (uint64_t)STILE__WAIT_COLLECTOR << STILE__STACK_REASON_SHIFT;
    assert_null(stile__ownership_breach(STILE__READER_PLANT, &f));
    f.traced = true;
    assert_non_null(stile__ownership_breach(STILE__READER_PLANT, &f));
    f.status = STILE__STACK_RUNNING;
    for (unsigned reader = 0; reader < 4; reader++) {
        uint32_t *const words[] = {&f.slot_tid, &f.lock, &f.tid, &f.self};
        for (unsigned i = 0; i < 4; i++) {
            *words[i] = 8;
            assert_non_null(stile__ownership_breach(reader, &f));
            *words[i] = 7;
        }
        f.lock = 0;
        assert_string_equal(stile__ownership_breach(reader, &f), "nobody holds the stack's lock");
        f.lock = 7;
        assert_null(stile__ownership_breach(reader, &f));
    }
}

static void test_breaches_of_what_was_left(void **state)
{
    struct stile__ownership_facts f = {.self = 9};
    (void)state;
    stile__stack_begin(&status);
    f.seen = f.status = word();
    assert_string_equal(stile__ownership_breach(STILE__READER_LEFT, &f), "the reader has no scan");
    assert_true(stile__stack_wait(&status, STILE__WAIT_POLL));
    f.seen = f.status = word();
    assert_string_equal(stile__ownership_breach(STILE__READER_LEFT, &f), "the reader has no scan");
    assert_int_equal(stile__scan_begin(&status, &f.seen), STILE__SCAN_TAKEN);
    f.status = word();
    assert_null(stile__ownership_breach(STILE__READER_LEFT, &f));
    stile__stack_resume(&status, NULL); /* by force */
    f.status = word();
    assert_string_equal(stile__ownership_breach(STILE__READER_LEFT, &f), "the reader has lost its scan");
    f.seen = f.status = STILE__STACK_WAITING | STILE__STACK_SCAN |
                        (uint64_t)STILE__WAIT_COLLECTOR << STILE__STACK_REASON_SHIFT;
    assert_string_equal(stile__ownership_breach(STILE__READER_LEFT, &f), "the thread executes in its wait");
}

#define TEST(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life_of_a_thread),
        TEST(test_refusals),
        TEST(test_table_of_executing_waits),
        TEST(test_counts_come_round),
        TEST(test_force),
        TEST(test_freeze_of_the_dead),
        TEST(test_freeze_parks),
        TEST(test_death_waits_for_a_reader),
        TEST(test_readers_and_owner),
        TEST(test_barriers_safe),
        TEST(test_breaches),
        TEST(test_breaches_of_what_was_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
