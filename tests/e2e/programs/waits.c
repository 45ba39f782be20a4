/* Waits in every way that a signal might break off, a thread each, beside one that works: SECONDS, and whether to send
 * the waiting threads SIGPROF all the time ("pelt"), as a clock would that ticks at any moment. Counts, for each way,
 * waits that a signal broke off and waits that ended otherwise than they had to. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <threads.h>
#include <unistd.h>

#include "work.h"

/* A thread, its way of waiting, and what that needs. */
struct waiter {
    const char *name;
    int (*wait)(struct waiter *);      /* 0, or -1 and errno; 1: it ended wrongly */
    void (*feed)(struct waiter *);     /* what it waits for, if that is not a timeout; in another thread */
    int (*open)(struct waiter *, int); /* prepares it */
    int kind;
    pthread_t thread;
    _Atomic int tid, ended;
    int fd, other_fd, id;
    sem_t sem;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    volatile int handled;
    unsigned broken, wrong, rounds;
};

static _Atomic bool over;
static _Thread_local struct waiter *self;
static const struct timespec moment = {0, 200000};
static const struct timespec at_once = {0, 0};

static struct timespec in_a_moment(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += moment.tv_nsec;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

/* What has to fail, and with which error. */
static int fails_with(int expected, long result)
{
    if (result < 0 && errno == expected)
        return 0;
    return result < 0 ? -1 : 1;
}

static int returns(int expected, int error)
{
    errno = error;
    return error == expected ? 0 : error == EINTR ? -1 : 1;
}

static int never_fd(struct waiter *w, int unused)
{
    int pair[2];
    (void)unused;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    w->fd = pair[0];
    w->other_fd = pair[1];
    return 0;
}

static int wait_poll(struct waiter *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    return poll(&p, 1, w->rounds % 2);
}

static int wait_ppoll(struct waiter *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    return ppoll(&p, 1, w->rounds % 2 ? &moment : &at_once, NULL);
}

static int wait_ppoll_mask(struct waiter *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    sigset_t none;
    sigemptyset(&none);
    return ppoll(&p, 1, &moment, &none);
}

static int wait_select(struct waiter *w)
{
    struct timeval t = {0, w->rounds % 2 ? 200 : 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(w->fd, &set);
    int n = select(w->fd + 1, &set, NULL, NULL, &t);
    return n == 0 && (t.tv_sec != 0 || t.tv_usec != 0) ? 1 : n;
}

static int wait_pselect(struct waiter *w)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(w->fd, &set);
    return pselect(w->fd + 1, &set, NULL, NULL, &moment, NULL);
}

static int open_epoll(struct waiter *w, int unused)
{
    struct epoll_event event = {.events = EPOLLIN};
    int err = never_fd(w, unused);
    int fd = epoll_create1(0);
    err |= epoll_ctl(fd, EPOLL_CTL_ADD, w->fd, &event);
    w->fd = fd;
    return err;
}

static int wait_epoll(struct waiter *w)
{
    struct epoll_event event;
    return epoll_wait(w->fd, &event, 1, w->rounds % 2);
}

static int wait_epoll_pwait(struct waiter *w)
{
    struct epoll_event event;
    sigset_t none;
    sigemptyset(&none);
    return epoll_pwait(w->fd, &event, 1, w->rounds % 2, &none);
}

static int wait_epoll_pwait2(struct waiter *w)
{
    struct epoll_event event;
    return epoll_pwait2(w->fd, &event, 1, &moment, NULL);
}

static int wait_nanosleep(struct waiter *w)
{
    (void)w;
    return nanosleep(&moment, NULL);
}

static int wait_clock_nanosleep(struct waiter *w)
{
    struct timespec t = in_a_moment(CLOCK_MONOTONIC);
    (void)w;
    return returns(0, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
}

static int wait_usleep(struct waiter *w)
{
    (void)w;
    return usleep(200);
}

static int wait_thrd_sleep(struct waiter *w)
{
    (void)w;
    return returns(0, thrd_sleep(&moment, NULL) == -1 ? EINTR : 0);
}

static int open_pipe(struct waiter *w, int unused)
{
    int pair[2];
    (void)unused;
    if (pipe(pair) != 0)
        return -1;
    w->fd = pair[0];
    w->other_fd = pair[1];
    return 0;
}

static int wait_read(struct waiter *w)
{
    char c;
    ssize_t n = read(w->fd, &c, 1);
    return n == 1 ? 0 : n < 0 ? -1 : 1;
}

static void feed_write(struct waiter *w)
{
    if (write(w->other_fd, "x", 1) < 0)
        w->wrong++;
}

static struct sockaddr_un address_of(const struct waiter *w)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "stile-waits-%d-%d", getpid(), w->kind);
    return a;
}

