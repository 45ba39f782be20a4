/* Hooks on signal handlers and on exec, so that the program, and what it execs, sees the handlers and the mask that
 * it set itself. Normal context, in the program's threads. */
#include <alloca.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "profiler/agent/alt_stack.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/session.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

STILE_EXPORT int sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
    return stile__signal_sigaction(signal, act, old) ? 0 : stile__sigaction_next(signal, act, old);
}

STILE_EXPORT int sigaltstack(const stack_t *stack, stack_t *old)
{
    return stile__alt_stack_change(stack, old);
}

/* As libc does it: BSD semantics. */
STILE_EXPORT sighandler_t signal(int number, sighandler_t handler)
{
    static void *cache;
    typedef sighandler_t signal_fn(int, sighandler_t);
    signal_fn *next = (signal_fn *)stile__hook_next(&cache, "signal");
    struct sigaction act, old;

    memset(&act, 0, sizeof act);
    act.sa_handler = handler;
    act.sa_flags = SA_RESTART;
    sigaddset(&act.sa_mask, number);
    if (handler != SIG_ERR && stile__signal_sigaction(number, &act, &old))
        return old.sa_handler;
    return next(number, handler);
}

/* What sysv_signal, siginterrupt and their like do to our signal is done to the copy that the program sees. */
static bool disposition_set(int number, sighandler_t handler, int flags, sighandler_t *before)
{
    struct sigaction act, old;
    memset(&act, 0, sizeof act);
    act.sa_handler = handler;
    act.sa_flags = flags;
    if (!stile__signal_sigaction(number, &act, &old))
        return false;
    *before = old.sa_handler;
    return true;
}

STILE_EXPORT sighandler_t sysv_signal(int number, sighandler_t handler)
{
    static void *cache;
    typedef sighandler_t signal_fn(int, sighandler_t);
    sighandler_t before;
    if (handler != SIG_ERR && disposition_set(number, handler, (int)SA_RESETHAND | SA_NODEFER, &before))
        return before;
    return ((signal_fn *)stile__hook_next(&cache, "sysv_signal"))(number, handler);
}

/* What `signal` is in a program compiled for strict POSIX. */
STILE_EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler)
{
    return sysv_signal(number, handler);
}

/* Withdrawn from POSIX, and from libc's headers in most modes. */
STILE_EXPORT sighandler_t bsd_signal(int number, sighandler_t handler);
STILE_EXPORT sighandler_t bsd_signal(int number, sighandler_t handler)
{
    return signal(number, handler);
}

STILE_EXPORT sighandler_t ssignal(int number, sighandler_t handler)
{
    return signal(number, handler);
}

STILE_EXPORT int sigignore(int number)
{
    static void *cache;
    typedef int sigignore_fn(int);
    sighandler_t before;
    if (disposition_set(number, SIG_IGN, 0, &before))
        return 0;
    return ((sigignore_fn *)stile__hook_next(&cache, "sigignore"))(number);
}

/* sigset also opens the signal in the mask, or blocks it for SIG_HOLD. */
STILE_EXPORT sighandler_t sigset(int number, sighandler_t handler)
{
    static void *cache;
    typedef sighandler_t sigset_fn(int, sighandler_t);
    struct sigaction old;
    sigset_t one, mask;
    sighandler_t before;

    if (!stile__signal_sigaction(number, NULL, &old))
        return ((sigset_fn *)stile__hook_next(&cache, "sigset"))(number, handler);
    sigemptyset(&one);
    sigaddset(&one, number);
    before = old.sa_handler;
    if (handler != SIG_HOLD)
        disposition_set(number, handler, 0, &before);
    if (sigprocmask(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, &one, &mask) != 0)
        return SIG_ERR;
    return sigismember(&mask, number) == 1 ? SIG_HOLD : before;
}

static bool in_vfork_child(void)
{
    return stile__session != NULL && stile__session->pid != stile__raw_getpid();
}

/* What a failed exec has to put back. */
struct handed_on {
    uint64_t mask;
    uint64_t ignored; /* signals of ours that the program ignores */
    bool own;         /* this process has a session, and is no vfork child */
};

/* Sets this thread's real mask to what the program believes it to be, and returns the earlier one. */
static uint64_t mask_as_believed(uint64_t ours)
{
    if (stile__thread.program_blocks)
        return stile__raw_sigmask(SIG_BLOCK, ours);
    return stile__raw_sigmask(SIG_UNBLOCK, stile__thread.wait_blocks ? ours : 0);
}

