/* The calls of hooks_wait.c and hooks_socket.c that wait for a time. */
#include "tests/unit/support.h"

#include <aio.h>
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <unistd.h>

#include "tests/unit/agent/waits.h"

int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *given,
                size_t room);
ssize_t __read_chk(int fd, void *to, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *to, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *to, size_t size, size_t room, int flags, struct sockaddr *from,
                       socklen_t *n);

int waits_fds[2], waits_timed[2], waits_epoll_fd;
sem_t waits_sem;
const struct timespec waits_soon = {0, 60000000};
static int semaphores;

static struct timespec at_soon(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += (t.tv_nsec + waits_soon.tv_nsec) / 1000000000;
    t.tv_nsec = (t.tv_nsec + waits_soon.tv_nsec) % 1000000000;
    return t;
}

/* Each waits for 60 ms, if it may, and returns 0 for that, or the error: EINTR if a signal came in between. */

static int error_unless(bool right, int usual)
{
    return right || errno == usual ? 0 : errno;
}

static int on_poll(void)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    return error_unless(poll(&p, 1, 60) == 0, 0);
}

static int on_poll_chk(void)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    return error_unless(__poll_chk(&p, 1, 60, sizeof p) == 0, 0);
}

static int on_ppoll(void)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    return error_unless(ppoll(&p, 1, &waits_soon, NULL) == 0, 0);
}

static int on_ppoll_chk(void)
{
    struct pollfd p = {.fd = waits_fds[0], .events = POLLIN};
    return error_unless(__ppoll_chk(&p, 1, &waits_soon, NULL, sizeof p) == 0, 0);
}

static int on_select(void)
{
    struct timeval t = {0, 60000};
    return error_unless(select(0, NULL, NULL, NULL, &t) == 0, 0);
}

static int on_pselect(void)
{
    return error_unless(pselect(0, NULL, NULL, NULL, &waits_soon, NULL) == 0, 0);
}

static int on_epoll_wait(void)
{
    struct epoll_event e;
    return error_unless(epoll_wait(waits_epoll_fd, &e, 1, 60) == 0, 0);
}

static int on_epoll_pwait(void)
{
    struct epoll_event e;
    return error_unless(epoll_pwait(waits_epoll_fd, &e, 1, 60, NULL) == 0, 0);
}

static int on_epoll_pwait2(void)
{
    struct epoll_event e;
    return error_unless(epoll_pwait2(waits_epoll_fd, &e, 1, &waits_soon, NULL) == 0, 0);
}

static int on_nanosleep(void)
{
    struct timespec left = {0, 0};
    int err = error_unless(nanosleep(&waits_soon, &left) == 0, 0);
    assert_true((err == EINTR) == (left.tv_nsec != 0));
    return err;
}

static int on_clock_nanosleep(void)
{
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &waits_soon, NULL);
}

static int on_usleep(void)
{
    return error_unless(usleep(60000) == 0, 0);
}

static int on_sleep(void)
{
    return sleep(2) == 0 ? 0 : EINTR;
}

static int on_thrd_sleep(void)
{
    return thrd_sleep(&waits_soon, NULL) == 0 ? 0 : EINTR;
}

static int on_sem_timedwait(void)
{
    struct timespec t = at_soon(CLOCK_REALTIME);
    return error_unless(sem_timedwait(&waits_sem, &t) == 0, ETIMEDOUT);
}

static int on_sem_clockwait(void)
{
    struct timespec t = at_soon(CLOCK_MONOTONIC);
    return error_unless(sem_clockwait(&waits_sem, CLOCK_MONOTONIC, &t) == 0, ETIMEDOUT);
}

static int on_semtimedop(void)
{
    struct sembuf op = {0, -1, 0};
    return error_unless(semtimedop(semaphores, &op, 1, &waits_soon) == 0, EAGAIN);
}

static int on_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return error_unless(sigtimedwait(&set, NULL, &waits_soon) >= 0, EAGAIN);
}

static int on_aio_suspend(void)
{
    static char to;
    static struct aiocb read_one;
    const struct aiocb *const list[] = {&read_one};
    if (read_one.aio_buf == NULL) {
        read_one = (struct aiocb){.aio_fildes = waits_fds[0], .aio_buf = &to, .aio_nbytes = 1};
        read_one.aio_sigevent.sigev_notify = SIGEV_NONE;
        assert_int_equal(aio_read(&read_one), 0);
    }
    return error_unless(aio_suspend(list, 1, &waits_soon) == 0, EAGAIN);
}

static int on_recv(void)
{
    char c;
    return error_unless(recv(waits_timed[0], &c, 1, 0) == 1, EAGAIN);
}

static int on_recv_chk(void)
{
    char c;
    return error_unless(__recv_chk(waits_timed[0], &c, 1, 1, 0) == 1, EAGAIN);
}

static int on_recvfrom(void)
{
    char c;
    return error_unless(recvfrom(waits_timed[0], &c, 1, 0, NULL, NULL) == 1, EAGAIN);
}

static int on_recvfrom_chk(void)
{
    char c;
    return error_unless(__recvfrom_chk(waits_timed[0], &c, 1, 1, 0, NULL, NULL) == 1, EAGAIN);
}

static int on_recvmmsg(void)
{
    char c;
    struct iovec v = {&c, 1};
    struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
    return error_unless(recvmmsg(waits_timed[0], &m, 1, 0, NULL) == 1, EAGAIN);
}

static int on_read(void)
{
    char c;
    return error_unless(read(waits_timed[0], &c, 1) == 1, EAGAIN);
}

static int on_read_chk(void)
{
    char c;
    return error_unless(__read_chk(waits_timed[0], &c, 1, 1) == 1, EAGAIN);
}

static int on_readv(void)
{
    char c;
    struct iovec v = {&c, 1};
    return error_unless(readv(waits_timed[0], &v, 1) == 1, EAGAIN);
}

#define WAY(fn)                                                                                              \
    {                                                                                                        \
#        fn, fn                                                                                              \
    }
const struct wait waits[] = {
    WAY(on_poll),         WAY(on_poll_chk),     WAY(on_ppoll),         WAY(on_ppoll_chk),
    WAY(on_select),       WAY(on_pselect),      WAY(on_epoll_wait),    WAY(on_epoll_pwait),
    WAY(on_epoll_pwait2), WAY(on_nanosleep),    WAY(on_usleep),        WAY(on_clock_nanosleep),
    WAY(on_sleep),        WAY(on_thrd_sleep),   WAY(on_sem_timedwait), WAY(on_sem_clockwait),
    WAY(on_semtimedop),   WAY(on_sigtimedwait), WAY(on_aio_suspend),   WAY(on_recv),
    WAY(on_recv_chk),     WAY(on_recvfrom),     WAY(on_recvfrom_chk),  WAY(on_recvmmsg),
    WAY(on_read),         WAY(on_read_chk),     WAY(on_readv)};
const size_t n_waits = sizeof waits / sizeof *waits;

int waits_make(void)
{
    struct timeval t = {0, 60000};
    struct epoll_event e = {.events = EPOLLIN};
    int err = pipe(waits_fds) | socketpair(AF_UNIX, SOCK_STREAM, 0, waits_timed) | sem_init(&waits_sem, 0, 0);

    err |= setsockopt(waits_timed[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    waits_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    err |= epoll_ctl(waits_epoll_fd, EPOLL_CTL_ADD, waits_fds[0], &e);
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    return err | (semaphores < 0);
}

void waits_remove(void)
{
    semctl(semaphores, 0, IPC_RMID);
}
