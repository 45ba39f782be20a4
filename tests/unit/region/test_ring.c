/* region/ring.h: record sizes, wrapping, refusal, and a producer and a consumer at once. */
#include "tests/unit/support.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/region/ring.h"

#define RECORDS (UNDER_SANITIZER ? 100000u : 1000000u)

static struct stile__cell ring[STILE__RING_CELLS_MIN];
static _Atomic uint64_t head, tail;

static int fresh(void **state)
{
    (void)state;
    memset(ring, 0xee, sizeof ring);
    atomic_store(&head, 0);
    atomic_store(&tail, 0);
    return 0;
}

static void at(uint64_t h, uint64_t t)
{
    atomic_store(&head, h);
    atomic_store(&tail, t);
}

static struct stile__record *record_at(uint64_t cell)
{
    return (struct stile__record *)(void *)&ring[cell % STILE__RING_CELLS_MIN];
}

static void test_record_sizes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct stile__record), STILE__CELL_BYTES);
    assert_int_equal(sizeof(struct stile__cell), STILE__CELL_BYTES);
    assert_int_equal(stile__record_cells(0), 1);
    assert_int_equal(stile__record_cells(1), 2);
    assert_int_equal(stile__record_cells(8), 2);
    assert_int_equal(stile__record_cells(9), 3);
    assert_int_equal(stile__record_cells(1016), 128);
    assert_int_equal(stile__record_cells(1017), 129);
}

static void test_nothing_is_published_before_the_commit(void **state)
{
    uint64_t commit = 0;
    (void)state;
    struct stile__record *r = stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 3, &commit);
    assert_ptr_equal(r, &ring[0]);
    assert_int_equal(r->cells, 3);
    assert_int_equal(r->kind, STILE__RECORD_WALKED);
    assert_int_equal(commit, 3);
    assert_int_equal(atomic_load(&head), 0);
    stile__ring_commit(&head, commit);
    assert_int_equal(atomic_load(&head), 3);
    assert_ptr_equal(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 1, &commit), &ring[3]);
    assert_int_equal(commit, 4);
}

static void test_what_is_not_needed_goes_back(void **state)
{
    uint64_t commit = 0;
    (void)state;
    at(100, 100); /* a pad before it, too */
    struct stile__record *r = stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 32, &commit);
    assert_ptr_equal(r, &ring[0]);
    stile__ring_shrink(r, 17, &commit);
    assert_int_equal(r->cells, 4);
    assert_int_equal(commit, 128 + 4);
    stile__ring_commit(&head, commit);
    assert_ptr_equal(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 1, &commit), &ring[4]);
}

static void test_a_pad_fills_the_end(void **state)
{
    uint64_t commit = 0;
    (void)state;
    at(STILE__RING_CELLS_MIN * 5 + 126, STILE__RING_CELLS_MIN * 5 + 126);
    struct stile__record *r = stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 4, &commit);
    assert_ptr_equal(r, &ring[0]);
    assert_int_equal(r->cells, 4);
    assert_int_equal(r->kind, STILE__RECORD_WALKED);
    assert_int_equal(commit, STILE__RING_CELLS_MIN * 5 + 126 + 2 + 4);
    assert_int_equal(record_at(126)->cells, 2);
    assert_int_equal(record_at(126)->kind, STILE__RECORD_PAD);

    /* A record that ends where the ring ends needs none. */
    at(124, 124);
    assert_ptr_equal(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 4, &commit), &ring[124]);
    assert_int_equal(commit, 128);
}

static void test_a_full_ring_refuses_and_loses_nothing(void **state)
{
    uint64_t commit;
    (void)state;
    for (uint32_t i = 0; i < STILE__RING_CELLS_MIN; i++) {
        struct stile__record *r = stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 1, &commit);
        assert_non_null(r);
        r->label_set = i;
        stile__ring_commit(&head, commit);
    }
    struct stile__cell before[STILE__RING_CELLS_MIN];
    memcpy(before, ring, sizeof ring);
    for (uint32_t cells = 1; cells <= STILE__RING_CELLS_MIN; cells++)
        assert_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, cells, &commit));
    assert_memory_equal(before, ring, sizeof ring);
    assert_int_equal(atomic_load(&head), STILE__RING_CELLS_MIN);
    for (uint32_t i = 0; i < STILE__RING_CELLS_MIN; i++)
        assert_int_equal(record_at(i)->label_set, i);

    atomic_store(&tail, 2); /* room for two more, and only that */
    assert_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 3, &commit));
    assert_ptr_equal(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 2, &commit), &ring[0]);
}