static int open_listener(struct waiter *w, int timeout)
{
    struct sockaddr_un a = address_of(w);
    struct timeval t = {0, 1000};
    w->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(w->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(w->fd, 5) != 0)
        return -1;
    return timeout ? setsockopt(w->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) : 0;
}

static int wait_accept(struct waiter *w)
{
    int fd = accept(w->fd, NULL, NULL);
    return fd < 0 ? -1 : close(fd);
}

static void feed_connect(struct waiter *w)
{
    struct sockaddr_un a = address_of(w);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EAGAIN)
        w->wrong++;
    close(fd);
}

static int wait_accept_timeout(struct waiter *w)
{
    return fails_with(EAGAIN, accept(w->fd, NULL, NULL));
}

static int open_timeout(struct waiter *w, int option)
{
    struct timeval t = {0, 1000};
    char buf[4096] = {0};
    int err = never_fd(w, 0);
    while (option == SO_SNDTIMEO && send(w->fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
        ;
    return err | setsockopt(w->fd, SOL_SOCKET, option, &t, sizeof t);
}

static int wait_recv(struct waiter *w)
{
    char c;
    return fails_with(EAGAIN, recv(w->fd, &c, 1, 0));
}

static int wait_recvmsg(struct waiter *w)
{
    char c;
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return fails_with(EAGAIN, recvmsg(w->fd, &m, 0));
}

static int wait_read_timeout(struct waiter *w)
{
    char c;
    return fails_with(EAGAIN, read(w->fd, &c, 1));
}

static int wait_write_timeout(struct waiter *w)
{
    char buf[4096] = {0};
    return fails_with(EAGAIN, write(w->fd, buf, sizeof buf));
}

static int wait_send(struct waiter *w)
{
    char buf[4096] = {0};
    return fails_with(EAGAIN, send(w->fd, buf, sizeof buf, 0));
}

static int open_sem(struct waiter *w, int unused)
{
    (void)unused;
    return sem_init(&w->sem, 0, 0);
}

static int wait_sem(struct waiter *w)
{
    return sem_wait(&w->sem);
}

static void feed_sem(struct waiter *w)
{
    sem_post(&w->sem);
}

static int wait_sem_timed(struct waiter *w)
{
    struct timespec t = in_a_moment(CLOCK_REALTIME);
    return fails_with(ETIMEDOUT, sem_timedwait(&w->sem, &t));
}

static int wait_sem_clock(struct waiter *w)
{
    struct timespec t = in_a_moment(CLOCK_MONOTONIC);
    return fails_with(ETIMEDOUT, sem_clockwait(&w->sem, CLOCK_MONOTONIC, &t));
}

static int open_cond(struct waiter *w, int unused)
{
    (void)unused;
    return pthread_mutex_init(&w->lock, NULL) | pthread_cond_init(&w->cond, NULL);
}

static int wait_cond(struct waiter *w)
{
    struct timespec t = in_a_moment(CLOCK_REALTIME);
    pthread_mutex_lock(&w->lock);
    int err = pthread_cond_timedwait(&w->cond, &w->lock, &t);
    pthread_mutex_unlock(&w->lock);
    return returns(ETIMEDOUT, err == 0 ? ETIMEDOUT : err); /* it may return for nothing */
}

static int open_queue(struct waiter *w, int unused)
{
    (void)unused;
    w->id = msgget(IPC_PRIVATE, 0600);
    return w->id < 0;
}

static int wait_msgrcv(struct waiter *w)
{
    long message[2];
    ssize_t n = msgrcv(w->id, message, sizeof message[1], 0, 0);
    return n == sizeof message[1] ? 0 : n < 0 ? -1 : 1;
}

static void feed_message(struct waiter *w)
{
    long message[2] = {1, 1};
    if (msgsnd(w->id, message, sizeof message[1], IPC_NOWAIT) != 0 && errno != EAGAIN)
        w->wrong++;
}

static int open_semaphores(struct waiter *w, int unused)
{
    (void)unused;
    w->id = semget(IPC_PRIVATE, 1, 0600);
    return w->id < 0;
}

static int wait_semop(struct waiter *w)
{
    struct sembuf op = {0, -1, 0};
    return semop(w->id, &op, 1);
}

static void feed_semop(struct waiter *w)
{
    struct sembuf op = {0, 1, 0};
    if (semop(w->id, &op, 1) != 0)
        w->wrong++;
}

static int wait_semtimedop(struct waiter *w)
{
    struct sembuf op = {0, -1, 0};
    return fails_with(EAGAIN, semtimedop(w->id, &op, 1, &moment));
}

static int open_blocked(struct waiter *w, int signal)
{
    sigset_t set;
    (void)w;
    if (signal != 0) {
        sigemptyset(&set);
        sigaddset(&set, signal);
    } else {
        sigfillset(&set);
    }
    return pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int wait_sigtimedwait(struct waiter *w)
{
    sigset_t set;
    (void)w;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return fails_with(EAGAIN, sigtimedwait(&set, NULL, &moment));
}

/* Our ticks are not for the program's eyes. */
static int wait_sigtimedwait_all(struct waiter *w)
{
    sigset_t set;
    (void)w;
    sigfillset(&set);
    return fails_with(EAGAIN, sigtimedwait(&set, NULL, &moment));
}

static int wait_sigwait(struct waiter *w)
{
    sigset_t set;
    int number = 0;
    (void)w;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return returns(0, sigwait(&set, &number)) != 0 ? -1 : number != SIGUSR1;
}

static int wait_sigwaitinfo(struct waiter *w)
{
    sigset_t set;
    (void)w;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    int number = sigwaitinfo(&set, NULL);
    return number < 0 ? -1 : number != SIGUSR1;
}

static void feed_blocked_signal(struct waiter *w)
{
    pthread_kill(w->thread, SIGUSR1);
}

static void on_usr2(int signal)
{
    (void)signal;
    self->handled++;
}

/* These return with EINTR, but not before a handler of the program's has run. */
static int wait_sigsuspend(struct waiter *w)
{
    sigset_t set;
    int before = w->handled;
    sigemptyset(&set);
    return fails_with(EINTR, sigsuspend(&set)) != 0 || w->handled == before;
}

static int wait_pause(struct waiter *w)
{
    int before = w->handled;
    return fails_with(EINTR, pause()) != 0 || w->handled == before;
}

static void feed_handled_signal(struct waiter *w)
{
    pthread_kill(w->thread, SIGUSR2);
}

#define WAY(says, how, food, prepare, with)                                                                  \
    {                                                                                                        \
        .name = says, .wait = how, .feed = food, .open = prepare, .kind = with                               \
    }
static struct waiter waiters[] = {
    WAY("poll", wait_poll, NULL, never_fd, 0),
    WAY("ppoll", wait_ppoll, NULL, never_fd, 0),
    WAY("ppoll with a mask", wait_ppoll_mask, NULL, never_fd, 0),
    WAY("select", wait_select, NULL, never_fd, 0),
    WAY("pselect", wait_pselect, NULL, never_fd, 0),
    WAY("epoll_wait", wait_epoll, NULL, open_epoll, 0),
    WAY("epoll_pwait", wait_epoll_pwait, NULL, open_epoll, 0),
    WAY("epoll_pwait2", wait_epoll_pwait2, NULL, open_epoll, 0),
    WAY("nanosleep", wait_nanosleep, NULL, NULL, 0),
    WAY("clock_nanosleep", wait_clock_nanosleep, NULL, NULL, 0),
    WAY("usleep", wait_usleep, NULL, NULL, 0),
    WAY("thrd_sleep", wait_thrd_sleep, NULL, NULL, 0),
    WAY("read", wait_read, feed_write, open_pipe, 0),
    WAY("accept", wait_accept, feed_connect, open_listener, 0),
    WAY("accept with a timeout", wait_accept_timeout, NULL, open_listener, 1),
    WAY("recv with a timeout", wait_recv, NULL, open_timeout, SO_RCVTIMEO),
    WAY("recvmsg with a timeout", wait_recvmsg, NULL, open_timeout, SO_RCVTIMEO),
    WAY("read with a timeout", wait_read_timeout, NULL, open_timeout, SO_RCVTIMEO),
    WAY("send with a timeout", wait_send, NULL, open_timeout, SO_SNDTIMEO),
    WAY("write with a timeout", wait_write_timeout, NULL, open_timeout, SO_SNDTIMEO),
    WAY("sem_wait", wait_sem, feed_sem, open_sem, 0),
    WAY("sem_timedwait", wait_sem_timed, NULL, open_sem, 0),
    WAY("sem_clockwait", wait_sem_clock, NULL, open_sem, 0),
    WAY("pthread_cond_timedwait", wait_cond, NULL, open_cond, 0),
    WAY("msgrcv", wait_msgrcv, feed_message, open_queue, 0),
    WAY("semop", wait_semop, feed_semop, open_semaphores, 0),
    WAY("semtimedop", wait_semtimedop, NULL, open_semaphores, 0),
    WAY("sigtimedwait", wait_sigtimedwait, NULL, open_blocked, SIGUSR1),
    WAY("sigtimedwait for all", wait_sigtimedwait_all, NULL, open_blocked, 0),
    WAY("sigwait", wait_sigwait, feed_blocked_signal, open_blocked, SIGUSR1),
    WAY("sigwaitinfo", wait_sigwaitinfo, feed_blocked_signal, open_blocked, SIGUSR1),
    WAY("sigsuspend", wait_sigsuspend, feed_handled_signal, open_blocked, SIGUSR2),
    WAY("pause", wait_pause, feed_handled_signal, NULL, 0),
};
#define WAITERS (sizeof waiters / sizeof *waiters)

static void *wait_main(void *arg)
{
    struct waiter *w = arg;
    self = w;
    if (w->open != NULL && w->open(w, w->kind) != 0)
        w->wrong += 1000000;
    atomic_store(&w->tid, gettid());
    while (!atomic_load(&over)) {
        errno = 0;
        int r = w->wait(w);
        w->broken += r < 0 && errno == EINTR;
        w->wrong += r > 0 || (r < 0 && errno != EINTR);
        w->rounds++;
    }
    atomic_store(&w->tid, 0);
    atomic_store(&w->ended, 1);
    return NULL;
}

WORK static uint64_t work_beside_waits(uint64_t ns)
{
    return burn(ns);
}

static void *work_main(void *unused)
{
    (void)unused;
    while (!atomic_load(&over))
        work_beside_waits(10 * MS);
    return NULL;
}

/* Past libc, so that no wrapper stands in the way of those who send. */
static void rest(long ns)
{
    struct timespec t = {0, ns};
    syscall(SYS_nanosleep, &t, NULL);
}

static void *feed_main(void *unused)
{
    bool all = false;
    (void)unused;
    while (!all) {
        all = true;
        for (size_t i = 0; i < WAITERS; i++) {
            struct waiter *w = &waiters[i];
            bool ended = atomic_load(&w->ended);
            all = all && ended;
            if (w->feed != NULL && !ended && atomic_load(&w->tid) != 0)
                w->feed(w);
        }
        rest(500000);
    }
    return NULL;
}

static void *pelt_main(void *unused)
{
    (void)unused;
    while (!atomic_load(&over)) {
        for (size_t i = 0; i < WAITERS; i++) {
            int tid = atomic_load(&waiters[i].tid);
            /* Whoever waits for any signal gets this one. */
            if (tid != 0 && waiters[i].wait != wait_sigtimedwait_all)
                syscall(SYS_tgkill, getpid(), tid, SIGPROF);
        }
        rest(300000);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_usr2};
    pthread_t working, feeding, pelting;
    bool pelt = argc > 2 && strcmp(argv[2], "pelt") == 0;

    if (argc < 2)
        return 2;
    sigaction(SIGUSR2, &act, NULL);
    for (size_t i = 0; i < WAITERS; i++)
        if (pthread_create(&waiters[i].thread, NULL, wait_main, &waiters[i]) != 0)
            return 1;
    if (pthread_create(&working, NULL, work_main, NULL) != 0 ||
        pthread_create(&feeding, NULL, feed_main, NULL) != 0 ||
        (pelt && pthread_create(&pelting, NULL, pelt_main, NULL) != 0))
        return 1;
    for (int i = 0; i < atoi(argv[1]) * 100; i++)
        rest(10000000);
    atomic_store(&over, true);
    if (pelt)
        pthread_join(pelting, NULL);
    for (size_t i = 0; i < WAITERS; i++)
        pthread_join(waiters[i].thread, NULL);
    pthread_join(working, NULL);
    pthread_join(feeding, NULL);
    for (size_t i = 0; i < WAITERS; i++) {
        struct waiter *w = &waiters[i];
        if (w->open == open_queue)
            msgctl(w->id, IPC_RMID, NULL);
        if (w->open == open_semaphores)
            semctl(w->id, 0, IPC_RMID);
        printf("%s: %s, %u broken off, %u wrong\n", w->name, w->rounds > 20 ? "waited" : "hardly waited",
               w->broken, w->wrong);
        if (argc > 3)
            printf("  %u rounds\n", w->rounds);
    }
    return 0;
}
