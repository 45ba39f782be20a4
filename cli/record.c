/* `stile record`: starts a collector, runs a command with libstile preloaded, and is the collector's client. The
 * collector is detached: whatever becomes of this process, the profile is written. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/command_check.h"
#include "cli/commands.h"
#include "cli/comments.h"
#include "cli/preload.h"
#include "cli/record_options.h"
#include "cli/summary.h"
#include "profiler/agent/options.h"
#include "profiler/agent/target.h"
#include "profiler/region/hello.h"
#include "profiler/region/launch.h"
#include "profiler/region/layout.h"
#include "profiler/region/signal_name.h"

#define PATIENCE_MS 3000 /* between two reports of the collector, which come twice a second */

struct run {
    struct stile__record_options ask;
    struct stile__command file; /* what is known of it */
    bool told;                  /* why it will have no profile */
    char name[STILE__NAME_MAX]; /* the collector's */
    int client;                 /* socket to it, -1 once it is gone */
    pid_t pid;
    uint64_t used_ns; /* CPU time of the command and what it had waited for */
    struct stile__status status;
    struct timespec start, start_of_files; /* by CLOCK_MONOTONIC, and by the clock that files have */
};

static volatile sig_atomic_t forward_to;

/* What would end us for a line that finds no reader or no room, and take the command's exit status away. The
 * command has them as they were found. */
static const int unheard[] = {SIGPIPE, SIGXFSZ};
static struct sigaction as_found[sizeof unheard / sizeof *unheard];

static void lines_survive(void)
{
    const struct sigaction ignored = {.sa_handler = SIG_IGN};
    for (size_t i = 0; i < sizeof unheard / sizeof *unheard; i++)
        sigaction(unheard[i], &ignored, &as_found[i]);
}

/* The terminal sends SIGINT and SIGQUIT to the command as well, and that is the kernel's doing. */
static void forward(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if ((signal == SIGINT || signal == SIGQUIT) && info->si_code == SI_KERNEL)
        return;
    int saved_errno = errno;
    if (forward_to > 0)
        kill(forward_to, signal);
    errno = saved_errno;
}

/* The line that is known now rather than after the run. A path with a % is known only to the program itself. */
static int output_check(const char *path)
{
    int err = strchr(path, '%') != NULL || path[0] == '\0' ? 0 : stile__target_check(path);
    if (err == 0)
        return 0;
    fprintf(stderr, "stile record: cannot write %s: %s\n", path,
            err == -ELOOP    ? "it is a symbolic link, which is not followed"
            : err == -EINVAL ? "it is not a regular file"
                             : strerror(-err));
    return 2;
}

static int collector_start(struct run *run)
{
    char self[PATH_MAX];
    struct stile__launch launch = {.program = self};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    int err = n < 0 ? -errno : 0;

    if (err == 0) {
        self[n] = '\0';
        err = stile__launch_collector(&launch);
    }
    if (err == 0) {
        memcpy(run->name, launch.name, sizeof run->name);
        run->client = stile__launch_connect(run->name);
        err = run->client < 0 ? run->client : 0;
    }
    const struct stile__client_begin begin = {STILE__MESSAGE_CLIENT, stile__record_merges(&run->ask)};
    if (err == 0 && send(run->client, &begin, sizeof begin, MSG_NOSIGNAL) != sizeof begin)
        err = -errno;
    if (err != 0)
        fprintf(stderr, "stile record: cannot start the collector: %s\n", strerror(-err));
    return err;
}

/* In the child: what makes the command a profiled program. Nothing of it is visible to this process. */
static void command_exec(const struct run *run, const char *preload, const sigset_t *mask, int report)
{
    char text[128];
    stile__command_environment(&run->file, preload);
    setenv("PROFILE", run->ask.options.profile, 1);
    snprintf(text, sizeof text, "%u", run->ask.options.hz);
    setenv("PROFILE_HZ", text, 1);
    const char *const more[][2] = {{"PROFILE_INTERVAL", run->ask.interval},
                                   {"PROFILE_TOGGLE", run->ask.toggle},
                                   {"PROFILE_SIGNAL", run->ask.signal},
                                   {"PROFILE_BLOCK", run->ask.block != NULL ? run->ask.options.block : NULL},
                                   {"PROFILE_BLOCK_RATE", run->ask.block_rate},
                                   {"PROFILE_CRASH", run->ask.crash}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i][1] != NULL)
            setenv(more[i][0], more[i][1], 1);
    snprintf(text, sizeof text, "%s@0:%d", run->name,
             (int)getpid()); /* nobody in the tree waits for the file: we do */
    setenv(STILE__ROOT_ENV, text, 1);
    for (size_t i = 0; i < sizeof unheard / sizeof *unheard; i++)
        sigaction(unheard[i], &as_found[i], NULL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(run->ask.command[0], run->ask.command);
    int err = errno;
    if (write(report, &err, sizeof err) < 0)
        _exit(127);
    _exit(err == ENOENT ? 127 : 126);
}

