/* All stacks of a live program. Collector, normal context. */
#include "profiler/collector/dump.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/crash.h"
#include "profiler/collector/naming.h"
#include "profiler/region/signal_name.h"

#define FREEZE_NS   500000000u /* at most */
#define SIGNAL_NS   10000000u  /* between two signals: one may be lost */
#define CALM_ROUNDS 3u         /* looks at which a thread was blocked: it is not just on its way */
#define THREADS_MAX 20000u     /* that are told of */

/* One slot's thread. */
struct dump_thread {
    uint32_t thread, generation, tid;
    bool there, done, signalled;
    unsigned calm;
    char state; /* when it was last looked at, */
    char asked; /* and when it was first signalled */
    struct report_text text;
};

struct dump {
    uint32_t n;       /* value of `freezing` */
    uint32_t request; /* of the program; only if client is -1 */
    int client, out;  /* descriptors */
    bool interrupt;
    bool thawed;
    uint64_t begin_ns, signal_ns;
    struct dump_thread *threads; /* by slot; owned */
    uint32_t n_slots, n_threads, shown;
    pid_t writer;
};

static void told_send(int client, int error, const struct dump *d, const char *message)
{
    struct stile__dump_told told = {.error = error};
    if (d != NULL) {
        told.threads = d->n_threads;
        told.shown = d->shown;
    }
    snprintf(told.message, sizeof told.message, "%s", message != NULL ? message : "");
    send(client, &told, sizeof told, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(client);
}

static void thaw(struct process *p, struct dump *d)
{
    uint32_t n = d->n;
    if (d->thawed)
        return;
    d->thawed = true;
    atomic_compare_exchange_strong_explicit(&p->region->freezing, &n, 0, memory_order_seq_cst,
                                            memory_order_relaxed);
}

/* The end of a dump: error is told, or 0. */
static void dump_end(struct process *p, int error, const char *message)
{
    struct dump *d = p->dump;
    thaw(p, d);
    if (d->client >= 0)
        told_send(d->client, error, d, message);
    else if (error != 0)
        naming_refuse(p, stile__answer_of(d->request));
    else
        p->dump_own.tid = 0;
    if (d->out >= 0)
        close(d->out);
    for (uint32_t i = 0; i < d->n_slots; i++)
        report_text_free(&d->threads[i].text);
    free(d->threads);
    free(d);
    p->dump = NULL;
}

static void threads_list(struct process *p, struct dump *d)
{
    for (uint32_t i = 0; i < d->n_slots; i++) {
        const struct stile__slot *slot = stile__region_slot(p->region, i);
        struct dump_thread *t = &d->threads[i];
        if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
            (t->thread = process_thread_of(p, i)) == UINT32_MAX)
            continue;
        t->there = true;
        t->generation = atomic_load_explicit(&slot->generation, memory_order_relaxed);
        t->tid = p->threads[t->thread].tid;
    }
}

/* Stops the world. NULL, or why it cannot be; then the descriptors are the caller's still. */
static const char *begin(struct process *p, int client, int out, bool interrupt)
{
    uint32_t none = 0, used = atomic_load_explicit(&p->region->slots_used, memory_order_acquire);
    if (p->dump != NULL)
        return "another dump of it is under way";
    if (p->damage != NULL || used > p->size.slot_max)
        return "its region is damaged";
    struct dump *d = calloc(1, sizeof *d);
    if (d != NULL)
        d->threads = calloc(used + 1, sizeof *d->threads);
    if (d == NULL || d->threads == NULL) {
        free(d);
        return "the collector has no memory";
    }
    p->dumps = p->dumps < UINT32_MAX - STILE__FREEZE_DUMP ? p->dumps + 1 : 0;
    *d = (struct dump){.n = STILE__FREEZE_DUMP + p->dumps,
                       .client = client,
                       .out = out,
                       .interrupt = interrupt,
                       .threads = d->threads,
                       .n_slots = used};
    if (!atomic_compare_exchange_strong_explicit(&p->region->freezing, &none, d->n, memory_order_seq_cst,
                                                 memory_order_relaxed)) {
        free(d->threads);
        free(d);
        return none == STILE__FREEZE_CRASH ? "it is crashing" : "it is stopped already";
    }
    d->begin_ns = now_mono_ns();
    p->dump = d;
    threads_list(p, d);
    return NULL;
}

