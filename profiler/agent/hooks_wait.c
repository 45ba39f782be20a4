/* Hooks on calls that a signal breaks off with EINTR whatever SA_RESTART says: ours is kept masked for their time, and
 * they are told to the profile of waits. Calls that libc or the kernel takes up again need none: locks, condition variables, sem_wait, read and its like on
 * what has no timeout (hooks_socket.c has the others). Normal context, in the program's threads; each is libc's own
 * function, so cancellation points stay what they are. System calls made without libc are not seen. */
#undef _FORTIFY_SOURCE /* its inline functions have the names that are defined here */
#include <aio.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/session.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/wait_mask.h"

/* What libc exports for programs built with _FORTIFY_SOURCE, and is in no header. */
STILE_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
STILE_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                             const sigset_t *given, size_t room);

#define HOOKS(X)                                                                                             \
    X(__poll_chk)                                                                                            \
    X(__ppoll_chk)                                                                                           \
    X(aio_suspend)                                                                                           \
    X(clock_nanosleep)                                                                                       \
    X(epoll_pwait)                                                                                           \
    X(epoll_pwait2)                                                                                          \
    X(epoll_wait)                                                                                            \
    X(gai_suspend)                                                                                           \
    X(msgrcv)                                                                                                \
    X(msgsnd)                                                                                                \
    X(nanosleep)                                                                                             \
    X(pause)                                                                                                 \
    X(poll)                                                                                                  \
    X(ppoll)                                                                                                 \
    X(pselect)                                                                                               \
    X(select)                                                                                                \
    X(sem_clockwait)                                                                                         \
    X(sem_timedwait)                                                                                         \
    X(semop)                                                                                                 \
    X(semtimedop)                                                                                            \
    X(sigsuspend)                                                                                            \
    X(sigtimedwait)                                                                                          \
    X(sigwait)                                                                                               \
    X(sigwaitinfo)                                                                                           \
    X(sleep)                                                                                                 \
    X(thrd_sleep)                                                                                            \
    X(usleep)
#include "profiler/agent/hooks_next.h"

void stile__waits_init(void)
{
    nexts_find();
}

/* The value of a call during which our signal is blocked, or of the plain call if there is no session. */
#define MASKED(call)                                                                                         \
    ({                                                                                                       \
        uint64_t ours_ = stile__session_masked_in_waits();                                                   \
        struct stile__wait wait_ = {0, false};                                                               \
        if (ours_ != 0)                                                                                      \
            wait_ = stile__wait_block(ours_);                                                                \
        __auto_type result_ = (call);                                                                        \
        if (ours_ != 0)                                                                                      \
            stile__wait_end(wait_);                                                                          \
        result_;                                                                                             \
    })

/* The value of a call that waits. Each is told by the hook that the program called: no other frame of ours is above. */
#define WAITS(why, hook, call) (stile__blocking_on() ? STILE__BLOCKS(why, hook, call) : (call))

/* The value of a call that may wait, but surely does not if `never`. */
#define MAY_WAIT(why, thing, never, hook, call)                                                              \
    (!stile__blocking_on() || (never) ? (call) : STILE__MAY_BLOCK(why, thing, hook, call))

/* Of a timeout that libc reads itself. */
static bool at_once(const struct timespec *timeout)
{
    return timeout != NULL && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
}

/* The mask for a call that takes one: the program's if it gave one. One system call at most. */
static struct stile__wait mask_for(uint64_t ours, const sigset_t *given, sigset_t *mask)
{
    return given != NULL ? stile__wait_given(ours, given, mask) : stile__wait_query(ours, mask);
}

/* poll and its like. */

static int ppoll_masked(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                        const sigset_t *given)
{
    uint64_t ours = stile__session_masked_in_waits();
    sigset_t mask;

    if (ours == 0)
        return NEXT(ppoll)(fds, count, timeout, given);
    struct stile__wait w = mask_for(ours, given, &mask);
    int n = NEXT(ppoll)(fds, count, timeout, &mask);
    stile__wait_end(w);
    return n;
}

static int poll_masked(struct pollfd *fds, nfds_t count, int timeout)
{
    if (stile__session_masked_in_waits() == 0)
        return NEXT(poll)(fds, count, timeout);
    struct timespec ts = {timeout / 1000, timeout % 1000 * 1000000L};
    return ppoll_masked(fds, count, timeout < 0 ? NULL : &ts, NULL);
}

/* What they wait for is told apart by how many there are: the descriptors are for the kernel to read, who minds bad addresses. */

