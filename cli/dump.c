/* `stile dump`: all stacks of a live program, from the collector that profiles it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "profiler/region/hello.h"
#include "profiler/region/launch.h"

#define PATIENCE_MS 30000 /* for a collector: half a second for the stacks, and the rest for names */
#define NAME_PREFIX "@stile-"

static const char usage[] = "usage: stile dump [--interrupt] PID\n"
                            "\n"
                            "Writes where all threads of a program are that runs with libstile: function, "
                            "file and line of each frame.\n"
                            "The program stands still for a moment, and runs on.\n"
                            "\n"
                            "      --interrupt  also signal threads that wait in what Stile does not see; "
                            "their system calls may end\n"
                            "                   early (EINTR)\n"
                            "  -h, --help       this text\n";

struct ask {
    struct stile__dump_ask said;
    struct stile__dump_told told;
};

static bool copy_some(int from)
{
    char bytes[65536];
    ssize_t n = read(from, bytes, sizeof bytes);
    if (n > 0)
        fwrite(bytes, 1, (size_t)n, stdout);
    return n > 0;
}

static int ask_send(int collector, const struct ask *a, int out)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)&a->said, sizeof a->said};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof out);
    memcpy(CMSG_DATA(c), &out, sizeof out);
    return sendmsg(collector, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Copies what comes until the collector says that it is done. The pipe may stay open in some fork of its: its end says
 * nothing. */
static int answer_take(int collector, int from, struct ask *a)
{
    struct pollfd fds[] = {{collector, POLLIN, 0}, {from, POLLIN, 0}};
    for (;;) {
        int n = poll(fds, 2, PATIENCE_MS);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? -ETIMEDOUT : -errno;
        if ((fds[1].revents & POLLIN) != 0)
            copy_some(from);
        else if ((fds[1].revents & POLLHUP) != 0)
            fds[1].fd = -1;
        if (fds[0].revents != 0)
            break;
    }
    ssize_t n = recv(collector, &a->told, sizeof a->told, 0);
    fcntl(from, F_SETFL, O_NONBLOCK);
    while (copy_some(from))
        ;
    return n == (ssize_t)sizeof a->told ? 0 : n < 0 ? -errno : -EPIPE;
}

/* Asks one collector. -ESRCH: it does not know the process. */
static int collector_ask(const char *name, struct ask *a)
{
    int ends[2], collector = stile__launch_connect(name);
    if (collector < 0)
        return collector;
    int err = pipe2(ends, O_CLOEXEC) != 0 ? -errno : 0;
    if (err == 0) {
        err = ask_send(collector, a, ends[1]);
        close(ends[1]);
        if (err == 0)
            err = answer_take(collector, ends[0], a);
        close(ends[0]);
    }
    close(collector);
    a->told.message[sizeof a->told.message - 1] = '\0';
    return err != 0 ? err : a->told.error;
}

/* Asks all that listen, until one knows the process. */
static int collectors_ask(struct ask *a)
{
    char line[512], last[STILE__NAME_MAX] = "";
    int result = -ESRCH;
    FILE *f = fopen("/proc/net/unix", "re");
    if (f == NULL)
        return -errno;
    while (result == -ESRCH && fgets(line, sizeof line, f) != NULL) {
        char *name = strstr(line, " " NAME_PREFIX);
        if (name == NULL)
            continue;
        name += 2;
        name[strcspn(name, "\n")] = '\0';
        if (strlen(name) >= STILE__NAME_MAX || strcmp(name, last) == 0)
            continue; /* each connection to it has its name, too */
        snprintf(last, sizeof last, "%s", name);
        int err = collector_ask(name, a);
        if (err != -EPERM && err != -ECONNREFUSED && err != -EPIPE && err != -ECONNRESET)
            result = err;
    }
    fclose(f);
    return result;
}

static int failed(const struct ask *a, int err)
{
    char path[32];
    struct stat st;
    int pid = a->said.pid;

    snprintf(path, sizeof path, "/proc/%d", pid);
    if (stat(path, &st) != 0)
        fprintf(stderr, "stile dump: there is no process %d\n", pid);
    else if (err == -ESRCH && st.st_uid != geteuid() && geteuid() != 0)
        fprintf(stderr, "stile dump: process %d is another user's\n", pid);
    else if (err == -ESRCH)
        fprintf(stderr, "stile dump: process %d is not profiled by Stile\n", pid);
    else if (err == -ETIMEDOUT)
        fprintf(stderr, "stile dump: the collector of process %d does not answer\n", pid);
    else if (a->told.message[0] != '\0')
        fprintf(stderr, "stile dump: process %d: %s\n", pid, a->told.message);
    else
        fprintf(stderr, "stile dump: process %d: %s\n", pid, strerror(-err));
    return 1;
}

static bool pid_parse(const char *text, int32_t *pid)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    *pid = (int32_t)n;
    return errno == 0 && end != text && *end == '\0' && n > 0 && n <= INT32_MAX;
}

int stile__cmd_dump(int argc, char **argv)
{
    static struct ask a = {.said.type = STILE__MESSAGE_DUMP};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--interrupt") == 0) {
            a.said.interrupt = 1;
        } else if (a.said.pid != 0 || !pid_parse(argv[i], &a.said.pid)) {
            fprintf(stderr, "stile dump: \"%s\" is no process; see stile dump --help\n", argv[i]);
            return 2;
        }
    }
    if (a.said.pid == 0) {
        fputs("stile dump: no process given; see stile dump --help\n", stderr);
        return 2;
    }
    int err = collectors_ask(&a);
    return err == 0 ? 0 : failed(&a, err);
}
