/* Finds or starts the collector and hands the region over. Normal context: at start and in the child of a fork. */
#include "profiler/agent/greeting.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "profiler/agent/clock_perf.h"
#include "profiler/agent/crash_signals.h"
#include "profiler/agent/log.h"
#include "profiler/agent/target.h"
#include "profiler/region/hello.h"
#include "profiler/region/layout.h"
#include "profiler/region/raw_syscall.h"

#define CONNECT_TRIES      5
#define HAND_OVER_TRIES    100
#define HAND_OVER_PAUSE_NS 2000000

static char command_line[4096];

void stile__greeting_init(int argc, char **argv)
{
    size_t n = 0;
    for (int i = 0; i < argc && argv[i] != NULL; i++) {
        int len = snprintf(command_line + n, sizeof command_line - n, "%s%s", i == 0 ? "" : " ", argv[i]);
        n += (size_t)len;
        if (n >= sizeof command_line)
            return;
    }
}

void stile__greeting_command(char *text, size_t size)
{
    snprintf(text, size, "%s", command_line);
}

/* The `stile` executable lies beside the library: ../bin from lib, ../../bin from lib/x86_64-linux-gnu. */
static int collector_path(const struct stile__options *o, char *path, size_t size)
{
    static const char *const places[] = {"/../bin/stile", "/../../bin/stile"};
    Dl_info info;

    if (o->collector[0] != '\0') {
        snprintf(path, size, "%s", o->collector);
        return 0;
    }
    if (dladdr((void *)&stile__greeting_init, &info) == 0 || info.dli_fname == NULL)
        return -ENOENT;
    /* The collector is started in another directory. */
    char cwd[PATH_MAX] = "";
    if (info.dli_fname[0] != '/' && getcwd(cwd, sizeof cwd) == NULL)
        return -errno;
    const char *slash = strrchr(info.dli_fname, '/');
    int dir_len = slash == NULL ? 1 : (int)(slash - info.dli_fname);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (snprintf(path, size, "%s%s%.*s%s", cwd, cwd[0] != '\0' ? "/" : "", dir_len,
                     slash == NULL ? "." : info.dli_fname, places[i]) >= (int)size)
            return -ENAMETOOLONG;
        if (access(path, X_OK) == 0)
            return 0;
    }
    return -ENOENT;
}