STILE_EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                       const sigset_t *given)
{
    return MAY_WAIT(STILE__WAIT_POLL, count, at_once(timeout), ppoll,
                    ppoll_masked(fds, count, timeout, given));
}

STILE_EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    return MAY_WAIT(STILE__WAIT_POLL, count, timeout == 0, poll, poll_masked(fds, count, timeout));
}

STILE_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room)
{
    if (room / sizeof *fds < count)
        return NEXT(__poll_chk)(fds, count, timeout, room); /* says so and aborts */
    return MAY_WAIT(STILE__WAIT_POLL, count, timeout == 0, __poll_chk, poll_masked(fds, count, timeout));
}

STILE_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                             const sigset_t *given, size_t room)
{
    if (room / sizeof *fds < count)
        return NEXT(__ppoll_chk)(fds, count, timeout, given, room);
    return MAY_WAIT(STILE__WAIT_POLL, count, at_once(timeout), __ppoll_chk,
                    ppoll_masked(fds, count, timeout, given));
}

static int pselect_masked(int count, fd_set *readable, fd_set *writable, fd_set *special,
                          const struct timespec *timeout, const sigset_t *given)
{
    uint64_t ours = stile__session_masked_in_waits();
    sigset_t mask;

    if (ours == 0)
        return NEXT(pselect)(count, readable, writable, special, timeout, given);
    struct stile__wait w = mask_for(ours, given, &mask);
    int n = NEXT(pselect)(count, readable, writable, special, timeout, &mask);
    stile__wait_end(w);
    return n;
}

STILE_EXPORT int pselect(int count, fd_set *readable, fd_set *writable, fd_set *special,
                         const struct timespec *timeout, const sigset_t *given)
{
    return MAY_WAIT(STILE__WAIT_SELECT, count, at_once(timeout), pselect,
                    pselect_masked(count, readable, writable, special, timeout, given));
}

/* select leaves the time that remains in *timeout, and refuses or normalizes what it is given in its own way; pselect
 * does neither, so it can stand in only where nothing remains. */
static int select_masked(int count, fd_set *readable, fd_set *writable, fd_set *special,
                         struct timeval *timeout)
{
    static const struct timespec zero;
    if (stile__session_masked_in_waits() == 0)
        return NEXT(select)(count, readable, writable, special, timeout);
    if (timeout == NULL || (timeout->tv_sec == 0 && timeout->tv_usec == 0))
        return pselect_masked(count, readable, writable, special, timeout == NULL ? NULL : &zero, NULL);
    return MASKED(NEXT(select)(count, readable, writable, special, timeout));
}

STILE_EXPORT int select(int count, fd_set *readable, fd_set *writable, fd_set *special,
                        struct timeval *timeout)
{
    return MAY_WAIT(STILE__WAIT_SELECT, count,
                    timeout != NULL && timeout->tv_sec == 0 && timeout->tv_usec == 0, select,
                    select_masked(count, readable, writable, special, timeout));
}

static int epoll_masked(int fd, struct epoll_event *events, int count, int timeout, const sigset_t *given)
{
    uint64_t ours = stile__session_masked_in_waits();
    sigset_t mask;

    if (ours == 0)
        return NEXT(epoll_pwait)(fd, events, count, timeout, given);
    struct stile__wait w = mask_for(ours, given, &mask);
    int n = NEXT(epoll_pwait)(fd, events, count, timeout, &mask);
    stile__wait_end(w);
    return n;
}

STILE_EXPORT int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout,
                             const sigset_t *given)
{
    return MAY_WAIT(STILE__WAIT_EPOLL, fd, timeout == 0, epoll_pwait,
                    epoll_masked(fd, events, count, timeout, given));
}

static int epoll_plain(int fd, struct epoll_event *events, int count, int timeout)
{
    return stile__session_masked_in_waits() == 0 ? NEXT(epoll_wait)(fd, events, count, timeout)
                                                 : epoll_masked(fd, events, count, timeout, NULL);
}

STILE_EXPORT int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    return MAY_WAIT(STILE__WAIT_EPOLL, fd, timeout == 0, epoll_wait, epoll_plain(fd, events, count, timeout));
}

static int epoll2_masked(int fd, struct epoll_event *events, int count, const struct timespec *timeout,
                         const sigset_t *given)
{
    uint64_t ours = stile__session_masked_in_waits();
    sigset_t mask;

    if (ours == 0)
        return NEXT(epoll_pwait2)(fd, events, count, timeout, given);
    struct stile__wait w = mask_for(ours, given, &mask);
    int n = NEXT(epoll_pwait2)(fd, events, count, timeout, &mask);
    stile__wait_end(w);
    return n;
}

