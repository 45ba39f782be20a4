/* Writes a report. Runs in the handlers of crashes, with all signals blocked. The program's descriptors keep their flags: where a
 * write might block, it is asked for in a way that does not, or made to a file description of our own. */
#include "profiler/agent/crash/output.h"

#include <asm/errno.h>
#include <asm/ioctls.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "profiler/agent/clock.h"
#include "profiler/agent/crash/area.h"
#include "profiler/agent/crash/output_slot.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#ifndef STALL_NS
#    define STALL_NS 2000000000ull /* without any progress, */
#endif
#ifndef ALTOGETHER_NS
#    define ALTOGETHER_NS 5000000000ull /* and of all waits: what takes longer is left out from then on */
#endif
#define VAIN_NS 1000000 /* between attempts where poll does not wait */

enum kind { PLAIN /* files, devices */, SOCKET, PIPE, TERMINAL };

struct destination {
    bool on; /* false: left out */
    struct stile__output_file file;
    enum kind kind;
    bool nonblocking;         /* so opened, by the program or by us */
    bool no_nowait;           /* the kernel has no RWF_NOWAIT for it */
    int own;                  /* a description of our own of the same pipe or terminal, or -1 */
    bool vain;                /* the last attempt had no effect */
    uint64_t stalled, waited; /* ns */
};

static struct destination to_stderr = {.own = -1}, to_copy = {.own = -1};
static bool one_file;                                   /* both are the same */
static struct stile__output_file standard = {.fd = -1}; /* what descriptor 2 was */
static struct stile__region *region;
static bool complete; /* the crash output has all that was written so far */

#define BIT(signal) (1ull << ((signal)-1))

static void destination_begin(struct destination *d, struct stile__output_file file, struct stat *st)
{
    char termios[256]; /* more than the kernel writes */
    *d = (struct destination){.own = -1};
    if (!stile__output_file_of(file.fd, &d->file, st) || d->file.mark != file.mark)
        return;
    d->on = true;
    if (S_ISSOCK(st->st_mode))
        d->kind = SOCKET;
    else if (S_ISFIFO(st->st_mode))
        d->kind = PIPE;
    else if (S_ISCHR(st->st_mode) && stile__raw_syscall(SYS_ioctl, file.fd, TCGETS, (long)termios, 0) == 0)
        d->kind = TERMINAL;
    const long flags = stile__raw_syscall(SYS_fcntl, file.fd, F_GETFL, 0, 0);
    d->nonblocking = flags >= 0 && (flags & O_NONBLOCK) != 0;
}

/* A file description of our own, which does not block. What has no /proc, or forbids it, goes without. */
static void open_own(struct destination *d)
{
    char path[48] = "/proc/thread-self/fd/";
    unsigned at = sizeof "/proc/thread-self/fd/" - 1, digits = 1;
    for (int rest = d->file.fd; rest >= 10; rest /= 10)
        digits++;
    for (int rest = d->file.fd, i = (int)digits; i-- > 0; rest /= 10)
        path[at + (unsigned)i] = (char)('0' + rest % 10);
    long fd =
        stile__raw_syscall(SYS_openat, AT_FDCWD, (long)path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
    if (fd >= 0 && fd <= 2) { /* a standard descriptor that was closed: others may write there */
        long low = fd;
        fd = stile__raw_syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, 3, 0);
        stile__raw_syscall(SYS_close, low, 0, 0, 0);
    }
    if (fd < 0)
        return;
    struct stile__output_file own;
    if (!stile__output_file_of((int)fd, &own, NULL) || own.mark != d->file.mark) {
        stile__raw_syscall(SYS_close, fd, 0, 0, 0);
        return;
    }
    d->own = (int)fd;
    d->nonblocking = true;
}

static void destination_end(struct destination *d)
{
    if (d->own >= 0)
        stile__raw_syscall(SYS_close, d->own, 0, 0, 0);
    *d = (struct destination){.own = -1, .file = {.fd = -1}};
}

static long poll_out(int fd, uint64_t ns)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    return stile__raw_syscall(SYS_ppoll, (long)&p, 1, (long)&ts, 0);
}

/* pwritev2 at the file's offset, which takes six arguments. */
static long write_nowait(int fd, const char *bytes, size_t n)
{
    struct iovec part = {(void *)(uintptr_t)bytes, n};
    long ret;
    register long offset __asm__("r10") = -1;
    register long high __asm__("r8") = -1;
    register long flags __asm__("r9") = RWF_NOWAIT;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(SYS_pwritev2), "D"((long)fd), "S"(&part), "d"(1l), "r"(offset), "r"(high),
                       "r"(flags)
                     : "rcx", "r11", "memory");
    return ret;
}

/* A pipe takes PIPE_BUF bytes whole when it has room, by poll. Who else writes to it may fill it between that and a plain
 * write, so that this is the last resort; of a terminal it is known only that it has any room. */
