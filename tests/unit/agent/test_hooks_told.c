/* agent/hooks_lock.c and hooks_sync.c: each wait is told once, by the hook that was called, and a wake-up if there is somebody
 * to wake. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <threads.h>
#include <time.h>

#include "profiler/region/raw_syscall.h"
#include "tests/unit/agent/fake_blocking.h"

static const struct timespec past = {1, 0};

/* Ways of waiting for what another thread holds. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, inheriting, robust;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static mtx_t c11;
static sem_t sem;

static struct timespec later(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += 100;
    return t;
}

#define TAKES(name, call)                                                                                    \
    static int take_##name(void)                                                                             \
    {                                                                                                        \
        struct timespec real = later(CLOCK_REALTIME), mono = later(CLOCK_MONOTONIC);                         \
        (void)real, (void)mono;                                                                              \
        return call;                                                                                         \
    }
TAKES(lock, pthread_mutex_lock(&mutex))
TAKES(timedlock, pthread_mutex_timedlock(&mutex, &real))
TAKES(clocklock, pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &mono))
TAKES(unlock, pthread_mutex_unlock(&mutex))
TAKES(inheriting, pthread_mutex_lock(&inheriting))
TAKES(inheriting_unlock, pthread_mutex_unlock(&inheriting))
TAKES(robust, pthread_mutex_lock(&robust))
TAKES(robust_unlock, pthread_mutex_unlock(&robust))
TAKES(rdlock, pthread_rwlock_rdlock(&rwlock))
TAKES(timedrdlock, pthread_rwlock_timedrdlock(&rwlock, &real))
TAKES(clockrdlock, pthread_rwlock_clockrdlock(&rwlock, CLOCK_MONOTONIC, &mono))
TAKES(wrlock, pthread_rwlock_wrlock(&rwlock))
TAKES(timedwrlock, pthread_rwlock_timedwrlock(&rwlock, &real))
TAKES(clockwrlock, pthread_rwlock_clockwrlock(&rwlock, CLOCK_MONOTONIC, &mono))
TAKES(rw_unlock, pthread_rwlock_unlock(&rwlock))
TAKES(mtx_lock, mtx_lock(&c11))
TAKES(mtx_timedlock, mtx_timedlock(&c11, &real))
TAKES(mtx_unlock, mtx_unlock(&c11))
TAKES(sem_wait, sem_wait(&sem))
TAKES(sem_timedwait, sem_timedwait(&sem, &real))
TAKES(sem_clockwait, sem_clockwait(&sem, CLOCK_MONOTONIC, &mono))
TAKES(sem_post, sem_post(&sem))

#define WAY(holds, takes, gives, why, hook, waker)                                                           \
    {                                                                                                        \
#        takes, take_##holds, take_##takes, take_##gives, STILE__WAIT_##why, (const void *)(hook),           \
            (const void *)(waker)                                                                            \
    }
static const struct way {
    const char *name;
    int (*hold)(void), (*take)(void), (*give)(void);
    enum stile__wait_reason why;
    const void *hook, *waker;
} ways[] = {
    WAY(lock, lock, unlock, MUTEX, pthread_mutex_lock, pthread_mutex_unlock),
    WAY(lock, timedlock, unlock, MUTEX, pthread_mutex_timedlock, pthread_mutex_unlock),
    WAY(lock, clocklock, unlock, MUTEX, pthread_mutex_clocklock, pthread_mutex_unlock),
    WAY(inheriting, inheriting, inheriting_unlock, MUTEX, pthread_mutex_lock, pthread_mutex_unlock),
    WAY(robust, robust, robust_unlock, MUTEX, pthread_mutex_lock, pthread_mutex_unlock),
    WAY(wrlock, rdlock, rw_unlock, RWLOCK_READ, pthread_rwlock_rdlock, pthread_rwlock_unlock),
    WAY(wrlock, timedrdlock, rw_unlock, RWLOCK_READ, pthread_rwlock_timedrdlock, pthread_rwlock_unlock),
    WAY(wrlock, clockrdlock, rw_unlock, RWLOCK_READ, pthread_rwlock_clockrdlock, pthread_rwlock_unlock),
    WAY(wrlock, wrlock, rw_unlock, RWLOCK_WRITE, pthread_rwlock_wrlock, pthread_rwlock_unlock),
    WAY(rdlock, wrlock, rw_unlock, RWLOCK_WRITE, pthread_rwlock_wrlock, pthread_rwlock_unlock),
    WAY(rdlock, timedwrlock, rw_unlock, RWLOCK_WRITE, pthread_rwlock_timedwrlock, pthread_rwlock_unlock),
    WAY(wrlock, clockwrlock, rw_unlock, RWLOCK_WRITE, pthread_rwlock_clockwrlock, pthread_rwlock_unlock),
    WAY(mtx_lock, mtx_lock, mtx_unlock, MUTEX, mtx_lock, mtx_unlock),
    WAY(mtx_lock, mtx_timedlock, mtx_unlock, MUTEX, mtx_timedlock, mtx_unlock),
    WAY(sem_wait, sem_wait, sem_post, SEMAPHORE, sem_wait, sem_post),
    WAY(sem_wait, sem_timedwait, sem_post, SEMAPHORE, sem_timedwait, sem_post),
    WAY(sem_wait, sem_clockwait, sem_post, SEMAPHORE, sem_clockwait, sem_post),
};

struct taker {
    const struct way *way;
    pthread_t thread;
    _Atomic int tid;
    int err;
};

static void *take(void *arg)
{
    struct taker *t = arg;
    atomic_store(&t->tid, (int)stile__raw_gettid());
    errno = 4242;
    t->err = t->way->take();
    if (t->err == 0)
        t->err = t->way->give();
    if (errno != 4242)
        t->err = errno;
    return NULL;
}

static void expect(const char *name, enum told what, enum stile__wait_reason why, const void *hook,
                   unsigned n)
{
    static const char *const names[] = {"begun", "ended", "checked", "measured", "woke"};
    if (fake_told(what) != n || fake_told_of(what, why, hook) != n)
        fail_msg("%s: %s %u times, %u as expected", name, names[what], fake_told(what),
                 fake_told_of(what, why, hook));
}

/* The join is one more wait, so what is told is looked at before it. */
static void wait_for_the_end_of(const char *name, enum stile__wait_reason why, const void *hook)
{
    for (int tries = 0; fake_told(ENDED) == 0 && tries < 10000; tries++)
        stile__raw_sleep_ns(1000000);
    expect(name, BEGUN, why, hook, 1);
    expect(name, ENDED, why, hook, 1);
}