STILE_EXPORT int epoll_pwait2(int fd, struct epoll_event *events, int count, const struct timespec *timeout,
                              const sigset_t *given)
{
    if (NEXT(epoll_pwait2) == NULL) { /* younger than some libc that we may run on */
        errno = ENOSYS;
        return -1;
    }
    /* The kernel reads the timeout. */
    return MAY_WAIT(STILE__WAIT_EPOLL, fd, false, epoll_pwait2,
                    epoll2_masked(fd, events, count, timeout, given));
}

/* Sleeping. */

STILE_EXPORT int nanosleep(const struct timespec *time, struct timespec *left)
{
    return WAITS(STILE__WAIT_SLEEP, nanosleep, MASKED(NEXT(nanosleep)(time, left)));
}

STILE_EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                                 struct timespec *left)
{
    return WAITS(STILE__WAIT_SLEEP, clock_nanosleep, MASKED(NEXT(clock_nanosleep)(clock, flags, time, left)));
}

STILE_EXPORT int usleep(useconds_t us)
{
    return WAITS(STILE__WAIT_SLEEP, usleep, MASKED(NEXT(usleep)(us)));
}

STILE_EXPORT unsigned sleep(unsigned seconds)
{
    return WAITS(STILE__WAIT_SLEEP, sleep, MASKED(NEXT(sleep)(seconds)));
}

STILE_EXPORT int thrd_sleep(const struct timespec *time, struct timespec *left)
{
    return WAITS(STILE__WAIT_SLEEP, thrd_sleep, MASKED(NEXT(thrd_sleep)(time, left)));
}

/* Semaphores: those waits that have a timeout. Where there is nothing to wait for, they need no system call, with us
 * as without. */

static bool sem_taken(sem_t *sem, const struct timespec *until)
{
    int saved_errno = errno;
    if (until->tv_nsec < 0 ||
        until->tv_nsec >= 1000000000) /* refused whether there is something to wait for or not */
        return false;
    pthread_testcancel();
    if (sem_trywait(sem) == 0)
        return true;
    errno = saved_errno;
    return false;
}

STILE_EXPORT int sem_timedwait(sem_t *sem, const struct timespec *until)
{
    if ((stile__session_masked_in_waits() != 0 || stile__blocking_on()) && sem_taken(sem, until))
        return 0;
    return WAITS(STILE__WAIT_SEMAPHORE, sem_timedwait, MASKED(NEXT(sem_timedwait)(sem, until)));
}

STILE_EXPORT int sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *until)
{
    if (NEXT(sem_clockwait) == NULL) {
        errno = ENOSYS;
        return -1;
    }
    if (stile__blocking_on() && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC) &&
        sem_taken(sem, until))
        return 0;
    return WAITS(STILE__WAIT_SEMAPHORE, sem_clockwait, MASKED(NEXT(sem_clockwait)(sem, clock, until)));
}

STILE_EXPORT int semop(int id, struct sembuf *ops, size_t count)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, id, false, semop, MASKED(NEXT(semop)(id, ops, count)));
}

STILE_EXPORT int semtimedop(int id, struct sembuf *ops, size_t count, const struct timespec *timeout)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, id, false, semtimedop,
                    MASKED(NEXT(semtimedop)(id, ops, count, timeout)));
}

STILE_EXPORT ssize_t msgrcv(int id, void *to, size_t size, long type, int flags)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, id, (flags & IPC_NOWAIT) != 0, msgrcv,
                    MASKED(NEXT(msgrcv)(id, to, size, type, flags)));
}

STILE_EXPORT int msgsnd(int id, const void *from, size_t size, int flags)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, id, (flags & IPC_NOWAIT) != 0, msgsnd,
                    MASKED(NEXT(msgsnd)(id, from, size, flags)));
}

STILE_EXPORT int aio_suspend(const struct aiocb *const list[], int count, const struct timespec *timeout)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, count, false, aio_suspend,
                    MASKED(NEXT(aio_suspend)(list, count, timeout)));
}

STILE_EXPORT int aio_suspend64(const struct aiocb64 *const list[], int count, const struct timespec *timeout)
{
    const struct aiocb *const *same = (const struct aiocb *const *)list; /* one function in libc, too */
    return MAY_WAIT(STILE__WAIT_MESSAGE, count, false, aio_suspend64,
                    MASKED(NEXT(aio_suspend)(same, count, timeout)));
}

STILE_EXPORT int gai_suspend(const struct gaicb *const list[], int count, const struct timespec *timeout)
{
    return MAY_WAIT(STILE__WAIT_MESSAGE, count, false, gai_suspend,
                    MASKED(NEXT(gai_suspend)(list, count, timeout)));
}