/* Starts the command. Returns 0, or the exit status a shell would give for one that cannot be started. */
static int command_start(struct run *run, const char *preload)
{
    int report[2], err = 0;
    sigset_t held, mask;
    struct sigaction act = {.sa_sigaction = forward, .sa_flags = SA_RESTART | SA_SIGINFO};
    static const int forwarded[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGQUIT};

    if (pipe2(report, O_CLOEXEC) != 0) {
        fprintf(stderr, "stile record: %s\n", strerror(errno));
        return 1;
    }
    /* A signal that comes before the command is there waits until it can be passed on. */
    sigfillset(&held);
    sigprocmask(SIG_SETMASK, &held, &mask);
    clock_gettime(CLOCK_MONOTONIC, &run->start);
    clock_gettime(CLOCK_REALTIME_COARSE, &run->start_of_files);
    run->pid = fork();
    if (run->pid == 0)
        command_exec(run, preload, &mask, report[1]);
    forward_to = run->pid;
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
        sigaction(forwarded[i], &act, NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    close(report[1]);
    if (run->pid < 0)
        err = errno;
    else if (read(report[0], &err, sizeof err) == sizeof err)
        waitpid(run->pid, NULL, 0);
    else
        err = 0;
    close(report[0]);
    if (err == 0)
        return 0;
    return stile__command_failed(&run->file, run->ask.command[0], err);
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

/* Takes one report of the collector. False once it is gone. */
static bool status_take(struct run *run)
{
    struct stile__status s;
    ssize_t n = recv(run->client, &s, sizeof s, MSG_DONTWAIT);
    if (n == (ssize_t)sizeof s) {
        run->status = s;
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    close(run->client);
    run->client = -1;
    return false;
}

static void status_line(const struct run *run)
{
    fprintf(stderr, "\r\033[K[stile] %.1f s: %llu samples, %.2f s of CPU time", seconds_since(&run->start),
            (unsigned long long)run->status.ticks, (double)run->status.cpu_ns / 1e9);
    fflush(stderr);
}

static uint64_t cpu_ns(const struct rusage *used)
{
    return ((uint64_t)used->ru_utime.tv_sec + (uint64_t)used->ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)used->ru_utime.tv_usec + (uint64_t)used->ru_stime.tv_usec) * 1000u;
}

/* Waits for the command. Returns its wait status. */
static int command_wait(struct run *run, bool live)
{
    int wait_status = 0;
    int pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);

    while (pidfd >= 0) {
        struct pollfd fds[] = {{pidfd, POLLIN, 0}, {run->client, POLLIN, 0}};
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[0].revents != 0)
            break;
        if (fds[1].revents != 0 && status_take(run) && live)
            status_line(run);
    }
    if (pidfd >= 0)
        close(pidfd);
    struct rusage used = {0};
    while (wait4(run->pid, &wait_status, 0, &used) < 0 && errno == EINTR)
        ;
    const char *children = getenv("PROFILE_CHILDREN");
    if (children == NULL || strcmp(children, "0") != 0) /* else their time is not the profile's */
        run->used_ns = cpu_ns(&used);
    forward_to = 0;
    if (live)
        fputs("\r\033[K", stderr);
    return wait_status;
}

static void file_wait(struct run *run, int wait_status)
{
    const struct stile__client_end said = {STILE__MESSAGE_CLIENT_END, run->pid, wait_status, run->used_ns};
    struct pollfd fd = {run->client, POLLIN, 0};

    if (run->client < 0 || send(run->client, &said, sizeof said, MSG_NOSIGNAL) < 0)
        return;
    run->status.final = 0;
    while (run->status.final == 0) {
        int n = poll(&fd, 1, PATIENCE_MS);
        if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && !status_take(run)))
            return;
    }
}

static void summary_print(const struct run *run)
{
    const struct stile__summary summary = {.status = &run->status,
                                           .profile = run->ask.options.profile,
                                           .block = run->ask.options.block,
                                           .command = run->ask.command[0],
                                           .told = run->told,
                                           .seconds = seconds_since(&run->start),
                                           .hz = run->ask.options.hz,
                                           .collector_gone = run->client < 0};
    if (!stile__summary_print(&summary) || !run->ask.verbose)
        return;
    stile__comments_print(stderr, run->ask.options.profile, run->status.path, &run->start_of_files);
    if (run->ask.options.block[0] != '\0' && run->status.block_files != 0)
        stile__comments_print(stderr, run->ask.options.block, run->status.block_path, &run->start_of_files);
}

/* Ends as the command ended, by the same signal if it was one. */
static int end_as(int wait_status)
{
    if (WIFSIGNALED(wait_status)) {
        struct rlimit no_core = {0, 0};
        sigset_t all;
        setrlimit(RLIMIT_CORE, &no_core); /* the command has dumped its own */
        signal(WTERMSIG(wait_status), SIG_DFL);
        sigemptyset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        raise(WTERMSIG(wait_status));
        return 128 + WTERMSIG(wait_status);
    }
    return WEXITSTATUS(wait_status);
}

int stile__cmd_record(int argc, char **argv)
{
    static struct run run;
    char preload[2 * PATH_MAX];

    run.client = -1;
    int status = stile__record_options_parse(argc, argv, &run.ask);
    if (status != 0)
        return status < 0 ? 0 : status;
    status = output_check(run.ask.options.profile);
    if (status == 0)
        status = output_check(run.ask.options.block);
    if (status == 0 && run.ask.crash != NULL)
        status = output_check(run.ask.crash);
    if (status != 0)
        return status;
    if (stile__preload_value(preload, sizeof preload) != 0)
        return 1;
    lines_survive();
    run.told = stile__command_check(&run.file, run.ask.command[0]);
    if (collector_start(&run) != 0)
        return 1;
    status = command_start(&run, preload);
    if (status != 0)
        return status;
    int wait_status = command_wait(&run, isatty(STDERR_FILENO));
    file_wait(&run, wait_status);
    summary_print(&run);
    return end_as(wait_status);
}
