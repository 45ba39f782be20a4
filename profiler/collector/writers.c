/* Forks the process that writes a file: the collector's memory as it is then, while the collector drains on.
 * Collector, normal context. */
#include "profiler/collector/writers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/block_write.h"
#include "profiler/collector/look_up.h"
#include "profiler/collector/profile_write.h"
#include "profiler/collector/tree.h"

#define BATCH_MAX   64u /* files that one writer writes, sharing what it has looked up */
#define WRITERS_MAX 2u  /* at once: the program wants its processors, too */
#define NAMES_NS                                                                                             \
    1750000000ull /* for looking names up: a file comes without those that take longer, within two seconds */
#define WRITER_NS_MAX                                                                                        \
    60000000000ull /* a writer that is still looking for names then is ended and goes without */

static unsigned running;

/* One writer process and what it has to write. The results are shared memory: 0, or 1 + errno once a file is done.
 * Freed when the writer has been reaped and every member has looked. */
struct batch {
    pid_t pid;
    bool reaped;
    unsigned members;
    _Atomic int results[BATCH_MAX][FILES];
    uint32_t lines_late[BATCH_MAX][FILES]; /* written before the result: see struct target */
};

/* Where there is no memory for another one: no fork can tell through it, so it is for what is written here. One at a time. */
static struct batch spare;

unsigned writers_running(void)
{
    return running;
}

static bool any_due(const struct process *p)
{
    return process_file_due(p, FILE_CPU) || process_file_due(p, FILE_BLOCK);
}

static bool awaited(const struct process *p)
{
    return p->origin == NULL && p->region != NULL &&
           atomic_load_explicit(&p->region->finish_request, memory_order_relaxed) != 0;
}

/* A flush of what a piece was cut from writes to the same name: it has to be there first. And a process is not done
 * before its pieces are. */
static bool must_wait(const struct process *p)
{
    if (p->origin != NULL)
        return p->origin->writer != 0 && !p->origin->writer_final;
    return !any_due(p) && p->pieces_open != 0;
}

#define NOT_DUE (-1) /* as a result */

/* The files of one member that are due; a flush has all that are wanted. A result for each. */
static void files_write(const struct process *p, bool named, _Atomic int *results, uint32_t *lines_late)
{
    static int (*const write_out[FILES])(const struct process *, const char *,
                                         bool) = {[FILE_CPU] = profile_write, [FILE_BLOCK] = block_write};
    for (int k = 0; k < FILES; k++) {
        bool due = p->writer_final ? process_file_due(p, k) : p->files[k].path[0] != '\0';
        uint32_t late = look_up_lines_late();
        int result = due ? 1 - write_out[k](p, p->files[k].path, named) : NOT_DUE;
        lines_late[k] = look_up_lines_late() - late;
        atomic_store_explicit(&results[k], result,
                              memory_order_release); /* pairs with results_there's load */
    }
}

static void writer_main(struct process **members, unsigned n, struct batch *b)
{
    look_up_until(now_mono_ns() + NAMES_NS);
    if (members[0]->tree_file != NULL)
        tree_complete();
    for (unsigned i = 0; i < n; i++)
        files_write(members[i], !members[i]->writer_unnamed, b->results[i], b->lines_late[i]);
    _exit(0);
}

/* No process to be had: written here without names, or the profiles are lost. */
static void write_here(struct process **members, unsigned n, struct batch *b)
{
    for (unsigned i = 0; i < n; i++)
        files_write(members[i], false, b->results[i], b->lines_late[i]);
    b->reaped = true;
}

static void writer_fork(struct process **members, unsigned n, bool final)
{
    struct batch *b =
        mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* zeroed */
    bool alone = b == MAP_FAILED;
    if (alone && spare.members != 0)
        return; /* tried again in the next round */
    if (alone) {
        b = &spare;
        memset(b, 0, sizeof *b);
    }
    b->members = n;
    for (unsigned i = 0; i < n; i++) {
        struct process *p = members[i];
        p->batch = b;
        p->batch_index = i;
        p->writer_final = final;
        p->writer_since_ns = now_mono_ns();
        if (final)
            p->state = PROCESS_WRITING;
        else
            p->flush_writing = p->flush_wanted;
    }
    pid_t pid = alone ? -1 : fork();
    if (pid == 0)
        writer_main(members, n, b);
    b->pid = pid; /* by the collector only: this memory is the writer's, too */
    if (pid < 0)
        write_here(members, n, b);
    else
        running++;
    for (unsigned i = 0; i < n; i++)
        members[i]->writer = pid;
}

