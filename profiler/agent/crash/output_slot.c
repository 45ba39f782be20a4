/* The crash output: whose descriptor it is, and who may close it. Normal context and the handlers of crashes.
 *
 * Invariants
 *  - A descriptor is in the slot, or it is its swapper's alone: the one that put it there and has not got that far, or the one whose
 *    exchange took it out.
 *  - Whoever took it out closes it or leaks it; nobody else does.
 *
 * Why no swap closes what a crash writes to. All four accesses are sequentially consistent, so that there is one order S of
 * them that everyone agrees on:
 *
 *   the crash:  C1 crashing = true    C2 loads the slot
 *   a swap:     X1 exchanges the slot, which had the old descriptor    X2 loads crashing, and closes the old one if it is false
 *
 * Say that C2 gave descriptor D. Then D was in the slot at C2, and the exchange that takes it out is later in S: C2 < X1. By
 * the order of the program C1 < C2 and X1 < X2, so C1 < C2 < X1 < X2. X2 loads true, or what a later store wrote, which is
 * stile__output_slot_leave's false, after the last use of D. So D is leaked, or not in use any more. A swap that took the same
 * number out before C2 has closed it before it was given out again, and does nothing to it any more.
 *
 * Were X2 before X1: X2 C1 C2 X1 closes D. Were C2 before C1: C2 X1 X2 C1 closes D. tests/models/crash_output.pml has these as
 * mutants.
 *
 * A swap that finds a crash begun before its exchange changes nothing. One whose crash begins after that look still exchanges, and
 * its file gets nothing of this report, or all of it if C2 comes after X1; it returns 0, since what it was asked for was
 * done in time. The report is in one file in either case: C2 happens once. */
#include "profiler/agent/crash/output_slot.h"

#include <asm/errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/resource.h>

#include "profiler/agent/crash/output.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#ifndef STILE__WIDEN /* tests wait here, where races are */
#    define STILE__WIDEN() ((void)0)
#endif

#define FD_HIGH  992 /* out of the program's way, while the kernel's table stays small */
#define FD_FIRST 3   /* never one of the standard descriptors */

/* The descriptor + 1, and its mark above; 0: off. */
static _Atomic uint64_t slot;
static _Atomic bool crashing;

static uint64_t word_of(const struct stile__output_file *f)
{
    return (uint64_t)f->mark << 32 | (uint32_t)(f->fd + 1);
}

static struct stile__output_file file_of(uint64_t word)
{
    return (struct stile__output_file){.fd = (int)(uint32_t)word - 1, .mark = (uint32_t)(word >> 32)};
}

bool stile__output_file_of(int fd, struct stile__output_file *f, struct stat *st)
{
    struct stat now = {0};
    if (stile__raw_syscall(SYS_fstat, fd, (long)&now, 0, 0) != 0) {
        *f = (struct stile__output_file){.fd = -1};
        return false;
    }
    uint64_t h = now.st_ino * 0x9e3779b97f4a7c15ull;
    h = (h ^ h >> 32 ^ now.st_dev) * 0x9e3779b97f4a7c15ull;
    h = (h ^ h >> 32 ^ (now.st_mode & S_IFMT)) * 0x9e3779b97f4a7c15ull;
    *f = (struct stile__output_file){.fd = fd, .mark = (uint32_t)(h >> 32)};
    if (st != NULL)
        *st = now;
    return true;
}

bool stile__output_file_same(const struct stile__output_file *f)
{
    struct stile__output_file now;
    return f->fd >= 0 && stile__output_file_of(f->fd, &now, NULL) && now.mark == f->mark;
}

/* High up, or as high as the limit and what is open there let it. */
static int duplicate(int fd)
{
    struct rlimit limit = {.rlim_cur = 0};
    int at = FD_HIGH;
    stile__raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit);
    while (at > FD_FIRST && (rlim_t)at >= limit.rlim_cur)
        at /= 2;
    for (;; at /= 2) {
        if (at < FD_FIRST)
            at = FD_FIRST;
        long copy = stile__raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, at, 0);
        if (copy >= 0 || copy == -EBADF)
            return (int)copy;
        if (at == FD_FIRST)
            return copy == -EINVAL ? -EMFILE : (int)copy; /* the limit is no higher than that */
    }
}

static void put_away(int fd)
{
    stile__raw_syscall(SYS_close, fd, 0, 0, 0);
}

int stile__crash_output_swap(int fd)
{
    struct stile__output_file to = {.fd = -1};
    if (fd != -1) {
        int copy = duplicate(fd);
        if (copy < 0)
            return copy;
        if (!stile__output_file_of(copy, &to, NULL))
            return -EBADF; /* closed under us */
    }
    if (atomic_load_explicit(&crashing, memory_order_seq_cst)) {
        if (to.fd >= 0)
            put_away(to.fd);
        return -EBUSY;
    }
    const struct stile__output_file old = file_of(
        atomic_exchange_explicit(&slot, to.fd >= 0 ? word_of(&to) : 0, memory_order_seq_cst)); /* X1 */
    STILE__WIDEN();
    const bool busy = atomic_load_explicit(&crashing, memory_order_seq_cst); /* X2 */
    if (!busy && stile__output_file_same(&old))
        put_away(old.fd);
    return 0;
}

struct stile__output_file stile__output_slot_take(void)
{
    atomic_store_explicit(&crashing, true, memory_order_seq_cst); /* C1 */
    STILE__WIDEN();
    return file_of(atomic_load_explicit(&slot, memory_order_seq_cst)); /* C2 */
}

void stile__output_slot_leave(void)
{
    atomic_store_explicit(&crashing, false, memory_order_seq_cst);
}
