/* Hooks on locks, for the profile of waits. A lock is tried first: only what a try finds taken is a wait, and an attempt that
 * does not wait costs nothing more than the try. Each does what libc's does, for every kind of lock. Normal context, in the
 * program's threads; before this library's own start, too. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/waiters.h"
#include "profiler/region/raw_syscall.h"

#define HOOKS(X)                                                                                             \
    X(mtx_lock)                                                                                              \
    X(mtx_timedlock)                                                                                         \
    X(mtx_trylock)                                                                                           \
    X(mtx_unlock)                                                                                            \
    X(pthread_mutex_clocklock)                                                                               \
    X(pthread_mutex_lock)                                                                                    \
    X(pthread_mutex_timedlock)                                                                               \
    X(pthread_mutex_trylock)                                                                                 \
    X(pthread_mutex_unlock)                                                                                  \
    X(pthread_rwlock_clockrdlock)                                                                            \
    X(pthread_rwlock_clockwrlock)                                                                            \
    X(pthread_rwlock_rdlock)                                                                                 \
    X(pthread_rwlock_timedrdlock)                                                                            \
    X(pthread_rwlock_timedwrlock)                                                                            \
    X(pthread_rwlock_tryrdlock)                                                                              \
    X(pthread_rwlock_trywrlock)                                                                              \
    X(pthread_rwlock_unlock)                                                                                 \
    X(pthread_rwlock_wrlock)
#define HOT(X)                                                                                               \
    X(mtx_lock, mtx_t, lacking_c11)                                                                          \
    X(mtx_unlock, mtx_t, lacking_c11)                                                                        \
    X(pthread_mutex_lock, pthread_mutex_t, lacking)                                                          \
    X(pthread_mutex_unlock, pthread_mutex_t, lacking)                                                        \
    X(pthread_rwlock_rdlock, pthread_rwlock_t, lacking)                                                      \
    X(pthread_rwlock_unlock, pthread_rwlock_t, lacking)                                                      \
    X(pthread_rwlock_wrlock, pthread_rwlock_t, lacking)
#include "profiler/agent/hooks_hot.h"

static int lacking(void)
{
    return ENOSYS;
}

static int lacking_c11(void)
{
    return thrd_error;
}

static struct stile__waiters waiters;

/* The value of a call that waits for a lock. */
#define WAITS(why, hook, lock, call)                                                                         \
    ({                                                                                                       \
        __typeof__(call) got_;                                                                               \
        if (stile__blocking_on()) {                                                                          \
            stile__waiters_add(&waiters, lock);                                                              \
            got_ = STILE__BLOCKS(why, hook, call);                                                           \
            stile__waiters_remove(&waiters, lock, true);                                                     \
        } else {                                                                                             \
            got_ = (call);                                                                                   \
        }                                                                                                    \
        got_;                                                                                                \
    })

/* Mutexes. */

/* Whether an unlock by its owner lets somebody else have it, where threads wait. The mutex may be gone when it is unlocked. */
static bool wakes(const pthread_mutex_t *m)
{
    unsigned word = (unsigned)__atomic_load_n(&m->__data.__lock, __ATOMIC_RELAXED);
    int kind = __atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED);
    /* Robust and with inheritance: the owner's number, and a bit. With a ceiling: above the plain word. */
    bool waited_for = (kind & (16 | 32)) != 0 ? (word & 0x80000000u) != 0 : (word & 0x7ffff) > 1;
    return waited_for && m->__data.__count <= 1;
}

static __attribute__((noinline)) int wait_pthread_mutex_lock(pthread_mutex_t *m)
{
    return WAITS(STILE__WAIT_MUTEX, pthread_mutex_lock, m, FOUND(pthread_mutex_lock)(m));
}

/* Whether an ordinary mutex is free to take, as it looks: then libc's lock is quicker than a try. Who is overtaken within these
 * few instructions waits unseen, as where there is no hook. Not by the word itself: to read what an atomic instruction has just
 * written takes 4 ns, and 4 more in the unlock, which asks first whether we know of anybody who waits. */
static inline bool looks_free(const pthread_mutex_t *m)
{
    return ((int)__atomic_load_n(&m->__data.__nusers, __ATOMIC_RELAXED) |
            __atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED)) == 0;
}

/* A robust mutex that cannot be had again stays taken after a try, in libc up to 2.36 at least: it is looked at instead. Its word
 * has the number of its owner, and whether that has died. */
static bool robust(const pthread_mutex_t *m)
{
    return (__atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED) & 16) != 0;
}

static bool robust_taken(const pthread_mutex_t *m)
{
    unsigned word = (unsigned)__atomic_load_n(&m->__data.__lock, __ATOMIC_RELAXED),
             owner = word & 0x3fffffffu;
    return owner != 0 && (word & 0x40000000u) == 0 && owner != stile__raw_gettid();
}