/* Waiting for signals. */

static int sigsuspend_open(const sigset_t *given)
{
    uint64_t ours = stile__session_kept_open();
    sigset_t mask;

    if (ours == 0)
        return NEXT(sigsuspend)(given);
    struct stile__wait w = stile__wait_given(ours, given, &mask);
    int err = NEXT(sigsuspend)(&mask);
    stile__wait_end(w);
    return err;
}

STILE_EXPORT int sigsuspend(const sigset_t *given)
{
    return WAITS(STILE__WAIT_SIGNAL, sigsuspend, sigsuspend_open(given));
}

static int pause_open(void)
{
    uint64_t ours = stile__session_kept_open();
    sigset_t mask;

    if (ours == 0)
        return NEXT(pause)();
    struct stile__wait w = stile__wait_query(ours, &mask);
    int err = NEXT(sigsuspend)(&mask);
    stile__wait_end(w);
    return err;
}

STILE_EXPORT int pause(void)
{
    return WAITS(STILE__WAIT_SIGNAL, pause, pause_open());
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A program that waits for all signals waits for ours too, and would take its thread's ticks for a signal of its own.
 * They go on to where they belong: to the handler, if it can run, or else to what is due when the thread ends. */
static bool tick_passed_on(const siginfo_t *info, uint64_t ours)
{
    if (!stile__thread_owns_tick(info))
        return false;
    if ((stile__raw_sigmask(SIG_BLOCK, 0) & ours) == 0)
        stile__raw_syscall(SYS_rt_tgsigqueueinfo, stile__raw_getpid(), stile__raw_gettid(), info->si_signo,
                           (long)info);
    return true;
}

/* sigtimedwait for a set that has our signal. */
static int wait_with_ours(const sigset_t *set, siginfo_t *info, const struct timespec *timeout, uint64_t ours)
{
    bool bounded = timeout != NULL && timeout->tv_sec >= 0 && timeout->tv_sec < INT32_MAX;
    uint64_t until =
        bounded ? now_ns() + (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec : 0;
    struct timespec left;
    siginfo_t found;

    for (;;) {
        int got = NEXT(sigtimedwait)(set, &found, timeout);
        if (got < 0 || !tick_passed_on(&found, ours)) {
            if (got >= 0 && info != NULL)
                *info = found;
            return got;
        }
        if (bounded) {
            uint64_t now = now_ns(), ns = until > now ? until - now : 0;
            left = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
            timeout = &left;
        }
    }
}

static bool names(const sigset_t *set, uint64_t ours)
{
    return (set->__val[0] & ours) != 0;
}

static int sigtimedwait_open(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
    uint64_t ours = stile__session_kept_open();
    if (ours != 0 && names(set, ours))
        return wait_with_ours(set, info, timeout, ours);
    return MASKED(NEXT(sigtimedwait)(set, info, timeout));
}

/* The kernel reads the timeout. */
STILE_EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
    return MAY_WAIT(STILE__WAIT_SIGNAL, 0, false, sigtimedwait, sigtimedwait_open(set, info, timeout));
}

static int sigwaitinfo_open(const sigset_t *set, siginfo_t *info)
{
    uint64_t ours = stile__session_kept_open();
    if (ours != 0 && names(set, ours))
        return wait_with_ours(set, info, NULL, ours);
    return MASKED(NEXT(sigwaitinfo)(set, info));
}

STILE_EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
    return WAITS(STILE__WAIT_SIGNAL, sigwaitinfo, sigwaitinfo_open(set, info));
}

/* libc goes on after EINTR here. */
static int sigwait_open(const sigset_t *set, int *number)
{
    uint64_t ours = stile__session_kept_open();
    int saved_errno = errno, got, err;

    if (ours == 0 || !names(set, ours))
        return NEXT(sigwait)(set, number);
    do {
        got = wait_with_ours(set, NULL, NULL, ours);
        err = got < 0 ? errno : 0;
    } while (err == EINTR);
    errno = saved_errno;
    if (err == 0)
        *number = got;
    return err;
}

STILE_EXPORT int sigwait(const sigset_t *set, int *number)
{
    return WAITS(STILE__WAIT_SIGNAL, sigwait, sigwait_open(set, number));
}

/* The names that libc has for its own libraries, and for programs built long ago. */
#define ALIAS(other, name) STILE_EXPORT extern __typeof__(name)(other) __attribute__((alias(#name)))
ALIAS(__poll, poll);
ALIAS(__select, select);
ALIAS(__nanosleep, nanosleep);
ALIAS(__sigsuspend, sigsuspend);
