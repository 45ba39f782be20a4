/* Profiling signals that come when nobody waits for them any more: `late_ticks WAY PATH HZ ROUNDS`, where WAY is
 *   stopped   each profile is stopped with a tick of it pending, which is let in afterwards, and others are sent
 *   running   they are sent by others while a profile runs (the environment's; PATH and HZ are not used)
 *   reused    threads leave a tick pending when they end, and the next one has their id, where the kernel lets itself be told so
 * Prints what was sent, and of reused whether ids were. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stile.h"
#include "work.h"

WORK static uint64_t work_beside(uint64_t ns)
{
    return burn(ns);
}

/* Past libc, whose calls keep the profiler's signal open. */
static void mask_raw(int how)
{
    uint64_t mask = 1ull << (SIGPROF - 1);
    if (syscall(SYS_rt_sigprocmask, how, &mask, NULL, sizeof mask) != 0)
        exit(3);
}

/* One of each kind that there is, whose values may be anything. */
static unsigned send_each(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    struct itimerspec soon = {{0, 0}, {0, 1}}, left;
    siginfo_t info = {.si_signo = SIGPROF, .si_code = SI_QUEUE};
    timer_t timer;

    kill(getpid(), SIGPROF);
    syscall(SYS_tgkill, getpid(), gettid(), SIGPROF);
    sigqueue(getpid(), SIGPROF, (union sigval){.sival_ptr = (void *)-1});
    info.si_value.sival_ptr = (void *)0x100000000u;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGPROF, &info);
    info.si_code = SI_ASYNCIO;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGPROF, &info);
    event._sigev_un._tid = gettid(); /* as the profiler's own, but with another's value */
    event.sigev_value.sival_ptr = (void *)0x7fffffff00000001;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 || timer_settime(timer, 0, &soon, NULL) != 0)
        exit(3);
    do {
        work_beside(MS / 20);
        timer_gettime(timer, &left);
    } while (left.it_value.tv_sec != 0 || left.it_value.tv_nsec != 0);
    timer_delete(timer);
    return 6;
}

static unsigned stopped(const char *path, unsigned hz, unsigned rounds)
{
    struct stile_profile_options o = {.size = sizeof o, .path = path, .hz = hz};
    unsigned sent = 0;
    for (unsigned i = 0; i < rounds; i++) {
        if (stile_profile_start(&o) != 0)
            exit(4);
        work_beside(15 * MS);
        mask_raw(SIG_BLOCK);
        work_beside(15 * MS);
        if (stile_profile_stop() != 0)
            exit(5);
        mask_raw(SIG_UNBLOCK);
        sent += send_each();
    }
    return sent;
}

static void *ending_main(void *tid)
{
    *(pid_t *)tid = gettid();
    work_beside(2 * MS);
    mask_raw(SIG_BLOCK);
    work_beside(6 * MS);
    return NULL;
}

/* Has the next thread be given this id, if the kernel does it for us. */
static void id_set_next(pid_t tid)
{
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        dprintf(fd, "%d", tid - 1);
        close(fd);
    }
}

static unsigned reused(unsigned rounds)
{
    unsigned same = 0;
    pid_t last = 0;
    for (unsigned i = 0; i < rounds; i++) {
        pthread_t thread;
        pid_t tid = 0;
        if (last != 0)
            id_set_next(last);
        if (pthread_create(&thread, NULL, ending_main, &tid) != 0)
            exit(3);
        pthread_join(thread, NULL);
        same += tid == last;
        last = tid;
    }
    return same;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    unsigned hz = (unsigned)strtoul(argv[3], NULL, 10), rounds = (unsigned)strtoul(argv[4], NULL, 10), n = 0;
    if (strcmp(argv[1], "stopped") == 0)
        n = stopped(argv[2], hz, rounds);
    else if (strcmp(argv[1], "reused") == 0)
        n = reused(rounds);
    else
        for (unsigned i = 0; i < rounds; i++)
            n += send_each();
    printf("%u\n", n);
    return 0;
}
