/* Hooks on calls that take a signal's interruption as their end only on a socket with a timeout (SO_RCVTIMEO,
 * SO_SNDTIMEO): then ours is kept masked for their time. On everything else the kernel restarts them, and they go
 * straight through. Which descriptors may have a timeout is remembered when it is set, and never forgotten: a
 * descriptor wrongly taken for one costs two system calls a call, no more. Duplicates, and descriptors that came from
 * another process, are not known. All of them may wait, and are told to the profile of waits if they do. Normal context, in
 * the program's threads. */
#undef _FORTIFY_SOURCE /* its inline functions have the names that are defined here */
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/session.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/wait_mask.h"

/* What libc exports for programs built with _FORTIFY_SOURCE, and is in no header. */
STILE_EXPORT ssize_t __read_chk(int fd, void *to, size_t size, size_t room);
STILE_EXPORT ssize_t __recv_chk(int fd, void *to, size_t size, size_t room, int flags);
STILE_EXPORT ssize_t __recvfrom_chk(int fd, void *to, size_t size, size_t room, int flags,
                                    __SOCKADDR_ARG from, socklen_t *from_size);

#define HOOKS(X)                                                                                             \
    X(__read_chk)                                                                                            \
    X(__recv_chk)                                                                                            \
    X(__recvfrom_chk)                                                                                        \
    X(accept)                                                                                                \
    X(accept4)                                                                                               \
    X(connect)                                                                                               \
    X(read)                                                                                                  \
    X(readv)                                                                                                 \
    X(recv)                                                                                                  \
    X(recvfrom)                                                                                              \
    X(recvmmsg)                                                                                              \
    X(recvmsg)                                                                                               \
    X(send)                                                                                                  \
    X(sendmmsg)                                                                                              \
    X(sendmsg)                                                                                               \
    X(sendto)                                                                                                \
    X(setsockopt)                                                                                            \
    X(write)                                                                                                 \
    X(writev)
#include "profiler/agent/hooks_next.h"

void stile__sockets_init(void)
{
    nexts_find();
}

/* Bits are only ever set, and a call that races with the setting of its timeout may go either way: relaxed. */
#define FDS 65536u
static _Atomic bool timed_any; /* the rest is not looked at before this is set */
static _Atomic uint64_t timed[FDS / 64];
static _Atomic bool timed_beyond; /* for all descriptors that the bits have no room for */

static void timed_note(int fd)
{
    if (fd < 0)
        return;
    if ((unsigned)fd < FDS)
        atomic_fetch_or_explicit(&timed[fd / 64], 1ull << fd % 64, memory_order_relaxed);
    else
        atomic_store_explicit(&timed_beyond, true, memory_order_relaxed);
    atomic_store_explicit(&timed_any, true, memory_order_relaxed);
}

static bool timed_has(int fd)
{
    if ((unsigned)fd < FDS)
        return atomic_load_explicit(&timed[fd / 64], memory_order_relaxed) & 1ull << fd % 64;
    return fd >= 0 && atomic_load_explicit(&timed_beyond, memory_order_relaxed);
}

/* Our signal's bit if it has to be masked for a call on this descriptor, or 0. */
static inline uint64_t masked_for(int fd)
{
    if (__builtin_expect(!atomic_load_explicit(&timed_any, memory_order_relaxed), 1) || !timed_has(fd))
        return 0;
    return stile__session_masked_in_waits();
}

/* The value of a call on fd. */
#define MASKED_ON(fd, call)                                                                                  \
    ({                                                                                                       \
        uint64_t ours_ = masked_for(fd);                                                                     \
        struct stile__wait wait_ = {0, false};                                                               \
        if (__builtin_expect(ours_ != 0, 0))                                                                 \
            wait_ = stile__wait_block(ours_);                                                                \
        __auto_type result_ = (call);                                                                        \
        if (__builtin_expect(ours_ != 0, 0))                                                                 \
            stile__wait_end(wait_);                                                                          \
        result_;                                                                                             \
    })

/* Returns the value of a call on fd, which `hook` is called for. Without a timeout, and while no waits are recorded, or if it
 * never waits, that is a jump to libc's function. */
#define CALL_ON(why, hook, never, fd, call)                                                                  \
    if (__builtin_expect(stile__blocking_on() && !(never), 0))                                               \
        return STILE__MAY_BLOCK(why, fd, hook, MASKED_ON(fd, call));                                         \
    if (__builtin_expect(masked_for(fd) == 0, 1))                                                            \
        return call;                                                                                         \
    return MASKED_ON(fd, call)

STILE_EXPORT int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    int err = NEXT(setsockopt)(fd, level, option, value, size);
    if (err == 0 && level == SOL_SOCKET &&
        (option == SO_RCVTIMEO_OLD || option == SO_SNDTIMEO_OLD || option == SO_RCVTIMEO_NEW ||
         option == SO_SNDTIMEO_NEW))
        timed_note(fd);
    return err;
}

STILE_EXPORT ssize_t read(int fd, void *to, size_t size)
{
    CALL_ON(STILE__WAIT_READ, read, false, fd, NEXT(read)(fd, to, size));
}

STILE_EXPORT ssize_t write(int fd, const void *from, size_t size)
{
    CALL_ON(STILE__WAIT_WRITE, write, false, fd, NEXT(write)(fd, from, size));
}