void writer_start_due(struct process *p)
{
    /* Somebody waits for the file of a process that asked for it: that one goes first. */
    if (tree_has(p)) {
        tree_start_due(p);
        return;
    }
    if (p->writer != 0 || must_wait(p) || (running >= WRITERS_MAX && !awaited(p)))
        return;
    if (p->state == PROCESS_ENDED && !any_due(p)) {
        process_answer_finish(p, p->trouble != NULL, p->trouble);
        p->state = PROCESS_DONE;
    } else if (p->state == PROCESS_ENDED) {
        writer_fork(&p, 1, true);
    } else if (p->state == PROCESS_ACTIVE && p->flush_wanted != p->flush_writing) {
        writer_fork(&p, 1, false);
    }
}

void writers_start_due(struct process *list)
{
    struct process *members[BATCH_MAX];
    unsigned n = 0;

    for (struct process *p = list; p != NULL; p = p->next)
        if (awaited(p) || p->state == PROCESS_ACTIVE || !any_due(p) || p->writer_tries != 0)
            writer_start_due(p);
    if (running >= WRITERS_MAX)
        return;
    for (struct process *p = list; p != NULL && n < BATCH_MAX; p = p->next)
        if (p->state == PROCESS_ENDED && !tree_has(p) && p->writer == 0 && p->writer_tries == 0 &&
            !must_wait(p))
            members[n++] = p;
    if (n != 0)
        writer_fork(members, n, true);
}

static void batch_reap(struct batch *b)
{
    int status;
    if (!b->reaped && waitpid(b->pid, &status, WNOHANG) == b->pid) {
        b->reaped = true;
        running--;
    }
}

static void batch_leave(struct process *p)
{
    struct batch *b = p->batch;
    p->batch = NULL;
    p->writer = 0;
    if (--b->members != 0)
        return;
    /* The last one's result may be there a moment before the end of the process. */
    if (!b->reaped) {
        waitpid(b->pid, NULL, 0);
        running--;
    }
    if (b != &spare)
        munmap(b, sizeof *b);
}

/* The writer ended before this file was done: of a broken debug file, perhaps, so it is tried alone, and then without
 * names. */
static void writer_again(struct process *p)
{
    bool final = p->writer_final, alone = p->batch->members == 1 || p->writer_tries != 0;
    batch_leave(p);
    p->writer_tries++;
    p->writer_unnamed = alone;
    if (final)
        p->state = PROCESS_ENDED;
    else
        p->flush_writing = p->flush_wanted - 1;
    writer_start_due(p);
}

/* Whether all files of a member are done. */
static bool results_there(struct process *p)
{
    for (int k = 0; k < FILES; k++)
        if (atomic_load_explicit(&p->batch->results[p->batch_index][k], memory_order_acquire) == 0)
            return false;
    return true;
}

/* What became of the files; a line about the first that could not be written. Returns its
 * error. */
static int results_take(struct process *p, char *message, size_t size)
{
    int first = 0;
    for (int k = 0; k < FILES; k++) {
        struct target *t = &p->files[k];
        int result = atomic_load_explicit(&p->batch->results[p->batch_index][k], memory_order_acquire);
        t->error = 0;
        if (result == NOT_DUE || t->path[0] == '\0')
            continue;
        t->error = result != 0 ? 1 - result : -EIO;
        t->lines_late = result != 0 ? p->batch->lines_late[p->batch_index][k] : 0;
        t->wrote = t->wrote || t->error == 0;
        if (t->error == 0 || first != 0)
            continue;
        first = t->error;
        snprintf(message, size, "cannot write %s: %s", t->path, strerror(-t->error));
    }
    return first;
}

bool writer_check(struct process *p, int *error)
{
    struct batch *b = p->batch;
    char message[PATH_MAX + 128] = "";

    if (b == NULL)
        return false;
    batch_reap(b);
    bool done = results_there(p);
    if (!done && b->reaped && p->writer_tries < 3) {
        writer_again(p);
        return false;
    }
    if (!done && !b->reaped) {
        if (now_mono_ns() - p->writer_since_ns > WRITER_NS_MAX)
            kill(b->pid, SIGKILL);
        return false;
    }
    if (p->writer_final && p->pieces_open != 0)
        return false; /* who waits for the file waits for all of them */
    int err = results_take(p, message, sizeof message);
    if (p->origin != NULL && err != 0 && p->origin->trouble == NULL)
        p->origin->trouble = strdup(message);
    if (p->origin == NULL && p->writer_final && err == 0 && p->trouble != NULL)
        snprintf(message, sizeof message, "%s", p->trouble);
    if (p->writer_final) {
        if (p->origin == NULL)
            process_answer_finish(p, message[0] != '\0', message);
        p->state = PROCESS_DONE;
        *error = err;
    } else {
        process_answer_flush(p, p->flush_writing, message);
    }
    batch_leave(p); /* waits for the writer, which may have much memory to give back: the program does not */
    return p->writer_final;
}
