/* Says in JSON what a program can see of itself: threads, descriptors, children, signals, environment. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "work.h"

extern char **environ;

WORK static uint64_t work_before_looking(uint64_t ns)
{
    return burn(ns);
}

static void print_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            putchar('\\');
        if ((unsigned char)*s < 32)
            printf("\\u%04x", (unsigned char)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

static void print_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    printf("\"threads\": %d", n);
}

static void print_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    const char *comma = "";
    printf(", \"fds\": [");
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300], target[300];
        int fd = atoi(e->d_name);
        ssize_t n;
        if (e->d_name[0] == '.' || fd == dirfd(d))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        printf("%s{\"fd\": %d, \"cloexec\": %d, \"target\": ", comma, fd,
               (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        print_string(target);
        printf("}");
        comma = ", ";
    }
    printf("], \"next_fd\": %d", d ? dirfd(d) : -1);
    if (d)
        closedir(d);
}

static void print_children(void)
{
    char text[4096] = "";
    FILE *f = fopen("/proc/thread-self/children", "r");
    if (f) {
        if (!fgets(text, sizeof text, f))
            text[0] = '\0';
        fclose(f);
    }
    printf(", \"children\": ");
    print_string(text);
}

static void print_signals(void)
{
    const char *comma = "";
    sigset_t mask, mask2;
    stack_t alt;

    printf(", \"actions\": [");
    for (int s = 1; s <= SIGRTMAX; s++) {
        struct sigaction a;
        memset(&a, 0, sizeof a);
        if (s == SIGKILL || s == SIGSTOP || sigaction(s, NULL, &a) != 0)
            continue;
        const char *what = a.sa_handler == SIG_DFL   ? "default"
                           : a.sa_handler == SIG_IGN ? "ignore"
                                                     : "handler";
        printf("%s[%d, \"%s\", %d]", comma, s, what, a.sa_flags);
        comma = ", ";
    }
    comma = "";
    printf("], \"mask\": [");
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    sigprocmask(SIG_SETMASK, NULL, &mask2);
    for (int s = 1; s <= SIGRTMAX; s++) {
        if (sigismember(&mask, s) != 1 && sigismember(&mask2, s) != 1)
            continue;
        printf("%s%d", comma, s);
        comma = ", ";
    }
    memset(&alt, 0, sizeof alt);
    sigaltstack(NULL, &alt);
    printf("], \"altstack\": %d", alt.ss_flags);
}

/* What the kernel says, which nobody between can change. */
static void print_kernel_view(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];

    printf(", \"status\": {\"\": \"\"");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        bool is_set = strncmp(line, "Sig", 3) == 0 || strncmp(line, "Shd", 3) == 0;
        if (!colon || !is_set || strncmp(line, "SigQ", 4) == 0)
            continue;
        *colon = '\0';
        colon[1 + strcspn(colon + 1, "\n")] = '\0';
        printf(", \"%s\": \"%s\"", line, colon + 2);
    }
    if (f)
        fclose(f);
    printf("}, \"timers\": ");
    f = fopen("/proc/self/timers", "r");
    print_string(f && fgets(line, sizeof line, f) ? line : "");
    if (f)
        fclose(f);
}

static void print_environment(void)
{
    printf(", \"environment\": [");
    for (char **e = environ; *e; e++) {
        print_string(*e);
        if (e[1])
            printf(", ");
    }
    printf("]");
}

int main(void)
{
    work_before_looking(200 * MS);
    printf("{");
    print_threads();
    print_fds();
    print_children();
    print_signals();
    print_kernel_view();
    print_environment();
    printf("}\n");
    return 0;
}