STILE_EXPORT ssize_t readv(int fd, const struct iovec *to, int count)
{
    CALL_ON(STILE__WAIT_READ, readv, false, fd, NEXT(readv)(fd, to, count));
}

STILE_EXPORT ssize_t writev(int fd, const struct iovec *from, int count)
{
    CALL_ON(STILE__WAIT_WRITE, writev, false, fd, NEXT(writev)(fd, from, count));
}

STILE_EXPORT ssize_t recv(int fd, void *to, size_t size, int flags)
{
    CALL_ON(STILE__WAIT_RECV, recv, (flags & MSG_DONTWAIT) != 0, fd, NEXT(recv)(fd, to, size, flags));
}

STILE_EXPORT ssize_t recvfrom(int fd, void *to, size_t size, int flags, __SOCKADDR_ARG from,
                              socklen_t *from_size)
{
    CALL_ON(STILE__WAIT_RECV, recvfrom, (flags & MSG_DONTWAIT) != 0, fd,
            NEXT(recvfrom)(fd, to, size, flags, from, from_size));
}

STILE_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    CALL_ON(STILE__WAIT_RECV, recvmsg, (flags & MSG_DONTWAIT) != 0, fd, NEXT(recvmsg)(fd, message, flags));
}

STILE_EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                          struct timespec *timeout)
{
    CALL_ON(STILE__WAIT_RECV, recvmmsg, (flags & MSG_DONTWAIT) != 0, fd,
            NEXT(recvmmsg)(fd, messages, count, flags, timeout));
}

STILE_EXPORT ssize_t send(int fd, const void *from, size_t size, int flags)
{
    CALL_ON(STILE__WAIT_SEND, send, (flags & MSG_DONTWAIT) != 0, fd, NEXT(send)(fd, from, size, flags));
}

STILE_EXPORT ssize_t sendto(int fd, const void *from, size_t size, int flags, __CONST_SOCKADDR_ARG to,
                            socklen_t to_size)
{
    CALL_ON(STILE__WAIT_SEND, sendto, (flags & MSG_DONTWAIT) != 0, fd,
            NEXT(sendto)(fd, from, size, flags, to, to_size));
}

STILE_EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    CALL_ON(STILE__WAIT_SEND, sendmsg, (flags & MSG_DONTWAIT) != 0, fd, NEXT(sendmsg)(fd, message, flags));
}

STILE_EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    CALL_ON(STILE__WAIT_SEND, sendmmsg, (flags & MSG_DONTWAIT) != 0, fd,
            NEXT(sendmmsg)(fd, messages, count, flags));
}

STILE_EXPORT int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t size)
{
    CALL_ON(STILE__WAIT_CONNECT, connect, false, fd, NEXT(connect)(fd, to, size));
}

/* An accepted socket has the timeouts of the one that it was accepted on. */
static int accepted(int on, int fd)
{
    if (atomic_load_explicit(&timed_any, memory_order_relaxed) && timed_has(on))
        timed_note(fd);
    return fd;
}

STILE_EXPORT int accept(int fd, __SOCKADDR_ARG from, socklen_t *from_size)
{
    return accepted(fd, STILE__MAY_BLOCK(STILE__WAIT_ACCEPT, fd, accept,
                                         MASKED_ON(fd, NEXT(accept)(fd, from, from_size))));
}

STILE_EXPORT int accept4(int fd, __SOCKADDR_ARG from, socklen_t *from_size, int flags)
{
    return accepted(fd, STILE__MAY_BLOCK(STILE__WAIT_ACCEPT, fd, accept4,
                                         MASKED_ON(fd, NEXT(accept4)(fd, from, from_size, flags))));
}

/* Of more than there is room for, libc says so and aborts. */

STILE_EXPORT ssize_t __read_chk(int fd, void *to, size_t size, size_t room)
{
    if (size > room)
        return NEXT(__read_chk)(fd, to, size, room);
    CALL_ON(STILE__WAIT_READ, __read_chk, false, fd, NEXT(read)(fd, to, size));
}

STILE_EXPORT ssize_t __recv_chk(int fd, void *to, size_t size, size_t room, int flags)
{
    if (size > room)
        return NEXT(__recv_chk)(fd, to, size, room, flags);
    CALL_ON(STILE__WAIT_RECV, __recv_chk, (flags & MSG_DONTWAIT) != 0, fd, NEXT(recv)(fd, to, size, flags));
}

STILE_EXPORT ssize_t __recvfrom_chk(int fd, void *to, size_t size, size_t room, int flags,
                                    __SOCKADDR_ARG from, socklen_t *from_size)
{
    if (size > room)
        return NEXT(__recvfrom_chk)(fd, to, size, room, flags, from, from_size);
    CALL_ON(STILE__WAIT_RECV, __recvfrom_chk, (flags & MSG_DONTWAIT) != 0, fd,
            NEXT(recvfrom)(fd, to, size, flags, from, from_size));
}

/* The names that libc has for its own libraries, and for programs built long ago. */
#define ALIAS(other, name) STILE_EXPORT extern __typeof__(name)(other) __attribute__((alias(#name)))
ALIAS(__read, read);
ALIAS(__write, write);
ALIAS(__send, send);
ALIAS(__connect, connect);