static void test_a_contended_lock_is_one_wait(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct way *way = &ways[i];
        struct taker t = {.way = way};
        fake_record(true);
        assert_int_equal(way->hold(), 0);
        assert_int_equal(pthread_create(&t.thread, NULL, take, &t), 0);
        while (atomic_load(&t.tid) == 0 || fake_told(BEGUN) == 0)
            stile__raw_sleep_ns(1000000);
        assert_true(asleep(t.tid));
        assert_int_equal(fake_told(ENDED), 0);
        assert_int_equal(way->give(), 0);
        wait_for_the_end_of(way->name, way->why, way->hook);
        expect(way->name, WOKE, way->why, way->waker, 1); /* not by the one who was woken, too */
        assert_int_equal(pthread_join(t.thread, NULL), 0);
        assert_int_equal(t.err, 0);
        fake_record(false);
    }
}

static void test_an_uncontended_lock_is_none(void **state)
{
    (void)state;
    fake_record(true);
    for (int k = 0; k < 100; k++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            assert_int_equal(ways[i].take(), 0);
            assert_int_equal(ways[i].give(), 0);
        }
    for (int what = 0; what < TOLD; what++)
        assert_int_equal(fake_told((enum told)what), 0);
    fake_record(false);
}

/* Condition variables. */
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static cnd_t c11_cond;
static _Atomic int waiting_tids[3];
static int n_let;

static void *cond_waiter(void *arg)
{
    pthread_mutex_lock(&mutex);
    atomic_store(&waiting_tids[(intptr_t)arg], (int)stile__raw_gettid());
    while (n_let == 0)
        pthread_cond_wait(&cond, &mutex);
    n_let--;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *cnd_waiter(void *arg)
{
    mtx_lock(&c11);
    atomic_store(&waiting_tids[(intptr_t)arg], (int)stile__raw_gettid());
    while (n_let == 0)
        cnd_wait(&c11_cond, &c11);
    n_let--;
    mtx_unlock(&c11);
    return NULL;
}

static void waiters_start(pthread_t *threads, int n, void *(*waiter)(void *))
{
    for (intptr_t i = 0; i < n; i++) {
        atomic_store(&waiting_tids[i], 0);
        assert_int_equal(pthread_create(&threads[i], NULL, waiter, (void *)i), 0);
        while (atomic_load(&waiting_tids[i]) == 0 || fake_told(BEGUN) != (unsigned)i + 1)
            stile__raw_sleep_ns(1000000);
        assert_true(asleep(waiting_tids[i]));
    }
}

static void test_conditions(void **state)
{
    pthread_t t[2];
    (void)state;
    fake_record(true);
    pthread_cond_signal(&cond); /* nobody is there */
    pthread_cond_broadcast(&cond);
    cnd_signal(&c11_cond);
    assert_int_equal(fake_told(WOKE), 0);

    waiters_start(t, 2, cond_waiter);
    pthread_mutex_lock(&mutex);
    n_let = 2;
    pthread_cond_signal(&cond);
    expect("signal", WOKE, STILE__WAIT_COND, (const void *)pthread_cond_signal, 1);
    pthread_cond_signal(&cond);
    pthread_cond_signal(&cond); /* both have been woken, though they have not gone on yet */
    expect("signal", WOKE, STILE__WAIT_COND, (const void *)pthread_cond_signal, 2);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(fake_told_of(BEGUN, STILE__WAIT_COND, (const void *)pthread_cond_wait), 2);
    assert_int_equal(fake_told_of(ENDED, STILE__WAIT_COND, (const void *)pthread_cond_wait), 2);

    fake_forget();
    waiters_start(t, 2, cnd_waiter);
    mtx_lock(&c11);
    n_let = 2;
    cnd_broadcast(&c11_cond);
    cnd_broadcast(&c11_cond);
    expect("broadcast", WOKE, STILE__WAIT_COND, (const void *)cnd_broadcast, 1);
    mtx_unlock(&c11);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(fake_told_of(BEGUN, STILE__WAIT_COND, (const void *)cnd_wait), 2);

    /* Who gave up is not there to be woken. */
    fake_forget();
    pthread_mutex_lock(&mutex);
    assert_int_equal(pthread_cond_timedwait(&cond, &mutex, &past), ETIMEDOUT);
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&mutex);
    expect("in vain", BEGUN, STILE__WAIT_COND, (const void *)pthread_cond_timedwait, 1);
    assert_int_equal(fake_told(WOKE), 0);
    fake_record(false);
}

