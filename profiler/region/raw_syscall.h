/* System calls without libc: they touch neither errno nor anything that a wrapper or a sanitizer may interpose.
 * Async-signal-safe. Each returns what the kernel returns: a value, or -errno. */
#ifndef STILE_REGION_RAW_SYSCALL_H
#define STILE_REGION_RAW_SYSCALL_H

#include <asm/errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

static inline long stile__raw_syscall(long nr, long a, long b, long c, long d)
{
    long ret;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return ret;
}

static inline uint32_t stile__raw_gettid(void)
{
    return (uint32_t)stile__raw_syscall(SYS_gettid, 0, 0, 0, 0);
}

static inline int stile__raw_getpid(void)
{
    return (int)stile__raw_syscall(SYS_getpid, 0, 0, 0, 0);
}

static inline void stile__raw_yield(void)
{
    stile__raw_syscall(SYS_sched_yield, 0, 0, 0, 0);
}

static inline void stile__raw_sleep_ns(long ns)
{
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    stile__raw_syscall(SYS_nanosleep, (long)&ts, 0, 0, 0);
}

/* Sets the thread's real signal mask, past every wrapper, and returns the earlier one. how: SIG_BLOCK, ... */
static inline uint64_t stile__raw_sigmask(int how, uint64_t mask)
{
    uint64_t old = 0;
    stile__raw_syscall(SYS_rt_sigprocmask, how, (long)&mask, (long)&old, sizeof mask);
    return old;
}

/* Whether a page can be read: the kernel is asked to read a signal mask there, of signals to be blocked. In a handler of
 * ours all are; elsewhere the mask is put back. It is a call like any program's, so that no filter forbids it. */
static inline bool stile__raw_readable(uint64_t page)
{
    const uint64_t all = ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
    uint64_t mask = all;
    if (page < 4096 || /* of NULL the kernel reads nothing, and finds nothing wrong */
        stile__raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, (long)page, (long)&mask, sizeof mask) == -EFAULT)
        return false;
    if (mask != all)
        stile__raw_sigmask(SIG_SETMASK, mask);
    return true;
}

#endif
