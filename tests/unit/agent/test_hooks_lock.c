/* agent/hooks_lock.c and hooks_sync.c: what the calls do is as without us, whether waits are recorded or
 * not. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <threads.h>
#include <time.h>

#include "tests/unit/agent/fake_blocking.h"

/* The same calls of libc, or of the hooks. */
#define CALLS(X)                                                                                             \
    X(pthread_mutex_lock)                                                                                    \
    X(pthread_mutex_timedlock)                                                                               \
    X(pthread_mutex_clocklock)                                                                               \
    X(pthread_mutex_unlock)                                                                                  \
    X(pthread_rwlock_rdlock)                                                                                 \
    X(pthread_rwlock_timedrdlock)                                                                            \
    X(pthread_rwlock_clockrdlock)                                                                            \
    X(pthread_rwlock_wrlock)                                                                                 \
    X(pthread_rwlock_timedwrlock)                                                                            \
    X(pthread_rwlock_clockwrlock)                                                                            \
    X(pthread_rwlock_unlock)                                                                                 \
    X(pthread_cond_timedwait)                                                                                \
    X(pthread_cond_clockwait)                                                                                \
    X(pthread_cond_signal)                                                                                   \
    X(pthread_barrier_wait)                                                                                  \
    X(pthread_join)                                                                                          \
    X(sem_wait)                                                                                              \
    X(sem_timedwait)                                                                                         \
    X(sem_clockwait)                                                                                         \
    X(sem_post)                                                                                              \
    X(mtx_lock)                                                                                              \
    X(mtx_timedlock)                                                                                         \
    X(mtx_unlock)                                                                                            \
    X(cnd_timedwait)
struct calls {
#define MEMBER(name) __typeof__(&(name)) name;
    CALLS(MEMBER)
};

#define OF_HOOKS(name) .name = name,
static const struct calls hooks = {CALLS(OF_HOOKS)};

static struct calls of_libc(void)
{
    struct calls c;
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(libc);
#define OF_LIBC(name)                                                                                        \
    c.name = (__typeof__(&(name)))dlsym(libc, #name);                                                        \
    assert_non_null(c.name);                                                                                 \
    assert_ptr_not_equal(c.name, hooks.name);
    CALLS(OF_LIBC)
    dlclose(libc);
    return c;
}

/* What calls returned, and errno after each. */
struct results {
    int n, of[512][2];
};

#define DO(call)                                                                                             \
    do {                                                                                                     \
        errno = 4242;                                                                                        \
        int got_ = (call);                                                                                   \
        assert_in_range(r->n, 0, 511);                                                                       \
        r->of[r->n][0] = got_;                                                                               \
        r->of[r->n++][1] = errno;                                                                            \
    } while (0)

static const struct timespec past = {1, 0}, none_low = {1, -1}, none_high = {1, 1000000000};

/* Done by another thread, which has then ended. */
struct errand {
    const struct calls *c;
    void *on;
    struct results *r;
};

static void elsewhere(void *(*errand)(void *), const struct calls *c, void *on, struct results *r)
{
    struct errand e = {c, on, r};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, errand, &e), 0);
    DO(c->pthread_join(t, NULL));
}

static void *lock_and_end(void *arg)
{
    struct errand *e = arg;
    struct results *r = e->r;
    DO(e->c->pthread_mutex_lock(e->on));
    return NULL;
}

static void *find_taken(void *arg)
{
    struct errand *e = arg;
    struct results *r = e->r;
    DO(e->c->pthread_mutex_timedlock(e->on, &past));
    DO(e->c->pthread_mutex_timedlock(e->on, &none_low));
    DO(e->c->pthread_mutex_clocklock(e->on, CLOCK_MONOTONIC, &past));
    DO(e->c->pthread_mutex_clocklock(e->on, CLOCK_MONOTONIC, &none_high));
    DO(e->c->pthread_mutex_clocklock(e->on, CLOCK_PROCESS_CPUTIME_ID, &past));
    return NULL;
}