/* What a try returns, EBUSY if `call` would have to wait, or what `call` does. */
#define TRY(m, call)                                                                                         \
    (__builtin_expect(robust(m), 0) ? (robust_taken(m) ? EBUSY : (call)) : NEXT(pthread_mutex_trylock)(m))

static int record_pthread_mutex_lock(pthread_mutex_t *m)
{
    if (__builtin_expect(looks_free(m), 1))
        return FOUND(pthread_mutex_lock)(m);
    int err = TRY(m, FOUND(pthread_mutex_lock)(m));
    return __builtin_expect(err == EBUSY, 0) ? wait_pthread_mutex_lock(m) : err;
}

static __attribute__((noinline)) int tell_pthread_mutex_unlock(pthread_mutex_t *m)
{
    bool woken = wakes(m);
    int err = FOUND(pthread_mutex_unlock)(m);
    if (err == 0 && woken)
        STILE__WOKE(STILE__WAIT_MUTEX, pthread_mutex_unlock);
    return err;
}

static int record_pthread_mutex_unlock(pthread_mutex_t *m)
{
    return __builtin_expect(stile__waiters_any(&waiters, m), 0) ? tell_pthread_mutex_unlock(m)
                                                                : FOUND(pthread_mutex_unlock)(m);
}

static __attribute__((noinline)) int wait_mtx_lock(mtx_t *m)
{
    return WAITS(STILE__WAIT_MUTEX, mtx_lock, m, FOUND(mtx_lock)(m));
}

static int record_mtx_lock(mtx_t *m)
{
    if (__builtin_expect(looks_free((pthread_mutex_t *)m), 1)) /* as it is in libc */
        return FOUND(mtx_lock)(m);
    int err = FOUND(mtx_trylock)(m);
    return __builtin_expect(err == thrd_busy, 0) ? wait_mtx_lock(m) : err;
}

static __attribute__((noinline)) int tell_mtx_unlock(mtx_t *m)
{
    bool woken = wakes((pthread_mutex_t *)m);
    int err = FOUND(mtx_unlock)(m);
    if (err == thrd_success && woken)
        STILE__WOKE(STILE__WAIT_MUTEX, mtx_unlock);
    return err;
}

static int record_mtx_unlock(mtx_t *m)
{
    return __builtin_expect(stile__waiters_any(&waiters, m), 0) ? tell_mtx_unlock(m) : FOUND(mtx_unlock)(m);
}

/* libc refuses other clocks first. A time that is none it refuses when it has to wait, if it is a mutex's. */
static bool clock_known(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC;
}

STILE_EXPORT int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *until)
{
    if (!stile__blocking_on())
        return NEXT(pthread_mutex_timedlock)(m, until);
    int err = TRY(m, NEXT(pthread_mutex_timedlock)(m, until));
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_MUTEX, pthread_mutex_timedlock, m, NEXT(pthread_mutex_timedlock)(m, until));
}

STILE_EXPORT int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    if (NEXT(pthread_mutex_clocklock) == NULL) /* younger than some libc that we may run on */
        return ENOSYS;
    if (!stile__blocking_on() || !clock_known(clock))
        return NEXT(pthread_mutex_clocklock)(m, clock, until);
    int err = TRY(m, NEXT(pthread_mutex_clocklock)(m, clock, until));
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_MUTEX, pthread_mutex_clocklock, m,
                 NEXT(pthread_mutex_clocklock)(m, clock, until));
}

STILE_EXPORT int mtx_timedlock(mtx_t *m, const struct timespec *until)
{
    if (NEXT(mtx_timedlock) == NULL)
        return thrd_error;
    if (!stile__blocking_on())
        return NEXT(mtx_timedlock)(m, until);
    int err = NEXT(mtx_trylock)(m);
    if (err != thrd_busy)
        return err;
    return WAITS(STILE__WAIT_MUTEX, mtx_timedlock, m, NEXT(mtx_timedlock)(m, until));
}

/* Locks for readers and writers. */

/* In libc's word: a writer has it, or is about to; above, the number of readers. */
#define RW_WRITE_PHASE  1u
#define RW_READER_SHIFT 3
#define RW_WAITED_FOR   2u /* in its words to wait on */

/* What the waits are for that an unlock by one who has the lock ends, or none. */
static inline enum stile__wait_reason rw_wakes(const pthread_rwlock_t *l)
{
    unsigned word = __atomic_load_n(&l->__data.__readers, __ATOMIC_RELAXED);
    bool writers = (__atomic_load_n(&l->__data.__writers_futex, __ATOMIC_RELAXED) & RW_WAITED_FOR) != 0;
    if ((word & RW_WRITE_PHASE) == 0) /* a reader: the last one lets a writer have it */
        return word >> RW_READER_SHIFT == 1 ? STILE__WAIT_RWLOCK_WRITE : STILE__WAIT_NONE;
    bool writers_first = l->__data.__flags != PTHREAD_RWLOCK_PREFER_READER_NP && writers;
    return word >> RW_READER_SHIFT != 0 && !writers_first ? STILE__WAIT_RWLOCK_READ
           : writers                                      ? STILE__WAIT_RWLOCK_WRITE
                                                          : STILE__WAIT_NONE;
}

