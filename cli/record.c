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

#include "cli/commands.h"
#include "cli/comments.h"
#include "cli/preload.h"
#include "cli/summary.h"
#include "profiler/agent/options.h"
#include "profiler/agent/target.h"
#include "profiler/region/hello.h"
#include "profiler/region/launch.h"
#include "profiler/region/layout.h"
#include "profiler/region/signal_name.h"

#define PATIENCE_MS 3000 /* between two reports of the collector, which come twice a second */

static const char usage[] =
    "usage: stile record [-o FILE] [-F HZ] [--block[=FILE]] [--block-rate NS] [--interval TIME]\n"
    "                    [--toggle SIGNAL] [--signal SIGNAL] [--verbose] [--] COMMAND [ARGUMENT...]\n"
    "\n"
    "Runs COMMAND and writes a CPU profile of it, whichever way it ends. Its terminal, signals, output and "
    "exit\n"
    "status are its own.\n"
    "\n"
    "  -o, --output FILE      file to write, ending in .pb.gz or .pb, or a directory (default stile.pb.gz);\n"
    "                         %p is the process id, %e the program, %t the unix time\n"
    "  -F, --frequency HZ     samples per second of CPU time of each thread, 1 to 20000 (default 100)\n"
    "      --block[=FILE]     write a blocking profile, too: where threads waited, for what, how long\n"
    "                         (default: -o's name with .block before its ending)\n"
    "      --block-rate NS    a wait recorded for each so many nanoseconds waited, on average; 1: all "
    "(default\n"
    "                         10000); implies --block\n"
    "  -i, --interval TIME    a file each TIME, from " STILE__INTERVAL_RANGE
    " (60 or 60s, 500ms, 5m, 1h): FILE.1.pb.gz,\n"
    "                         FILE.2.pb.gz, ...\n"
    "  -t, --toggle SIGNAL    start with sampling off; each SIGNAL (SIGUSR2, say) sent to COMMAND turns it "
    "on or\n"
    "                         off, and each part is a file\n"
    "  -s, --signal SIGNAL    profile with this signal, for a COMMAND that uses SIGPROF itself\n"
    "  -v, --verbose          print the comments of the files as well: what the profiler counted\n"
    "  -h, --help             this text\n";

struct run {
    struct stile__options options;          /* profile and hz */
    const char *interval, *toggle, *signal; /* as they were given, or NULL */
    const char *block, *block_rate;         /* the same; block: "" for the default name */
    bool verbose;
    char block_path[PATH_MAX]; /* the default */
    char **command;
    char name[STILE__NAME_MAX]; /* the collector's */
    int client;                 /* socket to it, -1 once it is gone */
    pid_t pid;
    struct stile__status status;
    struct timespec start, start_of_files; /* by CLOCK_MONOTONIC, and by the clock that files have */
};

static volatile sig_atomic_t forward_to;

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

static int bad(const char *format, const char *what)
{
    fputs("stile record: ", stderr);
    fprintf(stderr, format, what);
    fputs("; see stile record --help\n", stderr);
    return 2;
}

static int frequency_parse(const char *text, unsigned *hz)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 1 || n > STILE__HZ_MAX)
        return -EINVAL;
    *hz = (unsigned)n;
    return 0;
}

/* What --interval, --signal and --toggle say, as the program's agent will read it. Returns 0 or the exit status. */
static int values_check(const struct run *run)
{
    uint64_t ns;
    const char *const signals[] = {run->signal, run->toggle};
    if (run->interval != NULL && stile__options_interval_parse(run->interval, &ns) != 0)
        return bad("the interval \"%s\" is not a time from " STILE__INTERVAL_RANGE, run->interval);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (signals[i] != NULL && !stile__signal_allowed(stile__signal_parse(signals[i])))
            return bad("\"%s\" is no signal for a profiler to use", signals[i]);
    if (run->toggle != NULL && stile__signal_parse(run->toggle) ==
                                   (run->signal != NULL ? stile__signal_parse(run->signal) : SIGPROF))
        return bad("the profile's signal and the toggle are both %s", run->toggle);
    return 0;
}

/* Whether argv[*i] is option `shortname` or `longname`; then *value is the next word, or what stands behind '=', or ""
 * if it is missing, and *i is its last word. */
static bool option_is(int argc, char **argv, int *i, const char *shortname, const char *longname,
                      const char **value)
{
    const char *word = argv[*i];
    size_t n = strlen(longname);
    if (strncmp(word, longname, n) == 0 && word[n] == '=') {
        *value = word + n + 1;
        return true;
    }
    if (strcmp(word, shortname) != 0 && strcmp(word, longname) != 0)
        return false;
    *value = *i + 1 < argc ? argv[++*i] : "";
    return true;
}

static int block_rate_check(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long ns = strtoull(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && ns != 0 &&
        ns <= STILE__BLOCK_RATE_MAX)
        return 0;
    return bad("the block rate \"%s\" is not a number of nanoseconds from 1 to 1000000000", text);
}

/* The blocking profile's name and rate. Returns 0 or the exit status. */
static int block_check(struct run *run)
{
    const char *path = run->options.profile;
    if (run->block_rate != NULL && block_rate_check(run->block_rate) != 0)
        return 2;
    if (run->block_rate != NULL && run->block == NULL)
        run->block = "";
    if (run->block == NULL)
        return 0;
    if (run->block[0] == '\0') {
        size_t n = strlen(path), ending = n > 6 && strcmp(path + n - 6, ".pb.gz") == 0 ? 6 : 3;
        if (snprintf(run->block_path, sizeof run->block_path, "%.*s.block%s", (int)(n - ending), path,
                     path + n - ending) >= (int)sizeof run->block_path)
            return bad("the output's name %s is too long", path);
        run->block = run->block_path;
    }
    if (stile__options_block_set(&run->options, run->block) != 0)
        return bad("the blocking profile \"%s\" does not end in .pb.gz or .pb and is no directory",
                   run->block);
    if (strcmp(run->options.block, path) == 0)
        return bad("both profiles would be %s", path);
    return 0;
}