static pthread_barrier_t barrier;

static void *meet(void *arg)
{
    atomic_store(&waiting_tids[(intptr_t)arg], (int)stile__raw_gettid());
    return pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD ? arg : NULL;
}

static void test_a_barrier(void **state)
{
    pthread_t t[2];
    (void)state;
    fake_record(true);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 3), 0);
    for (int round = 1; round <= 3; round++) {
        fake_forget();
        waiters_start(t, 2, meet);
        assert_int_equal(pthread_barrier_wait(&barrier), PTHREAD_BARRIER_SERIAL_THREAD);
        expect("barrier", BEGUN, STILE__WAIT_BARRIER, (const void *)pthread_barrier_wait, 2);
        expect("barrier", WOKE, STILE__WAIT_BARRIER, (const void *)pthread_barrier_wait, 1);
        for (int i = 0; i < 2; i++)
            pthread_join(t[i], NULL);
        assert_int_equal(fake_told_of(ENDED, STILE__WAIT_BARRIER, (const void *)pthread_barrier_wait), 2);
        assert_int_equal(fake_told_of(BEGUN, STILE__WAIT_JOIN, (const void *)pthread_join), 2);
        assert_int_equal(fake_told_of(ENDED, STILE__WAIT_JOIN, (const void *)pthread_join), 2);
    }
    fake_record(false);
}

/* A wait that is cancelled, and one that would have been had there been something to wait for. */
static void *cancel_self(void *arg)
{
    pthread_cancel(pthread_self());
    sem_wait(&sem);
    return arg;
}

static void *wait_for_ever(void *arg)
{
    atomic_store(&waiting_tids[0], (int)stile__raw_gettid());
    sem_wait(arg);
    return NULL;
}

static void test_cancellation(void **state)
{
    pthread_t t;
    void *result = NULL;
    int left = 0;
    sem_t empty;
    (void)state;
    if (UNDER_ASAN)
        skip(); /* it loses sight of a cancelled thread's stack */
    assert_int_equal(sem_init(&empty, 0, 0), 0);
    for (int on = 0; on < 2; on++) {
        fake_record(on != 0);
        assert_int_equal(pthread_create(&t, NULL, cancel_self, NULL), 0);
        assert_int_equal(pthread_join(t, &result), 0);
        assert_ptr_equal(result, PTHREAD_CANCELED);
        assert_int_equal(sem_getvalue(&sem, &left), 0);
        assert_int_equal(left, 1);
        atomic_store(&waiting_tids[0], 0);
        assert_int_equal(pthread_create(&t, NULL, wait_for_ever, &empty), 0);
        while (atomic_load(&waiting_tids[0]) == 0)
            stile__raw_sleep_ns(1000000);
        assert_true(asleep(waiting_tids[0]));
        assert_int_equal(pthread_cancel(t), 0);
        assert_int_equal(pthread_join(t, &result), 0);
        assert_ptr_equal(result, PTHREAD_CANCELED);
    }
    fake_record(false);
}

static int set_up(void **state)
{
    pthread_mutexattr_t a;
    (void)state;
    return pthread_mutexattr_init(&a) | pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT) |
           pthread_mutex_init(&inheriting, &a) | pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_NONE) |
           pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) | pthread_mutex_init(&robust, &a) |
           mtx_init(&c11, mtx_timed) | cnd_init(&c11_cond) | sem_init(&sem, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_contended_lock_is_one_wait),
        cmocka_unit_test(test_an_uncontended_lock_is_none),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_a_barrier),
        cmocka_unit_test(test_cancellation),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
