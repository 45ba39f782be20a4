/* perf's cpu-clock. Software, so it needs no hardware counters; for user mode only, so it needs no privilege where
 * perf_event_paranoid is 2 or less; and not bound to the kernel's tick.
 *
 * No descriptor stays open. The mapping of the event's first page holds the event, and so do its owner and its signal;
 * the descriptor is closed at once. What closes all descriptors of the program cannot hit it, a forked child inherits
 * neither (the kernel does not copy such mappings), exec ends it, and munmap stops it. The signals go on carrying the
 * number that the descriptor had. */
#include "profiler/agent/clock_perf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "profiler/agent/clock.h"

/* A filter may end the process for a system call that it does not know, and perf_event_open is a likely one. The
 * filter may also be newer than the session, so this is asked each time. */
bool stile__clock_filtered(void)
{
    return prctl(PR_GET_SECCOMP) > SECCOMP_MODE_DISABLED;
}

/* Beyond this rate the kernel throttles, for which no signal is sent. 0: not to be known. */
static unsigned rate_max(void)
{
    char text[16];
    unsigned value = 0;
    int fd = open("/proc/sys/kernel/perf_event_max_sample_rate", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value;
}

int stile__clock_perf_check(unsigned hz, int signal)
{
    unsigned most = rate_max();
    /* A real-time signal is queued each time; where the queue is full the kernel sends SIGIO instead, which kills. */
    if (signal >= SIGRTMIN)
        return STILE__PERF_QUEUE;
    if (stile__clock_filtered())
        return STILE__PERF_FILTERED;
    return most != 0 && most < hz ? STILE__PERF_RATE : 0;
}

static int event_open(uint32_t tid, uint64_t period_ns)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.sample_period = period_ns;
    attr.exclude_kernel = 1; /* in the kernel a signal would interrupt the program's system call */
    attr.exclude_hv = 1;
    attr.disabled = 1;
    return (int)syscall(SYS_perf_event_open, &attr, (pid_t)tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int signal_direct(int fd, uint32_t tid, int signal)
{
    struct f_owner_ex owner = {.type = F_OWNER_TID, .pid = (pid_t)tid};
    return fcntl(fd, F_SETSIG, signal) == 0 && fcntl(fd, F_SETOWN_EX, &owner) == 0 &&
                   fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) == 0
               ? 0
               : errno;
}

int stile__clock_perf_start(struct stile__clock *c, uint32_t tid, int signal, uint64_t period_ns, int kind)
{
    void *page = MAP_FAILED;
    if (stile__clock_filtered())
        return STILE__PERF_FILTERED;
    int fd = event_open(tid, period_ns);
    if (fd < 0)
        return errno;
    int err = signal_direct(fd, tid, signal);
    if (err == 0) {
        page = mmap(NULL, STILE__PAGE, PROT_READ, MAP_SHARED, fd, 0);
        err = page != MAP_FAILED ? 0 : errno;
    }
    if (err == 0) {
        c->kind = (uint8_t)kind;
        c->perf_page = page;
        c->perf_fd = fd;
        /* The handler in that thread reads these when the first signal comes. */
        atomic_thread_fence(memory_order_release);
        err = ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) == 0 ? 0 : errno;
    }
    close(fd);
    if (err != 0)
        stile__clock_perf_stop(c);
    return err;
}

void stile__clock_perf_stop(struct stile__clock *c)
{
    void *page = __atomic_exchange_n(&c->perf_page, NULL, __ATOMIC_RELAXED); /* by whoever comes first */
    if (page != NULL)
        munmap(page, STILE__PAGE);
}