/* --block takes a value behind '=' only: a word of its own is the command's. */
static bool block_is(const char *word, const char **value)
{
    if (strcmp(word, "--block") == 0)
        *value = "";
    else if (strncmp(word, "--block=", 8) == 0)
        *value = word + 8;
    else
        return false;
    return true;
}

/* Returns 0 to go on, -1 when the help was printed, else the exit status. */
static int arguments_parse(int argc, char **argv, struct run *run)
{
    const char *output = "stile.pb.gz", *value;
    int i = 1;

    run->options.hz = 100;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return -1;
        }
        if (strcmp(argv[i], "-v") == 0 || strcmp(argv[i], "--verbose") == 0)
            run->verbose = true;
        else if (option_is(argc, argv, &i, "-o", "--output", &value))
            output = value;
        else if (option_is(argc, argv, &i, "-F", "--frequency", &value)) {
            if (frequency_parse(value, &run->options.hz) != 0)
                return bad("the frequency \"%s\" is not a number from 1 to 20000", value);
        } else if (block_is(argv[i], &value))
            run->block = value;
        else if (option_is(argc, argv, &i, "--block-rate", "--block-rate", &value))
            run->block_rate = value;
        else if (option_is(argc, argv, &i, "-i", "--interval", &value))
            run->interval = value;
        else if (option_is(argc, argv, &i, "-t", "--toggle", &value))
            run->toggle = value;
        else if (option_is(argc, argv, &i, "-s", "--signal", &value))
            run->signal = value;
        else
            return bad("unknown option %s", argv[i]);
    }
    if (i >= argc)
        return bad("no command given%s", "");
    run->command = argv + i;
    if (stile__options_profile_set(&run->options, output) != 0)
        return bad("the output \"%s\" does not end in .pb.gz or .pb and is no directory", output);
    int status = block_check(run);
    return status != 0 ? status : values_check(run);
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
    uint32_t type = STILE__MESSAGE_CLIENT;
    if (err == 0 && send(run->client, &type, sizeof type, MSG_NOSIGNAL) != sizeof type)
        err = -errno;
    if (err != 0)
        fprintf(stderr, "stile record: cannot start the collector: %s\n", strerror(-err));
    return err;
}

/* In the child: what makes the command a profiled program. Nothing of it is visible to this process. */
static void command_exec(const struct run *run, const char *preload, const sigset_t *mask, int report)
{
    char text[128];
    setenv("LD_PRELOAD", preload, 1);
    setenv("PROFILE", run->options.profile, 1);
    snprintf(text, sizeof text, "%u", run->options.hz);
    setenv("PROFILE_HZ", text, 1);
    const char *const more[][2] = {{"PROFILE_INTERVAL", run->interval},
                                   {"PROFILE_TOGGLE", run->toggle},
                                   {"PROFILE_SIGNAL", run->signal},
                                   {"PROFILE_BLOCK", run->block != NULL ? run->options.block : NULL},
                                   {"PROFILE_BLOCK_RATE", run->block_rate}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i][1] != NULL)
            setenv(more[i][0], more[i][1], 1);
    snprintf(text, sizeof text, "%s@0", run->name); /* nobody in the tree waits for the file: we do */
    setenv(STILE__ROOT_ENV, text, 1);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(run->command[0], run->command);
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
    fprintf(stderr, "stile record: cannot run %s: %s\n", run->command[0], strerror(err));
    return err == ENOENT ? 127 : 126;
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
    while (waitpid(run->pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    forward_to = 0;
    if (live)
        fputs("\r\033[K", stderr);
    return wait_status;
}

static void file_wait(struct run *run)
{
    uint32_t said[2] = {STILE__MESSAGE_CLIENT_END, (uint32_t)run->pid};
    struct pollfd fd = {run->client, POLLIN, 0};

    if (run->client < 0 || send(run->client, said, sizeof said, MSG_NOSIGNAL) < 0)
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
                                           .profile = run->options.profile,
                                           .block = run->options.block,
                                           .command = run->command[0],
                                           .seconds = seconds_since(&run->start),
                                           .hz = run->options.hz,
                                           .collector_gone = run->client < 0};
    if (!stile__summary_print(&summary) || !run->verbose)
        return;
    stile__comments_print(stderr, run->options.profile, run->status.path, &run->start_of_files);
    if (run->options.block[0] != '\0' && run->status.block_files != 0)
        stile__comments_print(stderr, run->options.block, run->status.block_path, &run->start_of_files);
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
    int status = arguments_parse(argc, argv, &run);
    if (status != 0)
        return status < 0 ? 0 : status;
    status = output_check(run.options.profile);
    if (status == 0)
        status = output_check(run.options.block);
    if (status != 0)
        return status;
    if (stile__preload_value(preload, sizeof preload) != 0)
        return 1;
    if (collector_start(&run) != 0)
        return 1;
    status = command_start(&run, preload);
    if (status != 0)
        return status;
    int wait_status = command_wait(&run, isatty(STDERR_FILENO));
    file_wait(&run);
    summary_print(&run);
    return end_as(wait_status);
}