static long write_stream(struct destination *d, const char *bytes, size_t n)
{
    if (n > PIPE_BUF)
        n = PIPE_BUF;
    if (!d->nonblocking && !d->no_nowait) {
        long r = write_nowait(d->file.fd, bytes, n);
        if (r != -EOPNOTSUPP && r != -ENOSYS && r != -EINVAL && r != -EPERM)
            return r;
        d->no_nowait = true;
        open_own(d);
    }
    if (!d->nonblocking) {
        if (poll_out(d->file.fd, 0) == 0)
            return -EAGAIN;
        if (d->kind == TERMINAL)
            n = 1;
    }
    return stile__raw_syscall(SYS_write, d->own >= 0 ? d->own : d->file.fd, (long)bytes, (long)n, 0);
}

static long write_some(struct destination *d, const char *bytes, size_t n)
{
    if (d->kind == SOCKET) {
        struct iovec part = {(void *)(uintptr_t)bytes, n};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
        return stile__raw_syscall(SYS_sendmsg, d->file.fd, (long)&m, MSG_DONTWAIT | MSG_NOSIGNAL, 0);
    }
    if (d->kind == PLAIN)
        return stile__raw_syscall(SYS_write, d->file.fd, (long)bytes, (long)n, 0);
    return write_stream(d, bytes, n);
}

/* Waits until there is room. False: for too long. */
static bool wait_for(struct destination *d)
{
    const uint64_t start = stile__clock_now(CLOCK_MONOTONIC), stall = STALL_NS - d->stalled,
                   all = ALTOGETHER_NS - d->waited;
    long ready = poll_out(d->file.fd, stall < all ? stall : all);
    if (ready != 0 && d->vain)
        stile__raw_sleep_ns(VAIN_NS);
    d->vain = true;
    const uint64_t took = stile__clock_now(CLOCK_MONOTONIC) - start;
    d->stalled += took;
    d->waited += took;
    return d->stalled < STALL_NS && d->waited < ALTOGETHER_NS;
}

/* Returns how much it took. */
static size_t put(struct destination *d, const char *bytes, size_t n)
{
    size_t done = 0;
    while (done < n && d->on) {
        long r = stile__output_file_same(&d->file) ? write_some(d, bytes + done, n - done) : -EBADF;
        if (r > 0) {
            done += (size_t)r;
            d->stalled = 0;
            d->vain = false;
        } else {
            d->on = (r == -EAGAIN || r == -EINTR) && wait_for(d);
        }
    }
    return done;
}

/* A pipe whose reader is gone and a file at its limit send signals, which wait for the end of the handler: a program that goes on
 * is not to die of ours. Of those that waited before, ours cannot be told. */
static uint64_t signals_pending(void)
{
    uint64_t pending = 0;
    stile__raw_syscall(SYS_rt_sigpending, (long)&pending, sizeof pending, 0, 0);
    return pending;
}

static void signals_consume(uint64_t before)
{
    const struct timespec at_once = {0, 0};
    uint64_t ours = (BIT(SIGPIPE) | BIT(SIGXFSZ)) & ~before;
    while ((ours & signals_pending()) != 0 &&
           stile__raw_syscall(SYS_rt_sigtimedwait, (long)&ours, 0, (long)&at_once, sizeof ours) > 0)
        ;
}

void stile__crash_output_init(void)
{
    stile__output_file_of(2, &standard, NULL);
}

/* Daemons put a log there, others a pipe; but who closes it and opens a file may get that number for its data. */
static bool is_standard(const struct stat *st)
{
    if (!S_ISREG(st->st_mode) || to_stderr.file.mark == standard.mark)
        return true;
    const long flags = stile__raw_syscall(SYS_fcntl, 2, F_GETFL, 0, 0);
    return flags >= 0 && (flags & O_APPEND) != 0;
}

void stile__crash_output_begin(struct stile__region *r, bool copy)
{
    struct stat of_stderr, of_copy;
    struct stile__output_file file;
    region = r;
    complete = true;
    stile__output_file_of(2, &file, NULL);
    destination_begin(&to_stderr, file, &of_stderr);
    if (to_stderr.on && !is_standard(&of_stderr))
        to_stderr.on = false;
    file = copy ? stile__output_slot_take() : (struct stile__output_file){.fd = -1};
    destination_begin(&to_copy, file, &of_copy);
    one_file = to_stderr.on && to_copy.on && of_stderr.st_dev == of_copy.st_dev &&
               of_stderr.st_ino == of_copy.st_ino;
}

/* Returns how much the crash output took. */
static size_t put_both(const char *bytes, size_t n)
{
    const uint64_t before = signals_pending();
    size_t done = put(&to_stderr, bytes, n);
    if (!one_file)
        done = 0;
    done += put(&to_copy, bytes + done, n - done);
    signals_consume(before);
    return done;
}

void stile__crash_output_write_back(const char *bytes, size_t n)
{
    put_both(bytes, n);
}

void stile__crash_output_write(const char *bytes, size_t n)
{
    if (region != NULL) /* first: it never makes anybody wait */
        stile__report_area_add(region, bytes, n);
    const size_t done = put_both(bytes, n);
    /* Up to there, whoever goes on with it need not. */
    if (region != NULL && complete) {
        complete = done == n;
        atomic_fetch_add_explicit(&region->report_out, (uint32_t)done, memory_order_release);
    }
}

void stile__crash_output_end(void)
{
    destination_end(&to_stderr);
    destination_end(&to_copy);
    region = NULL;
    stile__output_slot_leave();
}