static void test_a_pad_that_does_not_fit_is_not_written(void **state)
{
    uint64_t commit;
    struct stile__cell before[STILE__RING_CELLS_MIN];
    (void)state;
    at(120, 5); /* 8 cells of padding and 10 would overtake the tail by 5 */
    memcpy(before, ring, sizeof ring);
    assert_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 10, &commit));
    assert_memory_equal(before, ring, sizeof ring);
    assert_non_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 5, &commit));
}

static void test_nonsense_is_refused(void **state)
{
    uint64_t commit;
    (void)state;
    assert_null(
        stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, STILE__RING_CELLS_MIN + 1, &commit));
    assert_non_null(
        stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, STILE__RING_CELLS_MIN, &commit));
    at(10, 11); /* the collector's word is damaged: ahead of the head */
    assert_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 1, &commit));
    at(STILE__RING_CELLS_MIN + 1, 0);
    assert_null(stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, 1, &commit));
}

static _Atomic bool stop;

static uint64_t checksum(const struct stile__record *r)
{
    uint64_t sum = r->stack_len * 31ull + r->n_new;
    for (uint32_t i = 0; i < r->n_new; i++)
        sum = sum * 1099511628211ull + r->words[i];
    return sum;
}

static void *produce(void *unused)
{
    uint64_t numbers = 42, commit;
    (void)unused;
    for (uint64_t i = 0; i < RECORDS && !atomic_load(&stop); i++) {
        uint32_t n = (uint32_t)(next_number(&numbers) % 60);
        struct stile__record *r;
        while ((r = stile__ring_reserve(ring, STILE__RING_CELLS_MIN, &head, &tail, stile__record_cells(n),
                                        &commit)) == NULL)
            if (atomic_load(&stop))
                return NULL;
            else
                sched_yield();
        r->n_new = n;
        r->stack_len = (uint32_t)i;
        for (uint32_t k = 0; k < n; k++)
            r->words[k] = i * 1000 + k;
        r->stack_start = checksum(r);
        stile__ring_commit(&head, commit);
    }
    return NULL;
}

/* Takes one record; NULL, or what is wrong with it. */
static const char *consume(uint64_t t, uint64_t h, uint64_t *taken)
{
    const struct stile__record *r = record_at(t);
    if (h - t > STILE__RING_CELLS_MIN)
        return "the head is further ahead than the ring is long";
    if (r->cells == 0 || r->cells > h - t || t % STILE__RING_CELLS_MIN + r->cells > STILE__RING_CELLS_MIN)
        return "a record does not lie in adjacent cells below the head";
    if (r->kind != STILE__RECORD_PAD) {
        if (r->stack_len != *taken || r->stack_start != checksum(r))
            return "a record is not what was written";
        ++*taken;
    }
    atomic_store_explicit(&tail, t + r->cells, memory_order_release);
    return NULL;
}

static void test_producer_and_consumer(void **state)
{
    pthread_t producer;
    uint64_t taken = 0;
    const char *wrong = NULL;

    (void)state;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&producer, NULL, produce, NULL), 0);
    while (taken < RECORDS && wrong == NULL) {
        uint64_t h = atomic_load_explicit(&head, memory_order_acquire);
        uint64_t t = atomic_load_explicit(&tail, memory_order_relaxed);
        if (h == t)
            sched_yield();
        else
            wrong = consume(t, h, &taken);
    }
    atomic_store(&stop, true);
    pthread_join(producer, NULL);
    if (wrong != NULL)
        fail_msg("record %llu: %s", (unsigned long long)taken, wrong);
    assert_int_equal(atomic_load(&head), atomic_load(&tail));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_sizes),
        cmocka_unit_test_setup(test_nothing_is_published_before_the_commit, fresh),
        cmocka_unit_test_setup(test_what_is_not_needed_goes_back, fresh),
        cmocka_unit_test_setup(test_a_pad_fills_the_end, fresh),
        cmocka_unit_test_setup(test_a_full_ring_refuses_and_loses_nothing, fresh),
        cmocka_unit_test_setup(test_a_pad_that_does_not_fit_is_not_written, fresh),
        cmocka_unit_test_setup(test_nonsense_is_refused, fresh),
        cmocka_unit_test_setup(test_producer_and_consumer, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