static void mutex_use(const struct calls *c, pthread_mutex_t *m, int type, bool robust, struct results *r)
{
    DO(c->pthread_mutex_lock(m));
    if (r->of[r->n - 1][0] !=
        0) /* a ceiling, which libc refuses a thread of ordinary priority, but only once */
        DO(c->pthread_mutex_lock(m));
    if (r->of[r->n - 1][0] != 0)
        return;
    elsewhere(find_taken, c, m, r);
    DO(c->pthread_mutex_timedlock(m, &past)); /* by its owner: refused, counted, or in vain */
    if (r->of[r->n - 1][0] == 0)
        DO(c->pthread_mutex_unlock(m));
    if (type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK) {
        DO(c->pthread_mutex_lock(m));
        if (r->of[r->n - 1][0] == 0)
            DO(c->pthread_mutex_unlock(m));
    }
    DO(c->pthread_mutex_unlock(m));
    if (type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK)
        DO(c->pthread_mutex_unlock(m));           /* nobody's */
    DO(c->pthread_mutex_timedlock(m, &none_low)); /* free */
    if (r->of[r->n - 1][0] == 0)
        DO(c->pthread_mutex_unlock(m));
    DO(c->pthread_mutex_clocklock(m, CLOCK_REALTIME, &none_high));
    if (r->of[r->n - 1][0] == 0)
        DO(c->pthread_mutex_unlock(m));
    DO(c->pthread_mutex_clocklock(m, CLOCK_PROCESS_CPUTIME_ID, &past));
    if (!robust)
        return;
    elsewhere(lock_and_end, c, m, r);
    DO(c->pthread_mutex_lock(m));
    DO(pthread_mutex_consistent(m));
    DO(c->pthread_mutex_unlock(m));
    elsewhere(lock_and_end, c, m, r);
    DO(c->pthread_mutex_timedlock(m, &past));
    DO(c->pthread_mutex_unlock(m)); /* not made consistent */
    DO(c->pthread_mutex_lock(m));
    DO(c->pthread_mutex_timedlock(m, &past));
}

/* Every kind of mutex: 4 types, 3 protocols, robust or not, shared or not. */
static void mutexes(const struct calls *c, struct results *r, int kind)
{
    static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK,
                                PTHREAD_MUTEX_ADAPTIVE_NP};
    static const int protocols[] = {PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, PTHREAD_PRIO_PROTECT};
    int type = types[kind % 4], protocol = protocols[kind / 4 % 3];
    bool robust = kind / 12 % 2 != 0, shared = kind / 24 % 2 != 0;
    pthread_mutexattr_t a;
    pthread_mutex_t m;

    assert_int_equal(pthread_mutexattr_init(&a), 0);
    assert_int_equal(pthread_mutexattr_settype(&a, type), 0);
    assert_int_equal(pthread_mutexattr_setprotocol(&a, protocol), 0);
    assert_int_equal(pthread_mutexattr_setrobust(&a, robust ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED),
                     0);
    assert_int_equal(
        pthread_mutexattr_setpshared(&a, shared ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE), 0);
    DO(pthread_mutex_init(&m, &a)); /* robust with a ceiling there is not */
    if (r->of[r->n - 1][0] == 0)
        mutex_use(c, &m, type, robust, r);
}
#define MUTEX_KINDS 48

static void *find_written(void *arg)
{
    struct errand *e = arg;
    struct results *r = e->r;
    DO(e->c->pthread_rwlock_timedrdlock(e->on, &past));
    DO(e->c->pthread_rwlock_timedrdlock(e->on, &none_low));
    DO(e->c->pthread_rwlock_timedwrlock(e->on, &past));
    DO(e->c->pthread_rwlock_clockrdlock(e->on, CLOCK_MONOTONIC, &past));
    DO(e->c->pthread_rwlock_clockwrlock(e->on, CLOCK_MONOTONIC, &none_high));
    DO(e->c->pthread_rwlock_clockwrlock(e->on, CLOCK_PROCESS_CPUTIME_ID, &past));
    return NULL;
}

static void rwlocks(const struct calls *c, struct results *r, int kind)
{
    const struct timespec *volatile no_timeout = NULL; /* libc takes it, whatever its header says */
    pthread_rwlockattr_t a;
    pthread_rwlock_t l;

    assert_int_equal(pthread_rwlockattr_init(&a), 0);
    assert_int_equal(pthread_rwlockattr_setkind_np(&a, kind), 0);
    assert_int_equal(pthread_rwlock_init(&l, &a), 0);
    DO(c->pthread_rwlock_rdlock(&l));
    DO(c->pthread_rwlock_rdlock(&l));
    DO(c->pthread_rwlock_timedwrlock(&l, &past));
    if (!UNDER_ASAN) { /* which comes with one that minds */
        DO(c->pthread_rwlock_timedrdlock(&l, no_timeout));
        DO(c->pthread_rwlock_clockrdlock(&l, CLOCK_MONOTONIC, no_timeout));
    }
    for (int i = 0; i < (UNDER_ASAN ? 2 : 4); i++)
        DO(c->pthread_rwlock_unlock(&l));
    DO(c->pthread_rwlock_timedrdlock(&l, &none_low)); /* free, and refused */
    DO(c->pthread_rwlock_timedwrlock(&l, &none_high));
    DO(c->pthread_rwlock_clockrdlock(&l, CLOCK_PROCESS_CPUTIME_ID, &past));
    DO(c->pthread_rwlock_clockwrlock(&l, CLOCK_REALTIME, &none_low));
    if (!UNDER_ASAN)
        DO(c->pthread_rwlock_clockwrlock(&l, CLOCK_REALTIME, no_timeout));
    else
        DO(c->pthread_rwlock_wrlock(&l));
    DO(c->pthread_rwlock_wrlock(&l)); /* its own */
    DO(c->pthread_rwlock_rdlock(&l));
    elsewhere(find_written, c, &l, r);
    DO(c->pthread_rwlock_unlock(&l));
}