/* Adds or replaces STILE_ROOT. libc's setenv would allocate, so the environment moves once into a page of ours. */
static int environment_set(const char *name, int32_t root_pid)
{
    static char value[sizeof STILE__ROOT_ENV + STILE__NAME_MAX + 32];
    size_t n = 0;

    snprintf(value, sizeof value, "%s=%s@%d:%d", STILE__ROOT_ENV, name, root_pid, root_pid);
    for (; environ != NULL && environ[n] != NULL; n++)
        if (strncmp(environ[n], STILE__ROOT_ENV "=", sizeof STILE__ROOT_ENV) == 0) {
            environ[n] = value;
            return 0;
        }
    char **fresh =
        mmap(NULL, (n + 2) * sizeof *fresh, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return -errno;
    if (n != 0)
        memcpy(fresh, environ, n * sizeof *fresh);
    fresh[n] = value;
    environ = fresh;
    return 0;
}

static int collector_start(struct stile__collector *c, const struct stile__options *o)
{
    char path[PATH_MAX];
    struct stile__launch launch = {.program = path};
    int subreaper = 0;

    int err = collector_path(o, path, sizeof path);
    if (err != 0) {
        stile__log(
            "no collector beside libstile.so, and PROFILE_COLLECTOR is not set; running without a profile");
        return err;
    }
    /* A subreaper would inherit the collector as a child. The attribute matters only at the moment of inheritance. */
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    if (subreaper != 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0);
    err = stile__launch_collector(&launch);
    if (subreaper != 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (err != 0) {
        stile__log("cannot start the collector %s: %s; running without a profile", path, strerror(-err));
        return err;
    }
    memcpy(c->name, launch.name, sizeof c->name);
    c->pid = launch.pid;
    c->root_pid = stile__raw_getpid();
    c->hidden = c->root_pid == 1 ? c->pid : 0; /* pid 1 inherits every orphan */
    return environment_set(c->name, c->root_pid);
}

/* Takes name and root from "NAME@PID:ROOT". */
static bool root_parse(const char *root, struct stile__collector *c)
{
    const char *at = strchr(root, '@');
    if (at == NULL || at == root || (size_t)(at - root) >= sizeof c->name)
        return false;
    memcpy(c->name, root, (size_t)(at - root));
    c->name[at - root] = '\0';
    c->root_pid = (int32_t)strtol(at + 1, NULL, 10);
    return true;
}

/* Collectors have the version of the region in their name: another one than ours would not know what to make of it. */
static bool other_version(const struct stile__collector *c)
{
    unsigned version;
    int n = 0;
    if (sscanf(c->name, "stile-%u-%n", &version, &n) != 1 || n == 0 || version == STILE__REGION_VERSION)
        return false;
    stile__log("the collector of process %d is of another version of Stile; running without a profile",
               c->root_pid);
    return true;
}

static void text_add(struct stile__hello *h, const char *text)
{
    size_t n = strlen(text) + 1;
    if (h->text_len + n > sizeof h->text) {
        text = "";
        n = 1;
    }
    memcpy(h->text + h->text_len, text, n);
    h->text_len += (uint32_t)n;
}

static void hello_fill(struct stile__hello *h, const struct stile__options *o, const char *path,
                       const char *block)
{
    static char cwd[PATH_MAX];
    h->type = STILE__MESSAGE_HELLO;
    h->version = STILE__REGION_VERSION;
    h->pid = stile__raw_getpid();
    h->text_len = 0;
    text_add(h, o->profile);
    text_add(h, path);
    text_add(h, getcwd(cwd, sizeof cwd) != NULL ? cwd : "/");
    text_add(h, command_line);
    text_add(h, o->block);
    text_add(h, block);
    text_add(h, stile__crash_path());
}

static int hello_write(int socket, const struct stile__hello *h, const int *fds)
{
    union {
        char bytes[CMSG_SPACE(STILE__HELLO_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)h, offsetof(struct stile__hello, text) + h->text_len};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(STILE__HELLO_FDS * sizeof(int));
    memcpy(CMSG_DATA(c), fds, STILE__HELLO_FDS * sizeof(int));
    /* ETOOMANYREFS: too many descriptors of this user are on their way to collectors; they arrive in a moment. */
    for (int tries = 0; sendmsg(socket, &msg, MSG_NOSIGNAL) < 0; tries++) {
        if (errno == ETOOMANYREFS && tries < HAND_OVER_TRIES)
            stile__raw_sleep_ns(HAND_OVER_PAUSE_NS);
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/* Connects and says it. A connection that breaks was not heard: it is made again. */
static int hello_say(const struct stile__collector *c, const struct stile__hello *h, const int *fds)
{
    int err = -EPIPE;
    for (int tries = 0; tries < CONNECT_TRIES && (err == -EPIPE || err == -ECONNRESET); tries++) {
        int socket = stile__launch_connect(c->name);
        if (socket < 0)
            return socket;
        err = hello_write(socket, h, fds);
        close(socket);
    }
    return err;
}

static int hand_over(const struct stile__collector *c, const struct stile__hello *h, int region_fd)
{
    int fds[STILE__HELLO_FDS];
    /* Before the connection, on which the collector waits. */
    fds[STILE__HELLO_FD_REGION] = region_fd;
    fds[STILE__HELLO_FD_MAPS] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    fds[STILE__HELLO_FD_PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (fds[STILE__HELLO_FD_MAPS] < 0) /* a changed root has no /proc; the collector may have it */
        fds[STILE__HELLO_FD_MAPS] = fcntl(fds[STILE__HELLO_FD_PIDFD], F_DUPFD_CLOEXEC, 0);
    int err = fds[STILE__HELLO_FD_MAPS] < 0 || fds[STILE__HELLO_FD_PIDFD] < 0 ? -errno : hello_say(c, h, fds);
    if (fds[STILE__HELLO_FD_MAPS] >= 0)
        close(fds[STILE__HELLO_FD_MAPS]);
    if (fds[STILE__HELLO_FD_PIDFD] >= 0)
        close(fds[STILE__HELLO_FD_PIDFD]);
    return err;
}

/* Says once, at the root, what would otherwise be found out only at the end. */
static int target_check(const char *path)
{
    int err = stile__target_check(path);
    if (err == -ELOOP)
        stile__log("%s is a symbolic link, which is not followed; running without a profile", path);
    else if (err == -EINVAL)
        stile__log("%s is not a regular file; running without a profile", path);
    else if (err != 0)
        stile__log("cannot write %s: %s; running without a profile", path, strerror(-err));
    return err;
}

/* The names of this process's files: of the CPU profile and of the blocking profile; "" for one that is not wanted. Static: a
 * thread with a stack of 16 KiB may fork, too. Sessions start one at a time. */
enum { FILE_PROFILE, FILE_BLOCK, FILES };
static char paths[FILES][PATH_MAX];

static int paths_expand(const struct stile__options *o)
{
    const char *const templates[FILES] = {o->profile, o->block};
    for (int i = 0; i < FILES; i++) {
        int err = stile__target_expand(templates[i], paths[i], sizeof paths[i]);
        if (err != 0) {
            stile__log("%s is longer than a path may be; running without a profile", templates[i]);
            return err;
        }
    }
    return 0;
}

static int targets_check(void)
{
    int err = 0;
    for (int i = 0; i < FILES && err == 0; i++)
        if (paths[i][0] != '\0')
            err = target_check(paths[i]);
    return err;
}

/* Beside the files of an ancestor whose collector cannot be reached. */
static void paths_make_own(const struct stile__options *o)
{
    const char *const templates[FILES] = {o->profile, o->block};
    static char own[PATH_MAX + 16];
    for (int i = 0; i < FILES; i++) {
        size_t n = strlen(paths[i]);
        size_t end = n > 6 && strcmp(paths[i] + n - 6, ".pb.gz") == 0 ? 6 : 3;
        if (n == 0 || strstr(templates[i], "%p") != NULL)
            continue;
        snprintf(own, sizeof own, "%.*s.%d%s", (int)(n - end), paths[i], (int)getpid(), paths[i] + n - end);
        if (strlen(own) < sizeof paths[i])
            memcpy(paths[i], own, strlen(own) + 1);
    }
}

int stile__greeting_send(struct stile__collector *c, const struct stile__options *o, int region_fd,
                         bool forked)
{
    static struct stile__hello h;
    bool restarted = !forked && c->name[0] != '\0'; /* in the process that had a session before */
    bool inherited = forked ? c->name[0] != '\0' : o->root[0] != '\0' && root_parse(o->root, c);

    if (inherited && other_version(c))
        return -EPROTONOSUPPORT;
    int err = paths_expand(o);
    if (err != 0)
        return err;
    hello_fill(&h, o, paths[FILE_PROFILE], paths[FILE_BLOCK]);
    /* Whoever has no ancestor's profile to write beside says at once what is wrong with the name. (The image that the
     * root exec'd may be in another directory than the one that the name is relative to.) */
    bool own_name = !inherited || c->root_pid == h.pid;
    if (!inherited || restarted)
        err = targets_check();
    if (err != 0)
        return err;
    int handed = inherited ? hand_over(c, &h, region_fd) : -ECONNREFUSED;
    if (handed == 0)
        return 0;
    if (handed != -ECONNREFUSED && handed != -EPERM) {
        /* It is there, but we cannot talk to it: one of our own would only add to what is short. */
        stile__log("cannot reach the collector: %s; running without a profile", strerror(-handed));
        return handed;
    }
    /* An ancestor has the name and we cannot reach its collector (gone, another network namespace): our own file
     * stands beside it. */
    if (!own_name) {
        paths_make_own(o);
        hello_fill(&h, o, paths[FILE_PROFILE], paths[FILE_BLOCK]);
        err = targets_check();
    }
    if (err == 0)
        err = collector_start(c, o);
    if (err == 0) {
        err = hand_over(c, &h, region_fd);
        if (err != 0)
            stile__log("cannot reach the collector: %s; running without a profile", strerror(-err));
    }
    return err;
}

void stile__greeting_poke(const struct stile__collector *c)
{
    uint32_t type = STILE__MESSAGE_POKE;
    if (stile__clock_filtered())
        return; /* which may forbid sockets; the collector comes by in a twentieth of a second */
    int socket = stile__launch_connect(c->name);
    if (socket < 0)
        return;
    if (send(socket, &type, sizeof type, MSG_NOSIGNAL) < 0) {
        /* The collector looks at the regions by itself too, a little later. */
    }
    close(socket);
}
