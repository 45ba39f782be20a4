/* Starts the collector so that the caller notices nothing: no child, no signal, no descriptor, no memory.
 * Context: normal, in the program (agent) or in `stile record`. */
#include "profiler/region/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/region/layout.h"

#define CHILD_STACK   (64u << 10)
#define KERNEL_SIGSET 8 /* bytes of the kernel's sigset_t */
#define LISTENER_FD   3

/* Shared with both children, which run in the caller's memory while the caller is suspended. */
struct birth {
    const char *program;
    char *const *envp;
    char *stack; /* two stacks of CHILD_STACK bytes */
    int listener;
    pid_t collector;
    int error; /* errno of what failed */
};

static socklen_t address_of(const char *name, struct sockaddr_un *sun)
{
    size_t n = strnlen(name, STILE__NAME_MAX);
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path + 1, name, n);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

int stile__launch_connect(const char *name)
{
    struct sockaddr_un sun;
    struct ucred peer;
    socklen_t len = address_of(name, &sun), peer_len = sizeof peer;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* Bounds the wait for a collector that is stopped with its queue full. */
    struct timeval patience = {.tv_usec = 200000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int err = 0;
    if (connect(fd, (struct sockaddr *)&sun, len) != 0)
        err = -errno;
    /* An abstract address is anybody's to bind: never hand a region to another user. */
    else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) != 0)
        err = -errno;
    else if (peer.uid != geteuid() && peer.uid != 0 && peer.uid != getuid())
        err = -EPERM;
    if (err != 0) {
        close(fd);
        return err;
    }
    return fd;
}

static int listener_make(char *name)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t random[16];
    struct sockaddr_un sun;

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return -errno;
    char *at = name + snprintf(name, STILE__NAME_MAX, "stile-%u-", STILE__REGION_VERSION);
    for (size_t i = 0; i < sizeof random; i++) {
        *at++ = hex[random[i] >> 4];
        *at++ = hex[random[i] & 15];
    }
    *at = '\0';

    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socklen_t len = address_of(name, &sun);
    if (bind(fd, (struct sockaddr *)&sun, len) != 0 || listen(fd, 4096) != 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* The collector gets an environment of its own: never LD_PRELOAD or PROFILE, with which it would profile itself
 * and start a collector for that, without end. */
static size_t environment_pick(char **out, size_t max)
{
    static const char *const keep[] = {"PATH=",         "HOME=",          "TMPDIR=",       "XDG_RUNTIME_DIR=",
                                       "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=", "LSAN_OPTIONS="};
    size_t n = 0;
    for (char **e = environ; e != NULL && *e != NULL; e++)
        for (size_t k = 0; k < sizeof keep / sizeof *keep; k++)
            if (strncmp(*e, keep[k], strlen(keep[k])) == 0 && n + 1 < max)
                out[n++] = *e;
    out[n] = NULL;
    return n;
}

static void signals_reset(void)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } dfl = {0};
    uint64_t none = 0;
    for (int sig = 1; sig <= 64; sig++)
        syscall(SYS_rt_sigaction, sig, &dfl, NULL, KERNEL_SIGSET);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, KERNEL_SIGSET);
}

static void limits_reset(void)
{
    static const int resources[] = {RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_CPU};
    struct rlimit lim;
    for (size_t i = 0; i < sizeof resources / sizeof *resources; i++)
        if (getrlimit((enum __rlimit_resource)resources[i], &lim) == 0) {
            lim.rlim_cur = lim.rlim_max;
            setrlimit((enum __rlimit_resource)resources[i], &lim);
        }
    lim.rlim_cur = lim.rlim_max = 0;
    setrlimit(RLIMIT_CORE, &lim);
    setpriority(PRIO_PROCESS, 0, 0);
    struct sched_param param = {0};
    sched_setscheduler(0, SCHED_OTHER, &param);
}

static int descriptors_reset(int listener)
{
    int null = open("/dev/null", O_RDWR);
    if (null <
        0) /* a changed root has no devices: a socket without a peer takes nothing and gives nothing, too */
        null = socket(AF_UNIX, SOCK_STREAM, 0);
    int high = fcntl(listener, F_DUPFD, LISTENER_FD + 1); /* out of the way of what is put in place below */
    if (null < 0 || high < 0)
        return errno;
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) < 0)
            return errno;
    if (dup2(high, LISTENER_FD) < 0)
        return errno;
    if (syscall(SYS_close_range, LISTENER_FD + 1, ~0u, 0) != 0)
        for (int fd = LISTENER_FD + 1; fd < 65536; fd++)
            close(fd);
    return 0;
}

/* The collector-to-be, in the caller's memory but with descriptors, directory and dispositions of its own. */
static int collector_main(void *arg)
{
    struct birth *b = arg;
    char *const argv[] = {(char *)"stile", (char *)"collect", NULL};

    signals_reset();
    setsid();
    limits_reset();
    int err = descriptors_reset(b->listener);
    if (err == 0) {
        if (chdir("/") != 0) {
            /* A directory that cannot be left is no reason to give up: paths are absolute. */
        }
        execve(b->program, argv, b->envp);
        err = errno;
    }
    b->error = err;
    syscall(SYS_exit_group, 127);
    return 0;
}

/* The middle process ends at once, so that the collector is nobody's child. */
static int middle_main(void *arg)
{
    struct birth *b = arg;
    b->collector = clone(collector_main, b->stack + 2 * CHILD_STACK, CLONE_VM | CLONE_VFORK, b);
    if (b->collector < 0)
        b->error = errno;
    syscall(SYS_exit_group, 0);
    return 0;
}

int stile__launch_collector(struct stile__launch *launch)
{
    int saved_errno = errno, err = 0;
    uint64_t all = ~0ull, mask;
    char *envp[16];
    struct birth b = {.program = launch->program, .envp = envp, .listener = listener_make(launch->name)};

    if (b.listener < 0) {
        err = b.listener;
        goto out_errno;
    }
    environment_pick(envp, sizeof envp / sizeof *envp);
    b.stack =
        mmap(NULL, 2 * CHILD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (b.stack == MAP_FAILED) {
        err = -errno;
        goto out_listener;
    }
    /* No handler of the program may run in a child that shares its memory. */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, KERNEL_SIGSET);
    pid_t middle = clone(middle_main, b.stack + CHILD_STACK, CLONE_VM | CLONE_VFORK, &b);
    if (middle < 0)
        err = -errno;
    else
        /* Exit signal 0: the program's own waits do not see it, only __WCLONE does. */
        while (waitpid(middle, NULL, __WCLONE) < 0 && errno == EINTR)
            ;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, KERNEL_SIGSET);
    if (err == 0 && b.error != 0)
        err = -b.error;
    launch->pid = b.collector;
    munmap(b.stack, 2 * CHILD_STACK);
out_listener:
    close(b.listener);
out_errno:
    errno = saved_errno;
    return err;
}