void dump_ask(struct process *list, const struct stile__dump_ask *ask, int client, int out)
{
    struct process *p = list;
    while (p != NULL && (p->origin != NULL || p->pid != ask->pid || p->state != PROCESS_ACTIVE))
        p = p->next;
    const char *why = p != NULL ? begin(p, client, out, ask->interrupt != 0) : NULL;
    if (p != NULL && why == NULL)
        return;
    told_send(client, p == NULL ? -ESRCH : -EBUSY, NULL, why);
    close(out);
}

/* Whether threads may be signalled: the agent's handler stands, and nobody else's. */
static bool may_signal(const struct process *p)
{
    return p->signal != 0 && atomic_load_explicit(&p->region->signal_taken, memory_order_relaxed) == 0;
}

static const char *name_of(const struct process *p, const struct dump_thread *t)
{
    return p->threads[t->thread].comm;
}

/* Nothing can be had from a thread itself, or not in time. */
static void unasked_show(struct process *p, struct dump_thread *t, bool late)
{
    char name[STILE__SIGNAL_NAME_MAX];
    t->done = true;
    if (t->state != 'R' && t->state != '\0') {
        dump_look_blocked(p, t->tid, name_of(p, t), t->state,
                          t->signalled ? ", and did not answer"
                          : t->state == 'T' || t->state == 't'
                              ? ", stopped"
                              : ", where no hook stands; --interrupt signals it",
                          &t->text);
        return;
    }
    report_text_thread(&t->text, t->tid, name_of(p, t));
    if (late)
        report_text_add(&t->text, "running, and did not answer:\n");
    else if (atomic_load_explicit(&p->region->signal_taken, memory_order_relaxed) != 0)
        report_text_add(&t->text, "running, and cannot be asked: the program handles %s itself:\n",
                        stile__signal_name(p->signal, name, sizeof name));
    else if (may_signal(p))
        report_text_add(&t->text, "running; --interrupt asks it by a signal:\n");
    else
        report_text_add(&t->text, "running, and cannot be asked:\n");
    report_text_add(&t->text, "  (its stack is not known)\n");
}

/* The thread that asked has given its stack beforehand. */
static bool asker_show(struct process *p, struct dump *d, struct dump_thread *t)
{
    if (d->client >= 0 || t->tid != atomic_load_explicit(&p->region->dump_tid, memory_order_relaxed))
        return false;
    t->done = true;
    if (p->dump_own.tid == t->tid) {
        report_text_bytes(&t->text, p->dump_own.text, p->dump_own.n);
        d->shown++;
        return true;
    }
    report_text_thread(&t->text, t->tid, name_of(p, t));
    report_text_add(&t->text, "asked for this dump:\n  (its stack is not known)\n");
    return true;
}

/* A thread that runs, by its word. Who has his processor this moment may be on the way into a call that a signal breaks off. Where
 * threads say so before each such call, and look whether the world is stopped then, a signal meets none; elsewhere the ticks of the
 * clocks do, which come where they break off nothing. */
static void running_look(struct process *p, struct dump *d, struct dump_thread *t, bool signals)
{
    if (p->own_pid != p->pid) { /* it has other numbers for its threads than we have */
        unasked_show(p, t, false);
        return;
    }
    t->state = dump_task_state(p, t->tid);
    if (t->state == '\0' || t->state == 'Z' || t->state == 'X') {
        t->there = false;
        return;
    }
    bool runs = t->state == 'R', ask = runs || (d->interrupt && t->state != 'T' && t->state != 't');
    if (ask && (!may_signal(p) || (!d->interrupt && !p->ticks_wanted && !p->waits_told))) {
        unasked_show(p, t, false);
    } else if (ask && !d->interrupt && !p->waits_told) {
        t->calm = 0; /* its next tick answers */
    } else if (ask) {
        t->calm = 0;
        if (!t->signalled)
            t->asked = t->state;
        t->signalled = true;
        if (signals)
            syscall(SYS_tgkill, p->pid, (pid_t)t->tid, p->signal);
    } else if (!t->signalled && ++t->calm >= CALM_ROUNDS) {
        unasked_show(p, t, false);
    }
}

