/* Instead of agent/blocking.c, and of what the hooks need of a session: there is none. */
#include "tests/unit/agent/fake_blocking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

struct stile__session *stile__session;
_Thread_local struct stile__thread stile__thread;
_Atomic bool stile__blocking;

bool stile__thread_owns_tick(const siginfo_t *info)
{
    (void)info;
    return false;
}

void stile__session_exit(void)
{
}

pid_t stile__session_hidden_child(void)
{
    return 0;
}

static struct {
    _Atomic int what; /* TOLD: not written yet */
    enum stile__wait_reason why;
    const void *hook;
} events[4096];
static _Atomic unsigned n_events;
static _Atomic bool expected; /* as the product: a call that was slow is thought to be so the next time */

static void note(enum told what, enum stile__wait_reason why, const void *hook)
{
    unsigned i = atomic_fetch_add(&n_events, 1);
    if (i < sizeof events / sizeof *events) {
        events[i].why = why;
        events[i].hook = hook;
        atomic_store(&events[i].what, (int)what);
    }
}

void stile__block_begin(struct stile__door *d, enum stile__wait_reason why, const void *hook,
                        const uint64_t *regs)
{
    d->region = NULL;
    d->since_ns = (uint64_t)why;
    d->id = (uint64_t)(uintptr_t)hook;
    note(regs[REG_RSP] != 0 && regs[REG_RIP] != 0 ? BEGUN : TOLD, why, hook);
}

void stile__block_end(struct stile__door *d)
{
    note(ENDED, (enum stile__wait_reason)d->since_ns, (const void *)(uintptr_t)d->id);
}

bool stile__block_expected(enum stile__wait_reason why, uint64_t thing)
{
    (void)why;
    (void)thing;
    return atomic_load(&expected);
}

uint64_t stile__block_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void stile__block_check(struct stile__door *d, enum stile__wait_reason why, uint64_t thing)
{
    (void)thing;
    note(CHECKED, why, (const void *)(uintptr_t)d->id);
}

#define LONG_NS 10000u /* a rate, and no chance */
bool stile__block_long(uint64_t ns)
{
    return ns >= LONG_NS;
}

struct stile__before stile__block_before(void)
{
    return (struct stile__before){.since_ns = stile__block_clock()};
}

void stile__block_measured(enum stile__wait_reason why, uint64_t thing, const void *hook,
                           const uint64_t *regs, const struct stile__before *before, uint64_t until_ns)
{
    (void)thing;
    (void)regs;
    note(stile__block_long(until_ns - before->since_ns) ? MEASURED : TOLD, why, hook);
    atomic_store(&expected, true);
}

void stile__block_woke(enum stile__wait_reason why, const void *hook, const uint64_t *regs)
{
    (void)regs;
    note(WOKE, why, hook);
}

void fake_forget(void)
{
    atomic_store(&n_events, 0);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        atomic_store(&events[i].what, TOLD);
    atomic_store(&expected, false);
}

void fake_record(bool on)
{
    stile__waits_init();
    stile__sockets_init();
    stile__locks_init();
    fake_forget();
    atomic_store(&stile__blocking, on);
    stile__locks_record(on);
}

unsigned fake_told_of(enum told what, enum stile__wait_reason why, const void *hook)
{
    unsigned count = 0, n = atomic_load(&n_events);
    for (unsigned i = 0; i < n && i < sizeof events / sizeof *events; i++)
        count += atomic_load(&events[i].what) == (int)what &&
                 (why == STILE__WAIT_NONE || (events[i].why == why && events[i].hook == hook));
    return count;
}

unsigned fake_told(enum told what)
{
    return fake_told_of(what, STILE__WAIT_NONE, NULL);
}

/* By system calls that have no hook. */
bool asleep(int tid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    for (int tries = 0; tries < 10000; tries++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        long n = fd < 0 ? -1 : stile__raw_syscall(SYS_read, fd, (long)text, sizeof text - 1, 0);
        if (fd >= 0)
            close(fd);
        text[n > 0 ? n : 0] = '\0';
        const char *state = strrchr(text, ')');
        if (state != NULL && state[1] != '\0' && state[2] == 'S')
            return true;
        stile__raw_sleep_ns(1000000);
    }
    return false;
}
