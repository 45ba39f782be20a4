/* Waits of known length, each in a function of its own, which measures them itself: for each function prints its name, how
 * often it waited for a millisecond and more, how many nanoseconds all took, and how many of them it was ready to run and had
 * no processor, which may be before the wait and after it as well as in it. waiting ROUNDS [NAME...] */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/programs/run_delay.h"

#define MS 1000000l

static int rounds;

/* Both sides of a round meet here; it is told apart from what is measured by its name. */
static pthread_barrier_t both;

static void check(bool good, const char *what)
{
    if (good)
        return;
    perror(what);
    _exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static __attribute__((noinline)) void meet(void)
{
    pthread_barrier_wait(&both);
    __asm__ volatile("");
}

static __attribute__((noinline)) void pass(long ns)
{
    struct timespec ts = {0, ns};
    nanosleep(&ts, NULL);
    __asm__ volatile("");
}

/* One kind of wait: `wait` is measured, `end` brings it to its end on another thread, after a time. */
struct kind {
    const char *name; /* the function that waits */
    void (*prepare)(void);
    void (*wait)(void);
    void (*end)(void);
    long ns; /* that a wait takes at least */
};

#define WAITER(name) static __attribute__((noinline)) void name(void)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool item;
static sem_t sem;
static pthread_barrier_t two;
static int fds[2], sockets[2], listener, epoll;
static struct sockaddr_in address;
static pthread_t joined;
static pid_t child;

/* What the other side does before it meets the one who waits: it holds what that one wants. */
static void hold_mutex(void)
{
    pthread_mutex_lock(&mutex);
}
WAITER(lock_mutex)
{
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
}
static void release_mutex(void)
{
    pthread_mutex_unlock(&mutex);
}

WAITER(lock_mutex_timed)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 100;
    check(pthread_mutex_timedlock(&mutex, &until) == 0, "timedlock");
    pthread_mutex_unlock(&mutex);
}

static void hold_write(void)
{
    pthread_rwlock_wrlock(&rwlock);
}
WAITER(lock_read)
{
    pthread_rwlock_rdlock(&rwlock);
    pthread_rwlock_unlock(&rwlock);
}
WAITER(lock_write)
{
    pthread_rwlock_wrlock(&rwlock);
    pthread_rwlock_unlock(&rwlock);
}
static void release_rwlock(void)
{
    pthread_rwlock_unlock(&rwlock);
}

WAITER(consume)
{
    pthread_mutex_lock(&mutex);
    while (!item)
        pthread_cond_wait(&cond, &mutex);
    item = false;
    pthread_mutex_unlock(&mutex);
}
WAITER(consume_timed)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 100;
    pthread_mutex_lock(&mutex);
    while (!item)
        pthread_cond_timedwait(&cond, &mutex, &until);
    item = false;
    pthread_mutex_unlock(&mutex);
}
static __attribute__((noinline)) void produce(void)
{
    pthread_mutex_lock(&mutex);
    item = true;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&mutex);
}

WAITER(wait_for_sem)
{
    check(sem_wait(&sem) == 0, "sem_wait");
}
static __attribute__((noinline)) void post(void)
{
    sem_post(&sem);
    __asm__ volatile("");
}

WAITER(wait_at_barrier)
{
    pthread_barrier_wait(&two);
    __asm__ volatile("");
}
static __attribute__((noinline)) void arrive(void)
{
    pthread_barrier_wait(&two);
    __asm__ volatile("");
}

static void *live(void *arg)
{
    (void)arg;
    pass(20 * MS);
    return NULL;
}
static void make_thread(void)
{
    check(pthread_create(&joined, NULL, live, NULL) == 0, "pthread_create");
}
WAITER(join_it)
{
    pthread_join(joined, NULL);
    __asm__ volatile("");
}

static void nothing(void)
{
}
WAITER(sleep_nano)
{
    struct timespec ts = {0, 20 * MS};
    nanosleep(&ts, NULL);
    __asm__ volatile("");
}
WAITER(sleep_clock)
{
    struct timespec ts = {0, 20 * MS};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
    __asm__ volatile("");
}
WAITER(sleep_micro)
{
    usleep(20000);
    __asm__ volatile("");
}

static void drop(void)
{
    char byte;
    check(read(fds[0], &byte, 1) == 1, "read");
}
WAITER(drink)
{
    drop();
    __asm__ volatile("");
}
static void feed(void)
{
    check(write(fds[1], "x", 1) == 1, "write");
}
WAITER(poll_pipe)
{
    struct pollfd p = {fds[0], POLLIN, 0};
    check(poll(&p, 1, -1) == 1, "poll");
    drop();
}
WAITER(select_pipe)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fds[0], &set);
    check(select(fds[0] + 1, &set, NULL, NULL, NULL) == 1, "select");
    drop();
}
WAITER(epoll_pipe)
{
    struct epoll_event e;
    check(epoll_wait(epoll, &e, 1, -1) == 1, "epoll_wait");
    drop();
}

