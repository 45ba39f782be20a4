/* Hooks on condition variables, semaphores, barriers, and the ends of threads, for the profile of waits; what hooks_lock.c
 * says holds here, too. A semaphore's waits with a timeout are in hooks_wait.c. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <threads.h>
#include <time.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/waiters.h"

/* Condition variables have had another layout. These hooks are for the current one: libstile.map gives them its version,
 * so that the references of old programs pass them by. */
#define COND_VERSION "GLIBC_2.3.2"
#define CONDS(X)                                                                                             \
    X(pthread_cond_broadcast)                                                                                \
    X(pthread_cond_signal)                                                                                   \
    X(pthread_cond_timedwait)                                                                                \
    X(pthread_cond_wait)
#define HOOKS(X)                                                                                             \
    CONDS(X)                                                                                                 \
    X(cnd_broadcast)                                                                                         \
    X(cnd_signal)                                                                                            \
    X(cnd_timedwait)                                                                                         \
    X(cnd_wait)                                                                                              \
    X(pthread_barrier_wait)                                                                                  \
    X(pthread_clockjoin_np)                                                                                  \
    X(pthread_cond_clockwait)                                                                                \
    X(pthread_join)                                                                                          \
    X(pthread_timedjoin_np)                                                                                  \
    X(sem_post)                                                                                              \
    X(sem_trywait)                                                                                           \
    X(sem_wait)                                                                                              \
    X(thrd_join)
#define HOT(X)                                                                                               \
    X(cnd_broadcast, cnd_t, lacking_c11)                                                                     \
    X(cnd_signal, cnd_t, lacking_c11)                                                                        \
    X(pthread_cond_broadcast, pthread_cond_t, lacking)                                                       \
    X(pthread_cond_signal, pthread_cond_t, lacking)                                                          \
    X(sem_post, sem_t, lacking_errno)                                                                        \
    X(sem_wait, sem_t, lacking_errno)
#include "profiler/agent/hooks_hot.h"

static int lacking(void)
{
    return ENOSYS;
}

static int lacking_c11(void)
{
    return thrd_error;
}

static int lacking_errno(void)
{
    errno = ENOSYS;
    return -1;
}

/* As NEXT, of the current version. */
#define COND(name) ((__typeof__(&(name)))cond_get(NEXT_##name, #name))

static inline void *cond_get(int i, const char *name)
{
    void *found = __atomic_load_n(&nexts[i], __ATOMIC_RELAXED);
    return __builtin_expect(found != NULL, 1) ? found
                                              : stile__hook_next_version(&nexts[i], name, COND_VERSION);
}

/* The value of a call that waits. */
#define WAITS(why, hook, call) (stile__blocking_on() ? STILE__BLOCKS(why, hook, call) : (call))

/* Condition variables. */

static struct stile__waiters waiters;

#define WAITS_ON(cond, hook, success, call)                                                                  \
    ({                                                                                                       \
        int got_;                                                                                            \
        if (stile__blocking_on()) {                                                                          \
            stile__waiters_add(&waiters, cond);                                                              \
            got_ = STILE__BLOCKS(STILE__WAIT_COND, hook, call);                                              \
            stile__waiters_remove(&waiters, cond, got_ == (success));                                        \
        } else {                                                                                             \
            got_ = (call);                                                                                   \
        }                                                                                                    \
        got_;                                                                                                \
    })

STILE_EXPORT int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return WAITS_ON(c, pthread_cond_wait, 0, COND(pthread_cond_wait)(c, m));
}

STILE_EXPORT int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
    return WAITS_ON(c, pthread_cond_timedwait, 0, COND(pthread_cond_timedwait)(c, m, until));
}

STILE_EXPORT int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock,
                                        const struct timespec *until)
{
    if (NEXT(pthread_cond_clockwait) == NULL) /* younger than some libc that we may run on */
        return ENOSYS;
    return WAITS_ON(c, pthread_cond_clockwait, 0, NEXT(pthread_cond_clockwait)(c, m, clock, until));
}

STILE_EXPORT int cnd_wait(cnd_t *c, mtx_t *m)
{
    if (NEXT(cnd_wait) == NULL)
        return thrd_error;
    return WAITS_ON(c, cnd_wait, thrd_success, NEXT(cnd_wait)(c, m));
}

STILE_EXPORT int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until)
{
    if (NEXT(cnd_timedwait) == NULL)
        return thrd_error;
    return WAITS_ON(c, cnd_timedwait, thrd_success, NEXT(cnd_timedwait)(c, m, until));
}