static void thread_look(struct process *p, struct dump *d, uint32_t i, bool signals)
{
    const struct stile__slot *slot = stile__region_slot(p->region, i);
    struct dump_thread *t = &d->threads[i];

    if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
        atomic_load_explicit(&slot->generation, memory_order_relaxed) != t->generation) {
        t->there = false;
        return;
    }
    if (asker_show(p, d, t))
        return;
    switch (dump_look_left(p, i, t->thread, &t->text)) {
    case DUMP_SHOWN:
        t->done = true;
        d->shown++;
        break;
    case DUMP_RUNNING:
        running_look(p, d, t, signals);
        break;
    case DUMP_GONE:
        t->there = false;
        break;
    case DUMP_AGAIN:
        break;
    }
}

void dump_record_take(struct process *p, uint32_t i, uint32_t thread, const struct stile__record *r)
{
    struct report_text none = {0};
    struct dump *d = p->dump;
    struct dump_thread *t =
        d != NULL && !d->thawed && r->piece == d->n && i < d->n_slots ? &d->threads[i] : NULL;

    if (r->piece == 0) { /* before the request */
        struct report_text own = {0};
        dump_look_record(p, thread, r, "asked for this dump", &own);
        free(p->dump_own.text);
        p->dump_own.text = own.bytes;
        p->dump_own.n = own.n;
        p->dump_own.tid = p->threads[thread].tid;
        return;
    }
    if (t == NULL || !t->there || t->done || p->threads[thread].generation != t->generation) {
        dump_look_record(p, thread, r, "late", &none); /* its blocks */
        report_text_free(&none);
        return;
    }
    dump_look_record(p, thread, r,
                     t->asked == 'R' || t->asked == '\0' ? "running" : "blocked, and interrupted", &t->text);
    t->done = true;
    d->shown++;
}

/* Threads that have no slot: the kernel knows them. */
static void strangers_show(const struct process *p, struct dump *d, struct report_text *t)
{
    char path[64], name[32];
    struct dirent *e;
    snprintf(path, sizeof path, "/proc/%d/task", (int)p->pid);
    DIR *dir = p->own_pid == p->pid ? opendir(path) : NULL; /* else it has other numbers for them */
    while (dir != NULL && (e = readdir(dir)) != NULL && d->n_threads < THREADS_MAX) {
        uint32_t tid = (uint32_t)strtoul(e->d_name, NULL, 10), i = 0;
        while (i < d->n_slots && (!d->threads[i].there || d->threads[i].tid != tid))
            i++;
        char state = tid != 0 && i == d->n_slots ? dump_task_state(p, tid) : '\0';
        if (state == '\0' || state == 'Z' || state == 'X')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%u/comm", (int)p->pid, tid);
        FILE *f = fopen(path, "re");
        name[0] = '\0';
        if (f != NULL && fgets(name, sizeof name, f) != NULL)
            name[strcspn(name, "\n")] = '\0';
        if (f != NULL)
            fclose(f);
        report_text_thread(t, tid, name);
        report_text_add(t, "not watched by Stile (%c):\n  (its stack is not known)\n", state);
        d->n_threads++;
    }
    if (dir != NULL)
        closedir(dir);
}

static void head_write(const struct process *p, const struct dump *d, char *to, size_t size)
{
    char path[64], name[32] = "", clean[32];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)p->pid);
    FILE *f = fopen(path, "re");
    if (f != NULL && fgets(name, sizeof name, f) != NULL)
        name[strcspn(name, "\n")] = '\0';
    if (f != NULL)
        fclose(f);
    report_text_clean(clean, sizeof clean, name);
    snprintf(to, size, "%s%d (%s): %u thread%s\n", STILE__DUMP_BEGIN, (int)p->pid, clean, d->n_threads,
             d->n_threads == 1 ? "" : "s");
}

/* Whether there is nothing to be shown, since the program uses our signal. */
static bool nothing_shown(const struct process *p, const struct dump *d)
{
    return d->client >= 0 && d->shown == 0 &&
           atomic_load_explicit(&p->region->signal_taken, memory_order_relaxed) != 0;
}