static void others(const struct calls *c, struct results *r, int kind)
{
    pthread_mutex_t m = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    pthread_barrier_t barrier;
    sem_t sem;
    mtx_t c11;
    cnd_t c11_cond;
    (void)kind;

    DO(sem_init(&sem, 0, 3));
    DO(c->sem_wait(&sem));
    DO(c->sem_timedwait(&sem, &past));
    DO(c->sem_timedwait(&sem, &none_low));
    DO(c->sem_clockwait(&sem, CLOCK_MONOTONIC, &none_high));
    DO(c->sem_clockwait(&sem, CLOCK_PROCESS_CPUTIME_ID, &past));
    DO(c->sem_clockwait(&sem, CLOCK_MONOTONIC, &past));
    DO(c->sem_timedwait(&sem, &past)); /* none left */
    DO(c->sem_timedwait(&sem, &none_high));
    DO(c->sem_clockwait(&sem, CLOCK_REALTIME, &past));
    DO(c->sem_post(&sem));
    DO(sem_init(&sem, 0, 0x7fffffff));
    DO(c->sem_post(&sem)); /* too many */

    DO(c->pthread_cond_timedwait(&cond, &m, &past)); /* nobody's mutex */
    DO(c->pthread_mutex_lock(&m));
    DO(c->pthread_cond_timedwait(&cond, &m, &past));
    DO(c->pthread_cond_timedwait(&cond, &m, &none_low));
    DO(c->pthread_cond_clockwait(&cond, &m, CLOCK_MONOTONIC, &past));
    DO(c->pthread_cond_clockwait(&cond, &m, CLOCK_PROCESS_CPUTIME_ID, &past));
    DO(c->pthread_cond_signal(&cond));
    DO(c->pthread_mutex_unlock(&m));

    DO(pthread_barrier_init(&barrier, NULL, 1));
    DO(c->pthread_barrier_wait(&barrier));
    DO(c->pthread_join(pthread_self(), NULL));

    DO(mtx_init(&c11, mtx_timed | mtx_recursive));
    DO(cnd_init(&c11_cond));
    DO(c->mtx_lock(&c11));
    DO(c->mtx_lock(&c11));
    DO(c->mtx_timedlock(&c11, &past));
    DO(c->mtx_unlock(&c11));
    DO(c->mtx_unlock(&c11));
    DO(c->cnd_timedwait(&c11_cond, &c11, &past));
    DO(c->mtx_unlock(&c11));
    DO(c->mtx_unlock(&c11)); /* nobody's */
}

/* By a thread of its own: libc remembers of each what ceilings it has tried. */
struct use {
    void (*use)(const struct calls *, struct results *, int);
    const struct calls *calls;
    struct results *r;
    int kind;
};

static void *used(void *arg)
{
    const struct use *u = arg;
    u->use(u->calls, u->r, u->kind);
    return NULL;
}

static void use_afresh(struct use u)
{
    pthread_t t;
    u.r->n = 0;
    assert_int_equal(pthread_create(&t, NULL, used, &u), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
}

static void compare(void (*use)(const struct calls *, struct results *, int), int kinds)
{
    static struct results by_libc, off, on;
    struct calls libc = of_libc();
    for (int kind = 0; kind < kinds; kind++) {
        fake_record(false);
        use_afresh((struct use){use, &libc, &by_libc, kind});
        use_afresh((struct use){use, &hooks, &off, kind});
        assert_int_equal(fake_told(BEGUN) + fake_told(WOKE) + fake_told(MEASURED), 0);
        fake_record(true);
        use_afresh((struct use){use, &hooks, &on, kind});
        assert_int_equal(fake_told(BEGUN), fake_told(ENDED));
        fake_record(false);
        assert_true(by_libc.n > 0 && by_libc.n == off.n && by_libc.n == on.n);
        for (int i = 0; i < by_libc.n; i++)
            for (int k = 0; k < 2; k++)
                if (by_libc.of[i][k] != off.of[i][k] || by_libc.of[i][k] != on.of[i][k])
                    fail_msg("kind %d, call %d, %s: %d by libc, %d by the hook, %d recording", kind, i,
                             k == 0 ? "value" : "errno", by_libc.of[i][k], off.of[i][k], on.of[i][k]);
    }
}

static void test_mutexes_are_as_without_us(void **state)
{
    (void)state;
    compare(mutexes, MUTEX_KINDS);
}

static void test_rwlocks_are_as_without_us(void **state)
{
    (void)state;
    compare(rwlocks, 3);
}

static void test_others_are_as_without_us(void **state)
{
    (void)state;
    compare(others, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutexes_are_as_without_us),
        cmocka_unit_test(test_rwlocks_are_as_without_us),
        cmocka_unit_test(test_others_are_as_without_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