/* A pipe that is full, and has room once somebody reads. */
static void fill(void)
{
    static char page[4096];
    int n;
    struct pollfd p = {fds[1], POLLOUT, 0};
    for (n = 0; poll(&p, 1, 0) == 1 && n < 1000; n++)
        check(write(fds[1], page, sizeof page) > 0, "write");
}
WAITER(spill)
{
    check(write(fds[1], "x", 1) == 1, "write");
}
static void drain(void)
{
    static char page[65536];
    struct pollfd p = {fds[0], POLLIN, 0};
    check(read(fds[0], page, sizeof page) > 0, "read");
    pass(MS); /* until the other has written */
    while (poll(&p, 1, 0) == 1)
        check(read(fds[0], page, sizeof page) > 0, "read");
}

WAITER(receive)
{
    char byte;
    check(recv(sockets[0], &byte, 1, 0) == 1, "recv");
}
static void send_one(void)
{
    check(send(sockets[1], "x", 1, 0) == 1, "send");
}

WAITER(take_connection)
{
    int fd = accept(listener, NULL, NULL);
    check(fd >= 0, "accept");
    close(fd);
}
static void connect_to_it(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    close(fd);
}

static void make_child(void)
{
    child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(0);
    }
    check(child > 0, "fork");
}
WAITER(wait_for_child)
{
    check(waitpid(child, NULL, 0) == child, "waitpid");
}

static const struct kind kinds[] = {
    {"lock_mutex", hold_mutex, lock_mutex, release_mutex, 10 * MS},
    {"lock_mutex_timed", hold_mutex, lock_mutex_timed, release_mutex, 10 * MS},
    {"lock_read", hold_write, lock_read, release_rwlock, 10 * MS},
    {"lock_write", hold_write, lock_write, release_rwlock, 10 * MS},
    {"consume", nothing, consume, produce, 50 * MS},
    {"consume_timed", nothing, consume_timed, produce, 20 * MS},
    {"wait_for_sem", nothing, wait_for_sem, post, 20 * MS},
    {"wait_at_barrier", nothing, wait_at_barrier, arrive, 20 * MS},
    {"join_it", make_thread, join_it, nothing, 0},
    {"sleep_nano", nothing, sleep_nano, nothing, 0},
    {"sleep_clock", nothing, sleep_clock, nothing, 0},
    {"sleep_micro", nothing, sleep_micro, nothing, 0},
    {"drink", nothing, drink, feed, 20 * MS},
    {"poll_pipe", nothing, poll_pipe, feed, 20 * MS},
    {"select_pipe", nothing, select_pipe, feed, 20 * MS},
    {"epoll_pipe", nothing, epoll_pipe, feed, 20 * MS},
    {"spill", fill, spill, drain, 20 * MS},
    {"receive", nothing, receive, send_one, 20 * MS},
    {"take_connection", nothing, take_connection, connect_to_it, 20 * MS},
    {"wait_for_child", make_child, wait_for_child, nothing, 0},
};

static void *other_side(void *arg)
{
    const struct kind *k = arg;
    for (int i = 0; i < rounds; i++) {
        k->prepare();
        meet();
        if (k->ns != 0)
            pass(k->ns);
        k->end();
        meet();
    }
    return NULL;
}

static void kind_run(const struct kind *k)
{
    pthread_t other;
    uint64_t ns = 0, delay = 0;
    int n = 0;
    check(pthread_create(&other, NULL, other_side, (void *)(uintptr_t)k) == 0, "pthread_create");
    for (int i = 0; i < rounds; i++) {
        meet();
        uint64_t delay_before = run_delay(), start = now_ns();
        k->wait();
        uint64_t took = now_ns() - start, delayed = run_delay() - delay_before;
        ns += took;
        delay += delayed;
        n += took >=
             delayed + 1000000; /* on a busy machine this side may come when there is nothing to wait for */
        meet();
    }
    pthread_join(other, NULL);
    printf("%s %d %" PRIu64 " %" PRIu64 "\n", k->name, n, ns, delay);
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc <= 2;
}

int main(int argc, char **argv)
{
    socklen_t size = sizeof address;
    rounds = argc > 1 ? atoi(argv[1]) : 10;
    check(pipe(fds) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "pipe");
    epoll = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &e) == 0, "epoll_ctl");
    listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 4) == 0 &&
              getsockname(listener, (struct sockaddr *)&address, &size) == 0,
          "listen");
    sem_init(&sem, 0, 0);
    pthread_barrier_init(&both, NULL, 2);
    pthread_barrier_init(&two, NULL, 2);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (wanted(kinds[i].name, argc, argv))
            kind_run(&kinds[i]);
    return 0;
}
