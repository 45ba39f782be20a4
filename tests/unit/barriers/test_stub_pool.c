/* barriers/stub_pool.c: every chunk is one thread's at a time, and there is an end of them. */
#include "tests/unit/support.h"

#include <pthread.h>

#include "barriers/stub.h"

#define CHUNKS  (STILE__STUBS / STILE__STUB_CHUNK)
#define THREADS 4
#define ROUNDS  (UNDER_SANITIZER ? 5000 : 100000)
#define AT_ONCE 80 /* of a thread: together more than there are */

static _Atomic uint32_t owner[CHUNKS];

static int fresh(void **state)
{
    (void)state;
    stile__stub_chunks_forked();
    for (uint32_t i = 0; i < CHUNKS; i++)
        atomic_store(&owner[i], 0);
    return 0;
}

static void take_all(void)
{
    bool taken[CHUNKS] = {false};
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint32_t chunk = stile__stub_chunk_take();
        assert_true(chunk < CHUNKS);
        assert_false(taken[chunk]);
        taken[chunk] = true;
    }
    assert_int_equal(stile__stub_chunk_take(), UINT32_MAX);
    assert_int_equal(stile__stub_chunk_take(), UINT32_MAX);
}

static void test_all(void **state)
{
    (void)state;
    take_all();
}

static void test_given_back(void **state)
{
    (void)state;
    take_all();
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint32_t chunk = i * 97 % CHUNKS;
        stile__stub_chunk_give_back(chunk);
        assert_int_equal(stile__stub_chunk_take(), chunk); /* the only one */
        assert_int_equal(stile__stub_chunk_take(), UINT32_MAX);
    }
    for (uint32_t i = 0; i < CHUNKS; i++)
        stile__stub_chunk_give_back(i);
    take_all();
}

/* As long as there are others: somebody may still be in a stub of it. */
static void test_a_chunk_rests(void **state)
{
    uint32_t mine = stile__stub_chunk_take();
    (void)state;
    stile__stub_chunk_give_back(mine);
    for (uint32_t i = 0; i < CHUNKS - 1; i++)
        assert_int_not_equal(stile__stub_chunk_take(), mine);
    assert_int_equal(stile__stub_chunk_take(), mine);
}

static void test_forked(void **state)
{
    (void)state;
    take_all();
    stile__stub_chunks_forked();
    take_all();
}

static _Atomic uint32_t shared_by_two, none_left;

static void *take_and_give_back(void *number)
{
    uint32_t held[AT_ONCE], n = 0, me = (uint32_t)(uintptr_t)number;
    uint64_t rng = me;
    for (int i = 0; i < ROUNDS; i++) {
        if (n < AT_ONCE && (n == 0 || next_number(&rng) % 100 < 60)) {
            uint32_t chunk = stile__stub_chunk_take(), nobody = 0;
            if (chunk == UINT32_MAX) {
                atomic_fetch_add(&none_left, 1);
                continue;
            }
            if (chunk >= CHUNKS || !atomic_compare_exchange_strong(&owner[chunk], &nobody, me))
                atomic_fetch_add(&shared_by_two, 1);
            held[n++] = chunk;
        } else if (n != 0) {
            uint32_t at = (uint32_t)(next_number(&rng) % n), chunk = held[at];
            held[at] = held[--n];
            atomic_store(&owner[chunk], 0);
            stile__stub_chunk_give_back(chunk);
        }
    }
    while (n > 0) {
        atomic_store(&owner[held[--n]], 0);
        stile__stub_chunk_give_back(held[n]);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    atomic_store(&shared_by_two, 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give_back, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared_by_two), 0);
    take_all(); /* none was lost */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all, fresh),           cmocka_unit_test_setup(test_given_back, fresh),
        cmocka_unit_test_setup(test_a_chunk_rests, fresh), cmocka_unit_test_setup(test_forked, fresh),
        cmocka_unit_test_setup(test_threads, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
