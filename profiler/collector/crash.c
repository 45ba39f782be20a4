/* Crashes of a process. Collector, normal context. What the region says is believed as a number only. */
#include "profiler/collector/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/dump_look.h"
#include "profiler/collector/naming.h"
#include "profiler/collector/report_text.h"
#include "profiler/region/signal_name.h"

static uint32_t state_of(const struct process *p)
{
    return atomic_load_explicit(&p->region->crash_state, memory_order_acquire);
}

static bool wanted(const struct process *p)
{
    return atomic_load_explicit(&p->region->crash_wanted, memory_order_relaxed) != 0;
}

/* Whether there is anything to look for; for nearly all processes there is not, and that costs nothing. */
static bool concerned(const struct process *p)
{
    return p->origin == NULL && !p->crash.closed &&
           (state_of(p) != STILE__CRASH_NONE || (p->crash.is_command && wanted(p)));
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f != NULL)
        fclose(f);
    text[n] = '\0';
    const char *after = strrchr(text, ')'); /* its name may be anything */
    return after != NULL && sscanf(after, ") %*c %d", &parent) == 1 ? parent : 0;
}

void crash_begin(struct process *p, const struct hello_text *hello, const pid_t *clients, int n_clients)
{
    const char *path = hello->text[STILE__HELLO_CRASH_PATH], *cwd = hello->text[STILE__HELLO_CWD];
    pid_t parent = n_clients != 0 ? parent_of(p->pid) : 0;

    if (path[0] != '\0' && snprintf(p->crash.path, sizeof p->crash.path, "%s%s%s", path[0] == '/' ? "" : cwd,
                                    path[0] == '/' ? "" : "/", path) >= (int)sizeof p->crash.path)
        p->crash.path[0] = '\0';
    for (int i = 0; i < n_clients; i++)
        p->crash.is_command = p->crash.is_command || (parent != 0 && clients[i] == parent);
}

void crash_ended(struct process *p, int wait_status)
{
    p->crash.end_known = true;
    p->crash.wait_status = wait_status;
}

void crash_replaced(struct process *p)
{
    p->crash.closed = true;
}

static void text_own(struct crash *c, struct report_text *t)
{
    c->text = t->bytes;
    c->n_text = t->n;
}

void crash_gather(struct process *p)
{
    struct report_text t = {0};

    if (!p->crash.is_command || p->crash.path[0] == '\0' || p->crash.closed || p->crash.text != NULL ||
        p->damage != NULL || p->slots == NULL || !wanted(p) || state_of(p) != STILE__CRASH_NONE ||
        !process_dead(p))
        return;
    process_drain(p);
    if (p->damage == NULL)
        dump_of_the_dead(p, &t);
    text_own(&p->crash, &t);
}

/* Only ever added to. What somebody has put there is not followed, and a device is left alone. */
static int file_open(const char *path)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void file_write(struct process *p, const struct naming *what)
{
    int fd = p->crash.path[0] != '\0' ? file_open(p->crash.path) : -1;
    if (fd < 0)
        return;
    p->crash.writer = naming_to(p, what, fd);
    if (p->crash.writer < 0)
        p->crash.writer = 0;
    close(fd);
}

/* The report as the program left it; copied, since it may still be writing. */
static void report_copy(const struct process *p, struct report_text *t)
{
    uint32_t len = atomic_load_explicit(&p->region->report_len, memory_order_acquire);
    if (len > p->size.report)
        len = p->size.report;
    report_text_bytes(t, stile__region_report(p->region, p->size), len);
}

static struct naming naming_of(const struct report_text *t)
{
    return (struct naming){
        .text = t->bytes, .n = t->n, .first = STILE__REPORT_NAMES, .last = STILE__REPORT_NAMED};
}

static void names_give(struct process *p)
{
    struct report_text t = {0};
    report_copy(p, &t);
    const struct naming what = naming_of(&t);
    p->crash.named = true;
    naming_answer(p, &what, STILE__ANSWER_CRASH);
    report_text_free(&t);
}

static bool ends_with(const struct report_text *t, const char *end)
{
    size_t n = strlen(end);
    return t->n >= n && memcmp(t->bytes + t->n - n, end, n) == 0;
}

