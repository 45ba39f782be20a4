/* Signals by name. Normal context, in the program at its start, in the collector and in the command line. */
#include "profiler/region/signal_name.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number and nothing else; -1 if it is not. */
static int number_parse(const char *text)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && n <= 1000 ? (int)n : -1;
}

/* RTMIN, RTMIN+n, RTMAX, RTMAX-n, as kill(1) has them. */
static int realtime_parse(const char *text)
{
    bool from_min = strncmp(text, "RTMIN", 5) == 0;
    if (!from_min && strncmp(text, "RTMAX", 5) != 0)
        return -EINVAL;
    int base = from_min ? SIGRTMIN : SIGRTMAX;
    if (text[5] == '\0')
        return base;
    int n = text[5] == (from_min ? '+' : '-') ? number_parse(text + 6) : -1;
    if (n < 0 || n > SIGRTMAX - SIGRTMIN)
        return -EINVAL;
    return from_min ? base + n : base - n;
}

int stile__signal_parse(const char *text)
{
    int n = number_parse(text);
    if (n >= 0)
        return n >= 1 && n <= SIGRTMAX ? n : -EINVAL;
    if (strncmp(text, "SIG", 3) == 0)
        text += 3;
    for (int i = 1; i < 32; i++) {
        const char *name = sigabbrev_np(i);
        if (name != NULL && strcmp(name, text) == 0)
            return i;
    }
    return realtime_parse(text);
}

bool stile__signal_allowed(int signal)
{
    static const int kept[] = {
        SIGKILL, SIGSTOP,                                             /* cannot be handled */
        SIGSEGV, SIGBUS,  SIGILL,  SIGFPE,  SIGTRAP, SIGABRT, SIGSYS, /* say what the code itself did */
        SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU,                  /* children and job control */
        SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE, SIGALRM, /* end a program that does not handle them */
    };
    if (signal < 1 || signal > SIGRTMAX || (signal > 31 && signal < SIGRTMIN)) /* libc keeps 32 and 33 */
        return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (kept[i] == signal)
            return false;
    return true;
}

const char *stile__signal_name(int signal, char *to, size_t size)
{
    const char *name = signal > 0 && signal < 32 ? sigabbrev_np(signal) : NULL;
    if (name != NULL)
        snprintf(to, size, "SIG%s", name);
    else if (signal >= SIGRTMIN && signal <= SIGRTMAX)
        snprintf(to, size, signal == SIGRTMIN ? "SIGRTMIN" : "SIGRTMIN+%d", signal - SIGRTMIN);
    else
        snprintf(to, size, "signal %d", signal);
    return to;
}