/* What records a call that wakes one or all. */
#define WAKES(name, type, all)                                                                               \
    static __attribute__((noinline)) int tell_##name(__typeof__(type) *c)                                    \
    {                                                                                                        \
        int err = FOUND(name)(c);                                                                            \
        STILE__WOKE(STILE__WAIT_COND, name);                                                                 \
        return err;                                                                                          \
    }                                                                                                        \
    static int record_##name(__typeof__(type) *c)                                                            \
    {                                                                                                        \
        return __builtin_expect(stile__waiters_tell(&waiters, c, all), 0) ? tell_##name(c) : FOUND(name)(c); \
    }
WAKES(cnd_broadcast, cnd_t, true)
WAKES(cnd_signal, cnd_t, false)
WAKES(pthread_cond_broadcast, pthread_cond_t, true)
WAKES(pthread_cond_signal, pthread_cond_t, false)

/* Semaphores. */

/* libc's word: the value below, how many wait for it above. */
static inline bool sem_wakes(const sem_t *sem)
{
    uint64_t word = __atomic_load_n((const uint64_t *)(const void *)sem, __ATOMIC_RELAXED);
    return word >> 32 > (uint32_t)word;
}

static __attribute__((noinline)) int wait_sem_wait(sem_t *sem, int saved_errno)
{
    errno = saved_errno;
    return WAITS(STILE__WAIT_SEMAPHORE, sem_wait, FOUND(sem_wait)(sem));
}

static int record_sem_wait(sem_t *sem)
{
    int saved_errno = errno;
    pthread_testcancel();
    return __builtin_expect(FOUND(sem_trywait)(sem) == 0, 1) ? 0 : wait_sem_wait(sem, saved_errno);
}

static __attribute__((noinline)) int tell_sem_post(sem_t *sem)
{
    int err = FOUND(sem_post)(sem);
    if (err == 0)
        STILE__WOKE(STILE__WAIT_SEMAPHORE, sem_post);
    return err;
}

static int record_sem_post(sem_t *sem)
{
    return __builtin_expect(sem_wakes(sem), 0) ? tell_sem_post(sem) : FOUND(sem_post)(sem);
}

/* Barriers. */

/* The head of libc's: how many have come so far, up to which of them are let through, and how many it takes. */
struct barrier {
    unsigned in, round, count;
};

/* The last to come does not wait, but ends the waits of the others. */
STILE_EXPORT int pthread_barrier_wait(pthread_barrier_t *barrier)
{
    if (!stile__blocking_on())
        return NEXT(pthread_barrier_wait)(barrier);
    const struct barrier *b = (const struct barrier *)(const void *)barrier;
    unsigned count = b->count;
    unsigned before =
        __atomic_load_n(&b->in, __ATOMIC_RELAXED) - __atomic_load_n(&b->round, __ATOMIC_RELAXED);
    if (before + 1 < count)
        return STILE__BLOCKS(STILE__WAIT_BARRIER, pthread_barrier_wait, NEXT(pthread_barrier_wait)(barrier));
    int err = NEXT(pthread_barrier_wait)(barrier);
    if (err == PTHREAD_BARRIER_SERIAL_THREAD && count > 1)
        STILE__WOKE(STILE__WAIT_BARRIER, pthread_barrier_wait);
    return err;
}

/* Threads. */

STILE_EXPORT int pthread_join(pthread_t thread, void **result)
{
    return WAITS(STILE__WAIT_JOIN, pthread_join, NEXT(pthread_join)(thread, result));
}

STILE_EXPORT int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until)
{
    return WAITS(STILE__WAIT_JOIN, pthread_timedjoin_np, NEXT(pthread_timedjoin_np)(thread, result, until));
}

STILE_EXPORT int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                      const struct timespec *until)
{
    if (NEXT(pthread_clockjoin_np) == NULL)
        return ENOSYS;
    return WAITS(STILE__WAIT_JOIN, pthread_clockjoin_np,
                 NEXT(pthread_clockjoin_np)(thread, result, clock, until));
}

STILE_EXPORT int thrd_join(thrd_t thread, int *result)
{
    if (NEXT(thrd_join) == NULL)
        return thrd_error;
    return WAITS(STILE__WAIT_JOIN, thrd_join, NEXT(thrd_join)(thread, result));
}

HOT(HOT_HOOK)

#define COND_FIND(name) cond_get(NEXT_##name, #name);
void stile__syncs_init(void)
{
    CONDS(COND_FIND)
    nexts_find();
}

void stile__syncs_record(bool recording)
{
    if (recording)
        stile__waiters_forget(&waiters);
    HOT_RECORD(recording);
}
