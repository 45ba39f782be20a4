/* Hooks on the end of the process, and on waits for children: the collector must not be seen as one (pid 1 alone inherits
 * it), and they are told to the profile of waits. Normal context. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/agent/blocking.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/session.h"
#include "profiler/agent/stile.h"
#include "profiler/region/raw_syscall.h"

STILE_EXPORT void _exit(int status)
{
    stile__session_exit();
    for (;;)
        stile__raw_syscall(SYS_exit_group, status, 0, 0, 0);
}

STILE_EXPORT void _Exit(int status)
{
    _exit(status);
}

/* Counts the children of one thread listed in /proc/self/task/TID/children, the hidden one aside. */
static unsigned children_of(int task_dir, const char *tid, pid_t hidden)
{
    char path[64], buf[512];
    unsigned count = 0;
    pid_t pid = 0;
    ssize_t n;

    strcpy(stpcpy(path, tid), "/children");
    int fd = openat(task_dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1; /* not to be known: assume that there are some */
    while ((n = read(fd, buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] >= '0' && buf[i] <= '9') {
                pid = pid * 10 + (buf[i] - '0');
            } else {
                count += pid != 0 && pid != hidden;
                pid = 0;
            }
        }
    close(fd);
    return count;
}

static bool has_other_children(pid_t hidden)
{
    _Alignas(struct dirent64) char buf[2048];
    unsigned count = 0;
    ssize_t n;
    int dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return true;
    while ((n = getdents64(dir, buf, sizeof buf)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(buf + at);
            if (d->d_name[0] >= '0' && d->d_name[0] <= '9' && strlen(d->d_name) < 16)
                count += children_of(dir, d->d_name, hidden);
            at += d->d_reclen;
        }
    close(dir);
    return count != 0;
}

/* wait4 that never tells of the hidden child. `any`: the call may match it. */
static pid_t wait_hidden(pid_t pid, int *status, int options, struct rusage *usage)
{
    static void *cache;
    typedef pid_t wait4_fn(pid_t, int *, int, struct rusage *);
    wait4_fn *next = (wait4_fn *)stile__hook_next(&cache, "wait4");
    pid_t hidden = stile__session_hidden_child();
    struct stile__session *s = stile__session;

    if (hidden == 0 || s == NULL || s->pid != stile__raw_getpid() || (pid > 0 && pid != hidden))
        return next(pid, status, options, usage);
    for (;;) {
        if (pid == hidden || !has_other_children(hidden)) {
            errno = ECHILD;
            return -1;
        }
        pid_t got = next(pid, status, options, usage);
        if (got != hidden)
            return got;
    }
}

/* The value of a call that waits for a child, unless its options say that it does not. */
#define WAITS(options, hook, call)                                                                           \
    (stile__blocking_on() && ((options)&WNOHANG) == 0 ? STILE__BLOCKS(STILE__WAIT_CHILD, hook, call) : (call))

STILE_EXPORT pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    return WAITS(options, wait4, wait_hidden(pid, status, options, usage));
}

STILE_EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
    return WAITS(options, wait3, wait_hidden(-1, status, options, usage));
}

STILE_EXPORT pid_t waitpid(pid_t pid, int *status, int options)
{
    return WAITS(options, waitpid, wait_hidden(pid, status, options, NULL));
}

STILE_EXPORT pid_t wait(int *status)
{
    return WAITS(0, wait, wait_hidden(-1, status, 0, NULL));
}

static int waitid_hidden(idtype_t type, id_t id, siginfo_t *info, int options)
{
    static void *cache;
    typedef int waitid_fn(idtype_t, id_t, siginfo_t *, int);
    waitid_fn *next = (waitid_fn *)stile__hook_next(&cache, "waitid");
    pid_t hidden = stile__session_hidden_child();
    struct stile__session *s = stile__session;

    if (hidden == 0 || s == NULL || s->pid != stile__raw_getpid() || (type == P_PID && (pid_t)id != hidden))
        return next(type, id, info, options);
    for (;;) {
        if ((type == P_PID && (pid_t)id == hidden) || !has_other_children(hidden)) {
            errno = ECHILD;
            return -1;
        }
        int err = next(type, id, info, options);
        if (err != 0 || info == NULL || info->si_pid != hidden)
            return err;
        if (options & WNOWAIT) /* reap it ourselves, or it is found again for ever */
            next(P_PID, (id_t)hidden, info, WEXITED | WNOHANG);
    }
}

STILE_EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    return WAITS(options, waitid, waitid_hidden(type, id, info, options));
}
