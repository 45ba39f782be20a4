/* The least that sampling a program can cost here, for `./dev bench overhead`: preloaded, with FLOOR_HZ set, it gives
 * each thread the clock that Stile would, and an empty handler for the signal.
 *
 * Above the kernel's tick rate that is perf's cpu-clock for user mode. (Stile has a timer at the tick besides, for time
 * in the kernel; that is not in the floor, so what it costs counts against Stile.) Up to the tick rate it is a CPU timer.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND  1000000000u
#define PAGE    4096
#define HZ_MOST 1000000

struct ticking {
    void *page; /* holds the perf event; NULL for none */
    int timer;  /* the kernel's; -1 for none */
};

struct beginning {
    void *(*start)(void *);
    void *argument;
};

typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static uint64_t period_ns; /* 0: off */
static int above_tick;
static create_fn *create_real;

static void complain(const char *what)
{
    fprintf(stderr, "floor: %s; not sampling\n", what);
}

static void handle(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
}

static int perf_start(struct ticking *t)
{
    struct f_owner_ex owner = {.type = F_OWNER_TID, .pid = gettid()};
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.sample_period = period_ns;
    attr.exclude_kernel = 1;
    attr.exclude_hv = 1;
    attr.disabled = 1;
    int fd = (int)syscall(SYS_perf_event_open, &attr, owner.pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return -1;
    void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0); /* outlives the descriptor */
    int failed = page == MAP_FAILED || fcntl(fd, F_SETSIG, SIGPROF) != 0 ||
                 fcntl(fd, F_SETOWN_EX, &owner) != 0 || fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) != 0 ||
                 ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) != 0;
    close(fd);
    if (page != MAP_FAILED && failed)
        munmap(page, PAGE);
    t->page = failed ? NULL : page;
    return failed ? -1 : 0;
}

static int timer_start(struct ticking *t)
{
    struct timespec period = {.tv_sec = (time_t)(period_ns / SECOND), .tv_nsec = (long)(period_ns % SECOND)};
    struct itimerspec spec = {.it_value = period, .it_interval = period};
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGPROF;
    event._sigev_un._tid = gettid();
    if (syscall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &event, &t->timer) != 0)
        return -1;
    return (int)syscall(SYS_timer_settime, t->timer, 0, &spec, NULL);
}

static int start(struct ticking *t)
{
    *t = (struct ticking){.page = NULL, .timer = -1};
    return above_tick ? perf_start(t) : timer_start(t);
}

static void stop(void *ticking)
{
    struct ticking *t = ticking;
    if (t->page != NULL)
        munmap(t->page, PAGE);
    if (t->timer >= 0)
        syscall(SYS_timer_delete, t->timer);
}

static void *thread_main(void *beginning)
{
    struct beginning b = *(struct beginning *)beginning;
    struct ticking ticking;
    void *result;
    free(beginning);
    if (start(&ticking) != 0)
        complain("a thread got no clock");
    pthread_cleanup_push(stop, &ticking); /* however the thread ends */
    result = b.start(b.argument);
    pthread_cleanup_pop(1);
    return result;
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                                                          void *(*routine)(void *), void *argument)
{
    if (create_real == NULL)
        create_real = (create_fn *)dlsym(RTLD_NEXT, "pthread_create");
    struct beginning *b = period_ns != 0 ? malloc(sizeof *b) : NULL;
    if (b == NULL)
        return create_real(thread, attr, routine, argument);
    *b = (struct beginning){.start = routine, .argument = argument};
    int err = create_real(thread, attr, thread_main, b);
    if (err != 0)
        free(b);
    return err;
}

/* 0 for what is no rate. */
static unsigned rate_of(const char *text)
{
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    unsigned long hz = strtoul(text, &end, 10);
    return *end == '\0' && hz <= HZ_MOST ? (unsigned)hz : 0;
}

__attribute__((constructor)) static void begin(void)
{
    static struct ticking main_thread;
    struct sigaction sa = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct timespec tick;
    unsigned hz = rate_of(getenv("FLOOR_HZ"));
    if (hz == 0) {
        complain("FLOOR_HZ is not a rate from 1 to 1000000");
        return;
    }
    uint64_t period = SECOND / hz;
    sigfillset(&sa.sa_mask);
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) != 0 || sigaction(SIGPROF, &sa, NULL) != 0) {
        complain(strerror(errno));
        return;
    }
    above_tick = period < (uint64_t)tick.tv_nsec;
    period_ns = period;
    if (start(&main_thread) != 0) {
        complain(strerror(errno));
        period_ns = 0;
    }
}