/* What a program that died while it reported had not written any more. */
static void rest_write(struct process *p)
{
    struct report_text t = {0};
    uint32_t out = atomic_load_explicit(&p->region->report_out, memory_order_relaxed);

    naming_break(p);
    report_copy(p, &t);
    if (out > t.n)
        out = (uint32_t)t.n;
    if (!ends_with(&t, STILE__REPORT_END)) {
        if (t.n != 0 && !ends_with(&t, "\n"))
            report_text_add(&t, "\n");
        report_text_add(&t, "the program died while it reported: this is all that there is\n%s",
                        STILE__REPORT_END);
    }
    struct naming what = naming_of(&t);
    what.before = t.bytes + out;
    what.n_before = t.n - out;
    file_write(p, &what);
    report_text_free(&t);
}

/* Ends that nobody wishes for, and of which the program may not have been able to tell. */
static bool is_crash(int wait_status)
{
    static const int signals[] = {SIGKILL, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS,
                                  SIGFPE,  SIGSEGV, SIGSYS, SIGXCPU, SIGXFSZ};
    for (size_t i = 0; WIFSIGNALED(wait_status) && i < sizeof signals / sizeof *signals; i++)
        if (WTERMSIG(wait_status) == signals[i])
            return true;
    return false;
}

static const char *name_of(const struct process *p)
{
    for (uint32_t i = 0; i < p->n_threads; i++)
        if (p->threads[i].tid == (uint32_t)p->own_pid && p->threads[i].comm[0] != '\0')
            return p->threads[i].comm;
    return "?";
}

/* A report of our own, of a program that died without a word. */
static void own_write(struct process *p)
{
    int status = p->crash.wait_status;
    char signal_text[STILE__SIGNAL_NAME_MAX], comm[32];
    struct report_text t = {0};

    report_text_clean(comm, sizeof comm, name_of(p));
    report_text_add(&t, "%s%d (%s): %s\n", STILE__REPORT_BEGIN, (int)p->own_pid, comm,
                    stile__signal_name(WTERMSIG(status), signal_text, sizeof signal_text));
    report_text_add(&t, "reporter: the collector; the program itself said nothing\n");
    report_text_add(&t, "end: killed by signal %d%s\n", WTERMSIG(status),
                    WCOREDUMP(status) ? ", core dumped" : "");
    report_text_bytes(&t, p->crash.text, p->crash.n_text);
    report_text_modules(&t, p);
    report_text_add(&t, "%s", STILE__REPORT_END);
    struct naming what = naming_of(&t);
    what.before = t.bytes;
    what.n_before = t.n;
    file_write(p, &what);
    report_text_free(&t);
}

/* The process is gone: what is there to be done about it is done once. */
static void dead_look(struct process *p, bool client)
{
    uint32_t state = state_of(p);
    bool own = state == STILE__CRASH_NONE && p->crash.is_command && wanted(p);

    if (p->state == PROCESS_ACTIVE)
        return; /* its rings come first */
    if (own && !p->crash.end_known && client)
        return; /* how it ended is said in a moment */
    p->crash.closed = true;
    if (state == STILE__CRASH_BEGUN || state == STILE__CRASH_WRITTEN)
        rest_write(p);
    else if (own && p->crash.end_known && is_crash(p->crash.wait_status))
        own_write(p);
}

void crash_round(struct process *p, bool client)
{
    if (p->origin != NULL)
        return;
    naming_answering(p);
    if (p->crash.writer > 0 && waitpid(p->crash.writer, NULL, WNOHANG) != 0)
        p->crash.writer = 0;
    if (!concerned(p))
        return;
    if (process_dead(p))
        dead_look(p, client);
    else if (state_of(p) == STILE__CRASH_WRITTEN && !p->crash.named)
        names_give(p);
}

bool crash_begun(const struct process *p)
{
    return state_of(p) != STILE__CRASH_NONE;
}

bool crash_urgent(const struct process *p)
{
    uint32_t state = p->origin == NULL && !p->crash.closed ? state_of(p) : STILE__CRASH_NONE;
    return state == STILE__CRASH_BEGUN || state == STILE__CRASH_WRITTEN;
}

bool crash_pending(const struct process *p)
{
    return p->origin == NULL && (p->crash.writer > 0 || (concerned(p) && process_dead(p)));
}

void crash_free(struct process *p)
{
    if (p->crash.writer > 0) {
        kill(p->crash.writer, SIGKILL);
        waitpid(p->crash.writer, NULL, 0);
    }
    naming_break(p);
    free(p->crash.text);
}