static __attribute__((noinline)) int wait_pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
    return WAITS(STILE__WAIT_RWLOCK_READ, pthread_rwlock_rdlock, l, FOUND(pthread_rwlock_rdlock)(l));
}

static int record_pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
    int err = FOUND(pthread_rwlock_tryrdlock)(l);
    return __builtin_expect(err == EBUSY, 0) ? wait_pthread_rwlock_rdlock(l) : err;
}

static __attribute__((noinline)) int wait_pthread_rwlock_wrlock(pthread_rwlock_t *l)
{
    return WAITS(STILE__WAIT_RWLOCK_WRITE, pthread_rwlock_wrlock, l, FOUND(pthread_rwlock_wrlock)(l));
}

static int record_pthread_rwlock_wrlock(pthread_rwlock_t *l)
{
    int err = FOUND(pthread_rwlock_trywrlock)(l);
    return __builtin_expect(err == EBUSY, 0) ? wait_pthread_rwlock_wrlock(l) : err;
}

static __attribute__((noinline)) int tell_pthread_rwlock_unlock(pthread_rwlock_t *l)
{
    enum stile__wait_reason why = rw_wakes(l);
    int err = FOUND(pthread_rwlock_unlock)(l);
    if (err == 0 && why != STILE__WAIT_NONE)
        STILE__WOKE(why, pthread_rwlock_unlock);
    return err;
}

static int record_pthread_rwlock_unlock(pthread_rwlock_t *l)
{
    return __builtin_expect(stile__waiters_any(&waiters, l), 0) ? tell_pthread_rwlock_unlock(l)
                                                                : FOUND(pthread_rwlock_unlock)(l);
}

/* Here libc refuses a time that is none whether it has to wait or not. */
static bool time_known(clockid_t clock, const struct timespec *until)
{
    __asm__("" : "+r"(until)); /* declared never to be NULL, which libc takes for no timeout */
    return clock_known(clock) && (until == NULL || (until->tv_nsec >= 0 && until->tv_nsec < 1000000000));
}

STILE_EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *l, const struct timespec *until)
{
    if (!stile__blocking_on() || !time_known(CLOCK_REALTIME, until))
        return NEXT(pthread_rwlock_timedrdlock)(l, until);
    int err = NEXT(pthread_rwlock_tryrdlock)(l);
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_RWLOCK_READ, pthread_rwlock_timedrdlock, l,
                 NEXT(pthread_rwlock_timedrdlock)(l, until));
}

STILE_EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *l, const struct timespec *until)
{
    if (!stile__blocking_on() || !time_known(CLOCK_REALTIME, until))
        return NEXT(pthread_rwlock_timedwrlock)(l, until);
    int err = NEXT(pthread_rwlock_trywrlock)(l);
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_RWLOCK_WRITE, pthread_rwlock_timedwrlock, l,
                 NEXT(pthread_rwlock_timedwrlock)(l, until));
}

STILE_EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *l, clockid_t clock,
                                            const struct timespec *until)
{
    if (NEXT(pthread_rwlock_clockrdlock) == NULL)
        return ENOSYS;
    if (!stile__blocking_on() || !time_known(clock, until))
        return NEXT(pthread_rwlock_clockrdlock)(l, clock, until);
    int err = NEXT(pthread_rwlock_tryrdlock)(l);
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_RWLOCK_READ, pthread_rwlock_clockrdlock, l,
                 NEXT(pthread_rwlock_clockrdlock)(l, clock, until));
}

STILE_EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *l, clockid_t clock,
                                            const struct timespec *until)
{
    if (NEXT(pthread_rwlock_clockwrlock) == NULL)
        return ENOSYS;
    if (!stile__blocking_on() || !time_known(clock, until))
        return NEXT(pthread_rwlock_clockwrlock)(l, clock, until);
    int err = NEXT(pthread_rwlock_trywrlock)(l);
    if (err != EBUSY)
        return err;
    return WAITS(STILE__WAIT_RWLOCK_WRITE, pthread_rwlock_clockwrlock, l,
                 NEXT(pthread_rwlock_clockwrlock)(l, clock, until));
}

HOT(HOT_HOOK)

void stile__locks_init(void)
{
    nexts_find();
    stile__syncs_init();
}

void stile__locks_record(bool recording)
{
    if (recording)
        stile__waiters_forget(&waiters);
    HOT_RECORD(recording);
    stile__syncs_record(recording);
}
