/* Crash reports, from the program's side. Normal context. */
#include "profiler/agent/crash_signals.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "profiler/agent/crash/crash.h"
#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/output.h"
#include "profiler/agent/greeting.h"
#include "profiler/agent/log.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/agent/target.h"
#include "profiler/agent/terminate.h"
#include "profiler/region/raw_syscall.h"

#define SA_RESTORER 0x04000000ul /* in no header of libc's */

static const int numbers[STILE__CRASH_SIGNALS] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

/* The reporter's own faults are to come through. */
#define SYNCHRONOUS                                                                                          \
    (1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGILL - 1) | 1ull << (SIGFPE - 1))

static unsigned long restorer_flag;
static uintptr_t restorer;
static char crash_path[PATH_MAX];

static int raw_get(int signal, struct stile__raw_action *action)
{
    return (int)stile__raw_syscall(SYS_rt_sigaction, signal, 0, (long)action, sizeof action->mask);
}

static int raw_set(int signal, const struct stile__raw_action *action)
{
    return (int)stile__raw_syscall(SYS_rt_sigaction, signal, (long)action, 0, sizeof action->mask);
}

/* libc's, which knows how a handler returns. */
static int restorer_find(int signal)
{
    struct sigaction sa;
    struct stile__raw_action raw = {0, 0, 0, 0}, before;
    if (restorer != 0)
        return 0;
    int err = raw_get(signal, &before);
    if (err != 0)
        return err;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = stile__handle_crash;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (stile__sigaction_next(signal, &sa, NULL) != 0)
        return -errno;
    err = raw_get(signal, &raw);
    restorer_flag = raw.flags & SA_RESTORER;
    restorer = raw.restorer;
    return err != 0 ? err : raw_set(signal, &before);
}

static struct stile__raw_action to_raw(const struct sigaction *act)
{
    struct stile__raw_action raw = {.handler = (uintptr_t)act->sa_handler,
                                    .flags = (unsigned long)(unsigned)act->sa_flags | restorer_flag,
                                    .restorer = restorer};
    if ((act->sa_flags & SA_SIGINFO) != 0)
        raw.handler = (uintptr_t)act->sa_sigaction;
    memcpy(&raw.mask, &act->sa_mask, sizeof raw.mask);
    return raw;
}

static void from_raw(const struct stile__raw_action *raw, struct sigaction *act)
{
    memset(act, 0, sizeof *act);
    act->sa_flags = (int)raw->flags; /* libc does not hide its restorer either */
    act->sa_restorer = (void (*)(void))raw->restorer;
    if ((act->sa_flags & SA_SIGINFO) != 0)
        act->sa_sigaction = (void (*)(int, siginfo_t *, void *))raw->handler;
    else
        act->sa_handler = (void (*)(int))raw->handler;
    memcpy(&act->sa_mask, &raw->mask, sizeof raw->mask);
}

/* Whether calls that it interrupts are taken up again is for the program's handler to say, which comes afterwards. */
static int ours_set(struct stile__crash_signal *cs)
{
    const unsigned long restarts =
        cs->theirs.handler == (uintptr_t)SIG_DFL ? SA_RESTART : cs->theirs.flags & SA_RESTART;
    const struct stile__raw_action raw = {.handler = (uintptr_t)stile__handle_crash,
                                          .flags =
                                              SA_SIGINFO | SA_ONSTACK | SA_NODEFER | restarts | restorer_flag,
                                          .restorer = restorer,
                                          .mask = ~SYNCHRONOUS};
    const int err = raw_set(cs->number, &raw);
    cs->ours = err == 0;
    return err;
}

int stile__crash_install(bool freezes)
{
    int err = restorer_find(SIGSEGV);
    if (err != 0)
        return err;
    /* Once: the child of a fork has the same modules, and other threads may have left the loader's lock behind. */
    if (stile__crash.pid == 0) {
        stile__modules_init();
        stile__terminate_watch();
        stile__greeting_command(stile__crash.command, sizeof stile__crash.command);
    }
    stile__crash.freezes = freezes;
    for (unsigned i = 0; i < STILE__CRASH_SIGNALS && err == 0; i++) {
        struct stile__crash_signal *cs = &stile__crash.signals[i];
        cs->number = numbers[i];
        if (cs->ours || cs->survived)
            continue;
        err = raw_get(numbers[i], &cs->theirs);
        /* What is ignored is handed on by exec, and none of it is a crash: the kernel does not ask when it is one. */
        if (err == 0 && cs->theirs.handler != (uintptr_t)SIG_IGN)
            err = ours_set(cs);
    }
    stile__crash.pid = stile__raw_getpid();
    return err;
}

void stile__crash_forked(void)
{
    if (stile__crash.pid == 0)
        return;
    atomic_store_explicit(&stile__crash.reporter, 0, memory_order_relaxed);
    atomic_store_explicit(&stile__crash.freezing, 0, memory_order_relaxed);
    atomic_store_explicit(&stile__crash.arrivals, 0, memory_order_relaxed);
    stile__crash_output_end();
    stile__crash.pid = stile__raw_getpid();
}

bool stile__crash_sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
    struct stile__crash_signal *cs = stile__crash.pid != 0 ? stile__crash_signal_of(signal) : NULL;
    if (cs == NULL || stile__raw_getpid() != stile__crash.pid || (act == NULL && !cs->ours))
        return false;
    struct stile__raw_action before = cs->theirs;
    if (!cs->ours && raw_get(signal, &before) != 0)
        return false;
    if (act != NULL) {
        const struct stile__raw_action next = to_raw(act);
        const bool native =
            next.handler == (uintptr_t)SIG_IGN || (cs->survived && next.handler != (uintptr_t)SIG_DFL);
        cs->theirs = next;
        if (native)
            cs->ours = false;
        if ((native ? raw_set(signal, &next) : ours_set(cs)) != 0)
            return false; /* the kernel takes what it took before; nothing else can be wrong with it */
    }
    if (old != NULL)
        from_raw(&before, old);
    return true;
}

/* A FIFO without a reader must not keep the program from starting, and a symbolic link is somebody else's choice of a file. */
static int file_open(const char *path)
{
    const int fd =
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

void stile__crash_output_open(const struct stile__options *o, bool forked)
{
    const bool own_name = strstr(o->crash, "%p") != NULL;
    if (forked && !own_name)
        return;
    crash_path[0] = '\0';
    if (o->crash_fd >= 0) {
        const int err = stile__crash_output_swap(o->crash_fd);
        if (err != 0)
            stile__log("PROFILE_CRASH=fd:%d: %s; crash reports go to stderr alone", o->crash_fd,
                       strerror(-err));
        return;
    }
    if (o->crash[0] == '\0')
        return;
    int err = stile__target_expand(o->crash, crash_path, sizeof crash_path);
    const int fd = err == 0 ? file_open(crash_path) : err;
    err = fd < 0 ? fd : stile__crash_output_swap(fd);
    if (fd >= 0)
        close(fd);
    if (err == 0)
        return;
    stile__log("cannot write crash reports to %s: %s; they go to stderr alone", o->crash,
               err == -ELOOP ? "it is a symbolic link, which is not followed" : strerror(-err));
    crash_path[0] = '\0';
}

const char *stile__crash_path(void)
{
    return crash_path;
}