/* The mask and an ignored signal are handed on by exec: what the program believes of ours must be so in the next
 * image. A vfork child's mask is its own to set, and its parent's belief is not about it. The ticks that are due are
 * taken: the clock ends with the image. */
static struct handed_on hand_on(void)
{
    struct stile__session *s = stile__session;
    bool own = s != NULL && s->signal != 0 && !in_vfork_child();
    if (own)
        stile__thread_settle();
    struct handed_on h = {.ignored = stile__signal_before_exec(), .own = own};
    h.mask = mask_as_believed(own ? 1ull << (s->signal - 1) : 0);
    return h;
}

static int exec_failed(struct handed_on h)
{
    stile__raw_sigmask(SIG_SETMASK, h.mask);
    stile__signal_exec_failed(h.ignored);
    if (h.own)
        stile__thread_unsettle();
    return -1;
}

typedef int exec_fn(const char *, char *const[], char *const[]);

static int exec_with(void **cache, const char *name, const char *file, char *const argv[], char *const envp[])
{
    exec_fn *next = (exec_fn *)stile__hook_next(cache, name);
    struct handed_on h = hand_on();
    next(file, argv, envp);
    return exec_failed(h);
}

STILE_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    static void *cache;
    return exec_with(&cache, "execve", path, argv, envp);
}

STILE_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    static void *cache;
    return exec_with(&cache, "execvpe", file, argv, envp);
}

STILE_EXPORT int execv(const char *path, char *const argv[])
{
    return execve(path, argv, environ);
}

STILE_EXPORT int execvp(const char *file, char *const argv[])
{
    return execvpe(file, argv, environ);
}

STILE_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    static void *cache;
    typedef int fexecve_fn(int, char *const[], char *const[]);
    fexecve_fn *next = (fexecve_fn *)stile__hook_next(&cache, "fexecve");
    struct handed_on h = hand_on();
    next(fd, argv, envp);
    return exec_failed(h);
}

/* Arguments from `first` to the terminating NULL, that included. */
static size_t arguments_count(va_list list)
{
    size_t n = 2;
    while (va_arg(list, char *) != NULL)
        n++;
    return n;
}

/* Declares argv, filled from the variable arguments; on the stack, as libc does it. The prototype says that `first`
 * is not NULL, but programs pass NULL: the compiler is kept from believing it. */
#define ARGUMENTS_TAKE(list, first)                                                                          \
    const char *head = first;                                                                                \
    __asm__("" : "+r"(head));                                                                                \
    va_start(list, first);                                                                                   \
    size_t count = head != NULL ? arguments_count(list) : 1;                                                 \
    va_end(list);                                                                                            \
    char **argv = alloca(count * sizeof *argv);                                                              \
    argv[0] = (char *)(uintptr_t)head;                                                                       \
    va_start(list, first);                                                                                   \
    for (size_t i = 1; i < count; i++)                                                                       \
    argv[i] = va_arg(list, char *)

STILE_EXPORT int execl(const char *path, const char *first, ...)
{
    va_list list;
    ARGUMENTS_TAKE(list, first);
    va_end(list);
    return execve(path, argv, environ);
}

STILE_EXPORT int execlp(const char *file, const char *first, ...)
{
    va_list list;
    ARGUMENTS_TAKE(list, first);
    va_end(list);
    return execvpe(file, argv, environ);
}

STILE_EXPORT int execle(const char *path, const char *first, ...)
{
    va_list list;
    ARGUMENTS_TAKE(list, first);
    char **envp = va_arg(list, char **);
    va_end(list);
    return execve(path, argv, envp);
}

typedef int spawn_fn(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                     char *const[], char *const[]);

/* A spawned program gets the mask of this thread, as the program believes it to be. */
static int spawn_with(spawn_fn *next, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    struct stile__session *s = stile__session;
    uint64_t mask = mask_as_believed(s != NULL && s->signal != 0 ? 1ull << (s->signal - 1) : 0);
    int err = next(pid, path, actions, attr, argv, envp);
    stile__raw_sigmask(SIG_SETMASK, mask);
    return err;
}

STILE_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                             const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    static void *cache;
    return spawn_with((spawn_fn *)stile__hook_next(&cache, "posix_spawn"), pid, path, actions, attr, argv,
                      envp);
}

STILE_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                              const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    static void *cache;
    return spawn_with((spawn_fn *)stile__hook_next(&cache, "posix_spawnp"), pid, file, actions, attr, argv,
                      envp);
}
