/* The tree's profile: folding processes in, and when it is written. Collector, normal context. */
#include "profiler/collector/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "profiler/collector/waits.h"
#include "profiler/collector/writers.h"

#define PLACE_FIRST 0x200000000000ull /* between where programs lie on x86-64 and where their libraries do */
#define CELLS_FIRST 1024u

static struct {
    bool on;
    bool done;  /* the file of the end was asked for */
    bool dirty; /* there is something in it that no file has */
    struct process *process, *list;
    struct tree_command command;
    struct tree_ends *ends;            /* shared with writers */
    uint32_t wanted, started, written; /* files, by number */
    char message[sizeof((struct stile__region *)0)->message];
} state;

void tree_begin(void)
{
    state.on = true;
}

bool tree_is_on(void)
{
    return state.on;
}

const struct process *tree_process(void)
{
    return state.process;
}

bool tree_has(const struct process *p)
{
    return p->files[FILE_CPU].in_tree || p->files[FILE_BLOCK].in_tree;
}

/* --- Its process */

static struct process *process_make(const struct process *first)
{
    struct process *t = calloc(1, sizeof *t);
    struct tree *tree = calloc(1, sizeof *tree);

    state.ends = mmap(NULL, sizeof *state.ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (state.ends == MAP_FAILED || t == NULL || tree == NULL || call_tree_init(&t->tree) != 0)
        goto nothing;
    tree->threads.cells = calloc(CELLS_FIRST, sizeof *tree->threads.cells);
    tree->threads.mask = CELLS_FIRST - 1;
    if (tree->threads.cells == NULL || call_tree_init(&t->waits.tree) != 0)
        goto nothing;
    tree->next_place = PLACE_FIRST;
    t->tree_file = tree;
    t->state = PROCESS_DONE;
    t->pidfd = t->maps_fd = -1;
    t->hz = first->hz;
    t->period_ns = first->period_ns;
    t->start_unix_ns = first->start_unix_ns;
    t->start_mono_ns = first->start_mono_ns;
    t->depth = first->depth;
    t->debug = first->debug;
    t->barriers = first->barriers;
    t->waits.on = first->waits.on;
    t->waits.rate_ns = first->waits.rate_ns;
    t->own_pid = first->own_pid;
    mappings_init(&t->mappings, 0);
    return t;
nothing:
    if (t != NULL)
        call_tree_free(&t->tree);
    if (tree != NULL)
        free(tree->threads.cells);
    free(tree);
    free(t);
    return NULL;
}

void tree_join(struct process *p)
{
    if (!tree_has(p))
        return;
    if (state.process == NULL) {
        state.process = process_make(p);
        if (state.process != NULL)
            memcpy(state.process->command, p->command, sizeof p->command);
    }
    for (int i = 0; i < FILES && state.process != NULL; i++) {
        struct target *t = &state.process->files[i];
        if (!p->files[i].in_tree || t->path[0] != '\0')
            continue;
        memcpy(t->path, p->files[i].path, sizeof t->path);
        t->owns = true;
    }
}

int tree_fold(struct process *p)
{
    return state.process != NULL ? tree_fold_into(state.process, p) : -ENOMEM;
}

/* --- Its file */

void tree_complete(void)
{
    for (const struct process *p = state.list; p != NULL; p = p->next)
        if (p->state == PROCESS_ACTIVE && tree_has(p)) {
            struct process live = *p; /* this process's memory is a copy that ends with the file */
            tree_fold(&live);
        }
    struct process *t = state.process;
    if (t->files[FILE_CPU].path[0] == '\0')
        return;
    uint64_t cpu_ns = t->cpu_ns, ends_ns = t->reason_ns[STILE__REASON_EXEC_AND_EXIT];
    uint64_t unprofiled_ns = tree_ends_book(t, &state.command);
    *state.ends = (struct tree_ends){(int64_t)(t->cpu_ns - cpu_ns),
                                     t->reason_ns[STILE__REASON_EXEC_AND_EXIT] - ends_ns, unprofiled_ns};
}

void tree_command_ended(const struct tree_command *command)
{
    state.command = *command;
}

unsigned tree_running(const struct process *list)
{
    unsigned n = 0;
    for (const struct process *p = list; p != NULL; p = p->next)
        n += p->state == PROCESS_ACTIVE && tree_has(p);
    return n;
}

void tree_start_due(struct process *p)
{
    if (p->state == PROCESS_ENDED) {
        state.dirty = true;
        if (tree_fold(p) != 0 && state.process != NULL)
            state.process->damage = "the collector had no memory for all of it";
        p->state = PROCESS_WRITING;
        if (atomic_load_explicit(&p->region->finish_request, memory_order_relaxed) != 0)
            p->tree_write = ++state.wanted; /* it waits for its file */
        else
            p->tree_write = 0;
    } else if (p->state == PROCESS_ACTIVE && p->flush_wanted != p->flush_writing) {
        p->flush_writing = p->flush_wanted;
        p->tree_write = ++state.wanted;
    }
}

/* Whoever waits for a file that is there now. */
static void answer(struct process *p)
{
    if (!tree_has(p) || (int32_t)(state.written - p->tree_write) < 0)
        return;
    if (p->state == PROCESS_WRITING) {
        process_answer_finish(p, p->tree_write != 0 && state.message[0] != '\0', state.message);
        p->state = PROCESS_DONE;
    } else if (p->state == PROCESS_ACTIVE && p->tree_write != 0) {
        process_answer_flush(p, p->flush_writing, state.message);
    }
    p->tree_write = 0;
}

static void write_start(struct process *list)
{
    for (struct process *p = list; p != NULL; p = p->next)
        if (p->state == PROCESS_ACTIVE && p->damage == NULL && tree_has(p))
            waits_look(p, true);
    state.list = list;
    state.process->state = PROCESS_ENDED;
    state.process->writer_tries = 0;
    state.process->writer_unnamed = false;
    state.started = state.wanted;
    state.dirty = false;
    writer_start_due(state.process);
}

/* What became of the file. */
static void written_take(struct process *t)
{
    state.written = state.started;
    state.message[0] = '\0';
    process_files_trouble(t, state.message, sizeof state.message);
}

void tree_round(struct process *list, bool done)
{
    struct process *t = state.process;
    int error = 0;

    if (t == NULL)
        return;
    if (t->state == PROCESS_ENDED) /* no writer could be had yet */
        writer_start_due(t);
    if (t->state == PROCESS_WRITING && writer_check(t, &error))
        written_take(t);
    for (struct process *p = list; p != NULL; p = p->next)
        answer(p);
    if (t->state != PROCESS_DONE)
        return;
    if (done && (!state.done || (state.dirty && tree_running(list) == 0))) {
        state.wanted++;
        state.done = true;
    }
    if (state.wanted != state.started)
        write_start(list);
}

bool tree_written(void)
{
    const struct process *t = state.process;
    return t == NULL || (state.done && t->state == PROCESS_DONE && state.wanted == state.written);
}

bool tree_idle(void)
{
    return state.process == NULL || (tree_written() && !state.dirty);
}

void tree_status(struct stile__status *s)
{
    const struct process *t = state.process;
    s->merged = t->tree_file->n_processes;
    s->files += t->files[FILE_CPU].wrote;
    s->block_files += t->files[FILE_BLOCK].wrote;
    process_clock_describe(t, s->clock, sizeof s->clock);
    s->cpu_ns += (uint64_t)state.ends->cpu_ns;
    s->bracketed_ns[STILE__REASON_EXEC_AND_EXIT] += state.ends->ends_ns;
    s->unprofiled_ns = state.ends->unprofiled_ns;
    for (int i = 0; i < FILES; i++)
        s->failed += t->files[i].error != 0;
    for (int i = 0; i < FILES; i++)
        s->lines_late += t->files[i].lines_late;
    s->error = process_files_trouble(t, s->message, sizeof s->message);
}
