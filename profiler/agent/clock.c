/* The clock of a thread: a POSIX timer on its CPU time. Normal context. Raw system calls, since libc's timer_t is
 * not the kernel's. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>

#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

/* The kernel's encoding of the CPU clock of thread tid: ~tid << 3, per-thread (4), scheduler's precision (2). */
static int thread_cpu_clock(uint32_t tid)
{
    return (int)(~tid << 3) | 4 | 2;
}

/* Uniform in (0, period]: with a fixed first expiry, threads shorter than a period would never be seen. */
static uint64_t first_expiry(uint64_t period_ns)
{
    uint64_t random = 0;
    if (stile__raw_syscall(SYS_getrandom, (long)&random, sizeof random, GRND_NONBLOCK, 0) != sizeof random) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        random =
            (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15ull; /* golden-ratio multiplicative hash, Knuth 6.4 */
        random ^= random >> 32;
    }
    return random % period_ns + 1;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

uint64_t stile__clock_read(uint32_t tid, bool own)
{
    struct timespec ts;
    if (clock_gettime(own ? CLOCK_THREAD_CPUTIME_ID : thread_cpu_clock(tid), &ts) != 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int stile__clock_start(uint32_t tid, bool own, int signal, uint64_t id, uint64_t period_ns,
                       uint64_t *first_due_ns)
{
    struct sigevent event;
    int timer_id = -1;

    uint64_t first = first_expiry(period_ns);
    struct itimerspec spec = {.it_value = timespec_of(first), .it_interval = timespec_of(period_ns)};
    *first_due_ns = stile__clock_read(tid, own) + first;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = (void *)(uintptr_t)id;
    event._sigev_un._tid = (pid_t)tid;
    int clock = own ? CLOCK_THREAD_CPUTIME_ID : thread_cpu_clock(tid);
    long err = stile__raw_syscall(SYS_timer_create, clock, (long)&event, (long)&timer_id, 0);
    if (err != 0)
        return (int)err;

    err = stile__raw_syscall(SYS_timer_settime, timer_id, 0, (long)&spec, 0);
    if (err != 0) {
        stile__clock_stop(timer_id);
        return (int)err;
    }
    return timer_id;
}

void stile__clock_stop(int timer_id)
{
    stile__raw_syscall(SYS_timer_delete, timer_id, 0, 0, 0);
}
