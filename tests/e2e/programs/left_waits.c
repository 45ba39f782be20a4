/* Waits that do not come back to where they were called: left by siglongjmp from a handler, once to shallower and once to deeper
 * code after it; cancelled; a handler's own wait inside one; and a wait after each, which is told as usual.
 * left_waits jump|deep|cancel|inside. Prints how long what was waited for took, and what came between that and the next wait. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/programs/run_delay.h"

#define ROUNDS 5
#define INNER  40
#define MS     1000000ull

static sigjmp_buf out;
static int fds[2];
static int inner[2];

static uint64_t now_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void spin_ms(uint64_t ms)
{
    uint64_t end = now_ns(CLOCK_THREAD_CPUTIME_ID) + ms * MS;
    while (now_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        ;
}

static void say(const char *name, int n, uint64_t ns, uint64_t more)
{
    printf("%s %d %llu %llu\n", name, n, (unsigned long long)ns, (unsigned long long)more);
}

/* A wait like others. */
static __attribute__((noinline)) uint64_t plain(void)
{
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    usleep(20000);
    return now_ns(CLOCK_MONOTONIC) - start;
}

/* The same under a large frame: its stack pointer is below that of the wait that was left. */
static __attribute__((noinline)) uint64_t deeper(unsigned n)
{
    volatile char room[512];
    memset((void *)(uintptr_t)room, 1, sizeof room);
    return n == 0 ? plain() : deeper(n - 1) + room[3] - 1;
}

static void jump(int signal)
{
    (void)signal;
    siglongjmp(out, 1);
}

static __attribute__((noinline)) void wait_for_ever(void)
{
    char byte;
    if (read(fds[0], &byte, 1) < 0)
        _exit(1);
}

static void jumps(int deep)
{
    volatile uint64_t left = 0, after = 0;
    struct itimerval in = {{0, 0}, {0, 30000}};
    signal(SIGALRM, jump);
    for (volatile int i = 0; i < ROUNDS; i++) {
        volatile uint64_t start = now_ns(CLOCK_MONOTONIC);
        if (sigsetjmp(out, 1) == 0) {
            setitimer(ITIMER_REAL, &in, NULL);
            wait_for_ever();
        }
        left += now_ns(CLOCK_MONOTONIC) - start;
        if (deep)
            after += deeper(20);
        else
            after += plain();
    }
    say("wait_for_ever", ROUNDS, left, run_delay());
    say("plain", ROUNDS, after, 0);
}

static uint64_t spun_until, delayed;

static __attribute__((noinline)) void cleans_up(void *arg)
{
    (void)arg;
    spin_ms(30);
    spun_until = now_ns(CLOCK_MONOTONIC);
    delayed += run_delay();
    plain();
}

static void *cancelled(void *arg)
{
    (void)arg;
    pthread_cleanup_push(cleans_up, NULL);
    wait_for_ever();
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancels(void)
{
    uint64_t ns = 0, more = 0;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t t;
        uint64_t start = now_ns(CLOCK_MONOTONIC);
        if (pthread_create(&t, NULL, cancelled, NULL) != 0)
            _exit(1);
        usleep(30000);
        pthread_cancel(t);
        uint64_t cancelled_at = now_ns(CLOCK_MONOTONIC);
        ns += cancelled_at - start;
        pthread_join(t, NULL);
        more += spun_until - cancelled_at;
    }
    say("wait_for_ever", ROUNDS, ns, more + delayed);
    say("plain", ROUNDS, ROUNDS * 20 * MS, 0);
}

static __attribute__((noinline)) void waits_too(int signal)
{
    (void)signal;
    usleep(20000);
    if (write(inner[1], "x", 1) != 1)
        _exit(1);
}

/* A handler runs in the middle of a wait, and waits itself. */
static void inside(void)
{
    char byte;
    struct itimerval in = {{0, 0}, {0, 20000}};
    struct sigaction act = {.sa_handler = waits_too, .sa_flags = SA_RESTART};
    uint64_t ns = 0;
    sigaction(SIGALRM, &act, NULL);
    for (int i = 0; i < INNER; i++) {
        uint64_t start = now_ns(CLOCK_MONOTONIC);
        setitimer(ITIMER_REAL, &in, NULL);
        if (read(inner[0], &byte, 1) != 1)
            _exit(1);
        ns += now_ns(CLOCK_MONOTONIC) - start;
    }
    say("inside", INNER, ns, 0);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (pipe(fds) != 0 || pipe(inner) != 0)
        return 1;
    if (strcmp(what, "jump") == 0)
        jumps(0);
    else if (strcmp(what, "deep") == 0)
        jumps(1);
    else if (strcmp(what, "cancel") == 0)
        cancels();
    else if (strcmp(what, "inside") == 0)
        inside();
    else
        return 2;
    return 0;
}
