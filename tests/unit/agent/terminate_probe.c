/* Loaded into the programs of test_terminate.c with what it tests: watches from the start, and says when the program aborts what
 * the thread has noted. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "profiler/agent/stile.h"
#include "profiler/agent/terminate.h"
#include "profiler/region/raw_syscall.h"

STILE_EXPORT void probe_watch(void);
void probe_watch(void)
{
    stile__terminate_watch();
}

static void on_abort(int signal)
{
    char line[2048];
    const struct stile__terminated *t = stile__terminate_of(stile__raw_gettid());
    int n = t == NULL
                ? snprintf(line, sizeof line, "no note\n")
                : snprintf(line, sizeof line, "note %u <%s> <%s>\n", (unsigned)t->state, t->type, t->what);
    if (write(1, line, (size_t)n) != n)
        _exit(99);
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigaction(signal, &dfl, NULL);
}

__attribute__((constructor)) static void start(void)
{
    struct sigaction sa = {.sa_handler = on_abort, .sa_flags = SA_RESETHAND};
    sigaction(SIGABRT, &sa, NULL);
    stile__terminate_watch();
}
