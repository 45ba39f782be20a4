/* A profiler that walks with libunwind's unw_backtrace: preloaded, it samples the main thread by perf's cpu-clock in user
 * mode, as Stile does, and tells at exit how many walks there were after the first STILE_BENCH_WARM_MS, their cycles, and
 * their frames, which it does not keep. */
#include <libunwind.h>

#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAMES_MAX 16384

static uint64_t warm_ns; /* CLOCK_MONOTONIC from which on walks count */
static uint64_t walks, cycles, frames;
static const char *out;
static pid_t pid;
static void *found[FRAMES_MAX]; /* of one thread, which walks with signals blocked */

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void handle(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    uint64_t start = __builtin_ia32_rdtsc();
    int n = unw_backtrace(found, FRAMES_MAX);
    uint64_t end = __builtin_ia32_rdtsc();
    if (now_ns() < warm_ns)
        return;
    walks++;
    cycles += end - start;
    frames += (uint64_t)n;
}

static int clock_start(unsigned hz)
{
    struct perf_event_attr attr;
    struct f_owner_ex owner = {.type = F_OWNER_TID, .pid = gettid()};
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE;
    attr.size = sizeof attr;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.sample_period = 1000000000u / hz;
    attr.exclude_kernel = 1;
    attr.wakeup_events = 1;
    int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_SETSIG, SIGPROF) != 0 || fcntl(fd, F_SETOWN_EX, &owner) != 0)
        return -1;
    return fcntl(fd, F_SETFL, O_ASYNC);
}

__attribute__((constructor)) static void start(void)
{
    const char *hz = getenv("STILE_BENCH_HZ");
    const char *warm_ms = getenv("STILE_BENCH_WARM_MS");
    struct sigaction sa = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    out = getenv("STILE_BENCH_OUT");
    if (hz == NULL || out == NULL)
        return;
    unsetenv("LD_PRELOAD"); /* this program, and nothing that it runs */
    unsigned rate = (unsigned)strtoul(hz, NULL, 10);
    warm_ns = now_ns() + (warm_ms != NULL ? strtoul(warm_ms, NULL, 10) : 0) * 1000000ull;
    unw_backtrace(found, FRAMES_MAX); /* what it allocates at first is there before a signal */
    sigfillset(&sa.sa_mask);
    if (rate == 0 || sigaction(SIGPROF, &sa, NULL) != 0 || clock_start(rate) != 0)
        return;
    pid = getpid();
}

__attribute__((destructor)) static void tell(void)
{
    FILE *f = pid != 0 && pid == getpid() ? fopen(out, "we") : NULL;
    if (f == NULL)
        return;
    signal(SIGPROF, SIG_IGN);
    fprintf(f, "%llu %llu %llu\n", (unsigned long long)walks, (unsigned long long)cycles,
            (unsigned long long)frames);
    fclose(f);
}
