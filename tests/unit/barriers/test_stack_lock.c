/* barriers/stack_lock.c: one owner at a time, takeover by the owner itself. */
#include "tests/unit/support.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "barriers/stack_lock.h"

#define THREADS 8
#define ROUNDS  (UNDER_SANITIZER ? 5000 : 50000)

static _Atomic uint32_t lock;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&lock, 0);
    return 0;
}

static void test_try(void **state)
{
    (void)state;
    assert_true(stile__stack_trylock(&lock, 11));
    assert_int_equal(atomic_load(&lock), 11);
    assert_false(stile__stack_trylock(&lock, 12));
    assert_false(stile__stack_trylock(&lock, 11)); /* the handler must not read what it interrupted */
    assert_int_equal(atomic_load(&lock), 11);
    stile__stack_unlock(&lock);
    assert_int_equal(atomic_load(&lock), 0);
    assert_true(stile__stack_trylock(&lock, 12));
}

static void test_takeover_by_the_holder(void **state)
{
    (void)state;
    stile__stack_lock(&lock, 11);
    stile__stack_lock(&lock, 11);
    assert_int_equal(atomic_load(&lock), 11);
    stile__stack_unlock(&lock);
    assert_int_equal(atomic_load(&lock), 0);
}

static int released; /* guarded by the lock */

static void *wait_for_it(void *seen)
{
    stile__stack_lock(&lock, 12);
    *(int *)seen = released;
    stile__stack_unlock(&lock);
    return NULL;
}

static void test_waits_for_another_holder(void **state)
{
    pthread_t waiter;
    int seen = -1;

    (void)state;
    released = 0;
    stile__stack_lock(&lock, 11);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_it, &seen), 0);
    for (int i = 0; i < 30; i++) { /* long enough for it to spin and to sleep */
        usleep(1000);
        assert_int_equal(atomic_load(&lock), 11);
    }
    released = 1;
    stile__stack_unlock(&lock);
    pthread_join(waiter, NULL);
    assert_int_equal(seen, 1);
}

static uint64_t counter; /* guarded by the lock */

static void *count(void *tid)
{
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 4 != 0)
            stile__stack_lock(&lock, (uint32_t)(uintptr_t)tid);
        else
            while (!stile__stack_trylock(&lock, (uint32_t)(uintptr_t)tid))
                ;
        counter++;
        stile__stack_unlock(&lock);
    }
    return NULL;
}

static void test_threads_exclude_one_another(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    counter = 0;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter, (uint64_t)THREADS * ROUNDS);
    assert_int_equal(atomic_load(&lock), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_try, fresh),
        cmocka_unit_test_setup(test_takeover_by_the_holder, fresh),
        cmocka_unit_test_setup(test_waits_for_another_holder, fresh),
        cmocka_unit_test_setup(test_threads_exclude_one_another, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