/* The program runs on; what there is goes to be named. */
static void collected(struct process *p, struct dump *d)
{
    struct report_text t = {0};
    char head[160];

    if (nothing_shown(p, d)) {
        char name[STILE__SIGNAL_NAME_MAX], text[160];
        snprintf(text, sizeof text, "it handles %s itself, and no thread of it waits where Stile sees it",
                 stile__signal_name(p->signal, name, sizeof name));
        dump_end(p, -EOPNOTSUPP, text);
        return;
    }

    for (uint32_t i = 0; i < d->n_slots; i++)
        if (d->threads[i].there && !d->threads[i].done)
            unasked_show(p, &d->threads[i], true);
    thaw(p, d);
    for (uint32_t i = 0; i < d->n_slots; i++)
        if (d->threads[i].there) {
            d->n_threads++;
            report_text_bytes(&t, d->threads[i].text.bytes, d->threads[i].text.n);
        }
    strangers_show(p, d, &t);
    report_text_modules(&t, p);
    head_write(p, d, head, sizeof head);
    const struct naming what = {.text = t.bytes, .n = t.n, .first = head, .last = STILE__DUMP_END};
    if (d->client < 0)
        naming_answer(p, &what, stile__answer_of(d->request));
    else
        d->writer = naming_to(p, &what, d->out);
    report_text_free(&t);
    if (d->client < 0)
        dump_end(p, 0, NULL);
    else if (d->writer < 0)
        dump_end(p, -EAGAIN, "the collector cannot start a process");
}

static void frozen_look(struct process *p, struct dump *d)
{
    uint64_t now = now_mono_ns();
    bool signals = now >= d->signal_ns, all = true;

    const uint32_t freezing = atomic_load_explicit(&p->region->freezing, memory_order_seq_cst);
    if (freezing != d->n) {
        dump_end(p, -EBUSY, freezing == STILE__FREEZE_CRASH ? "it is crashing" : "it runs on already");
        return;
    }
    if (signals)
        d->signal_ns = now + SIGNAL_NS;
    for (uint32_t i = 0; i < d->n_slots && p->damage == NULL; i++) {
        struct dump_thread *t = &d->threads[i];
        if (t->there && !t->done)
            thread_look(p, d, i, signals);
        all = all && (!t->there || t->done);
    }
    if (p->damage != NULL)
        dump_end(p, -EIO, p->damage);
    else if (all || now - d->begin_ns > FREEZE_NS)
        collected(p, d);
}

/* What the program asks for itself. */
static void request_look(struct process *p)
{
    uint32_t request = atomic_load_explicit(&p->region->dump_request, memory_order_acquire);
    if (request == p->dumped || p->dump != NULL)
        return;
    p->dumped = request;
    if (p->size.report == 0 || crash_begun(p))
        return;
    if (p->state == PROCESS_ACTIVE)
        process_drain(p); /* who asks has left its stack before */
    if (p->state != PROCESS_ACTIVE || begin(p, -1, -1, false) != NULL)
        naming_refuse(p, stile__answer_of(request));
    else
        p->dump->request = request;
}

void dump_round(struct process *p)
{
    if (p->origin != NULL)
        return;
    request_look(p);
    struct dump *d = p->dump;
    if (d == NULL)
        return;
    if (!d->thawed)
        frozen_look(p, d);
    else if (d->writer > 0 && waitpid(d->writer, NULL, WNOHANG) != 0)
        dump_end(p, 0, NULL);
}

bool dump_urgent(const struct process *p)
{
    return p->dump != NULL && !p->dump->thawed;
}

bool dump_pending(const struct process *p)
{
    return p->dump != NULL;
}

void dump_thaw(struct process *p, const char *why)
{
    if (p->dump != NULL && !p->dump->thawed)
        dump_end(p, -ESRCH, why);
}

void dump_free(struct process *p)
{
    if (p->dump != NULL && p->dump->writer > 0) {
        kill(p->dump->writer, SIGKILL);
        waitpid(p->dump->writer, NULL, 0);
    }
    if (p->dump != NULL)
        dump_end(p, -ESRCH, "it has ended");
    free(p->dump_own.text);
}
