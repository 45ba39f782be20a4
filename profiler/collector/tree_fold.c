/* Folding a process into the tree's profile. Collector, normal context. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/collector/tree.h"

#define PAGE_SIZE 4096u

/* Room for one more in an array. */
static bool room(void **array, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap != 0 ? *cap * 2 : 64;
    void *bigger = realloc(*array, more * size);
    if (bigger == NULL)
        return false;
    *array = bigger;
    *cap = more;
    return true;
}

/* The image in the tree, as its index; UINT32_MAX without memory. */
static uint32_t member_add(struct tree *tree, const struct process *p)
{
    if (!room((void **)&tree->members, tree->n_members, &tree->cap_members, sizeof *tree->members))
        return UINT32_MAX;
    struct tree_member *m = &tree->members[tree->n_members];
    m->owner = perf_map_owner(p);
    m->owner.pidfd = -1;
    tree->n_processes += !p->follows;
    process_comm(p, m->comm);
    m->parent_pid = p->parent_pid;
    m->birth_ns = p->birth_ns;
    m->end_ns = p->end_mono_ns != 0 ? p->end_mono_ns : now_mono_ns();
    m->booked_ns = p->cpu_ns;
    m->children_ns = atomic_load_explicit(&p->region->children_cpu_ns, memory_order_relaxed);
    m->tells = m->children_ns != 0;
    return tree->n_members++;
}

/* --- Threads */

static uint64_t text_hash(uint64_t h, const char *text)
{
    while (*text != '\0') /* FNV-1a (Fowler, Noll, Vo) */
        h = (h ^ (unsigned char)*text++) * 0x100000001b3ull;
    return h;
}

static uint32_t thread_hash(const struct process *t, const struct thread_seen *s)
{
    const struct tree_member *m = &t->tree_file->members[s->member];
    uint64_t h = text_hash(text_hash(0xcbf29ce484222325ull ^ s->tid, s->comm), m->comm) ^
                 (uint64_t)m->owner.own_pid << 16;
    return (uint32_t)(h ^ h >> 32);
}

/* Whether labels say the same of both. */
static bool thread_same(const struct tree *tree, const struct thread_seen *a, const struct thread_seen *b)
{
    const struct tree_member *ma = &tree->members[a->member], *mb = &tree->members[b->member];
    return a->tid == b->tid && ma->owner.own_pid == mb->owner.own_pid && strcmp(a->comm, b->comm) == 0 &&
           strcmp(ma->comm, mb->comm) == 0;
}

static bool threads_grow(struct process *t)
{
    struct call_index *index = &t->tree_file->threads;
    uint32_t cells = (index->mask + 1) * 2;
    if (t->n_threads < (index->mask + 1) / 2)
        return true;
    uint32_t *fresh = calloc(cells, sizeof *fresh);
    if (fresh == NULL)
        return false;
    for (uint32_t i = 0; i < t->n_threads; i++) {
        uint32_t at = thread_hash(t, &t->threads[i]) & (cells - 1);
        while (fresh[at] != 0)
            at = (at + 1) & (cells - 1);
        fresh[at] = i + 1;
    }
    free(index->cells);
    *index = (struct call_index){fresh, cells - 1};
    return true;
}

/* The thread of the tree that has these labels, as an index; UINT32_MAX without memory. */
static uint32_t thread_add(struct process *t, const struct thread_seen *from, uint32_t member)
{
    struct thread_seen want = {.tid = from->tid, .member = member, .clocked = from->clocked};
    memcpy(want.comm, from->comm, sizeof want.comm);
    if (!threads_grow(t) || !room((void **)&t->threads, t->n_threads, &t->cap_threads, sizeof *t->threads))
        return UINT32_MAX;
    struct call_index *index = &t->tree_file->threads;
    uint32_t at = thread_hash(t, &want) & index->mask;
    for (; index->cells[at] != 0; at = (at + 1) & index->mask) {
        struct thread_seen *have = &t->threads[index->cells[at] - 1];
        if (thread_same(t->tree_file, have, &want)) {
            have->clocked = have->clocked && want.clocked;
            return index->cells[at] - 1;
        }
    }
    t->threads[t->n_threads] = want;
    index->cells[at] = ++t->n_threads;
    return t->n_threads - 1;
}

/* --- Mappings */

static bool is_free(const struct mapping_table *t, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < t->n_all; i++)
        if (start < t->all[i].end && t->all[i].start < end)
            return false;
    return true;
}

/* The same part of the same file: what lies in it has the same names in all processes. */
static bool mapping_same(const struct mapping *a, const struct mapping *b)
{
    return a->module == b->module && a->offset == b->offset && a->end - a->start == b->end - b->start &&
           a->ino == b->ino && a->dev == b->dev && strcmp(a->path, b->path) == 0;
}

/* A mapping of a member in the tree, as an index; MAPPING_NONE without memory. */
static uint32_t mapping_fold(struct process *t, const struct mapping *m, uint32_t member)
{
    struct tree *tree = t->tree_file;
    struct mapping_table *table = &t->mappings;
    bool shared = m->module != NULL && m->module->elf.n_segments != 0;

    for (uint32_t k = 0; shared && k < tree->n_shared; k++)
        if (mapping_same(&table->all[tree->shared[k]], m))
            return tree->shared[k];
    if (!room((void **)&table->all, table->n_all, &table->cap_all, sizeof *table->all) ||
        !room((void **)&tree->shared, tree->n_shared, &tree->cap_shared, sizeof *tree->shared))
        return MAPPING_NONE;
    struct mapping fresh = *m;
    fresh.path = strdup(m->path);
    if (fresh.path == NULL)
        return MAPPING_NONE;
    if (!is_free(table, m->start, m->end)) {
        fresh.start = tree->next_place;
        fresh.end = fresh.start + (m->end - m->start);
        tree->next_place = ((fresh.end + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1)) + PAGE_SIZE;
    }
    fresh.moved = fresh.start - m->start;
    fresh.bias += fresh.moved;
    fresh.image_start += fresh.moved;
    fresh.image_end += fresh.moved;
    fresh.member = member;
    if (fresh.module != NULL)
        fresh.module->users++;
    table->all[table->n_all] = fresh;
    if (shared)
        tree->shared[tree->n_shared++] = table->n_all;
    return table->n_all++;
}

/* --- Call trees */

/* What a process's numbers are in the tree. */
struct fold {
    const struct process *from;
    struct process *to;
    uint32_t member;
    uint32_t *mappings; /* 1 + index, 0: not asked yet */
    uint32_t *threads;  /* the same */
};

static uint32_t mapping_of(struct fold *f, uint32_t mapping)
{
    if (f->mappings[mapping] == 0)
        f->mappings[mapping] =
            mapping_fold(f->to, &f->from->mappings.all[mapping], f->member) + 1; /* MAPPING_NONE: again */
    return f->mappings[mapping] - 1;
}

static uint32_t node_fold(struct fold *f, struct call_tree *to, const struct call_node *n, uint32_t parent)
{
    if (n->mapping >= f->from->mappings.n_all) /* of none, or not a place */
        return call_tree_child(to, parent, n->mapping, n->address);
    uint32_t mapping = mapping_of(f, n->mapping);
    if (mapping == MAPPING_NONE)
        return call_tree_child(to, parent, MAPPING_NONE, n->address);
    uint64_t moved = f->to->mappings.all[mapping].start - f->from->mappings.all[n->mapping].start;
    return call_tree_child(to, parent, mapping, n->address + moved);
}

static int call_tree_fold(struct fold *f, const struct call_tree *from, struct call_tree *to)
{
    uint32_t *nodes = calloc(from->n_nodes + 1, sizeof *nodes);
    int err = nodes != NULL ? 0 : -ENOMEM;

    for (uint32_t i = 1; i < from->n_nodes && nodes != NULL; i++) /* callers come first */
        nodes[i] = node_fold(f, to, &from->nodes[i], nodes[from->nodes[i].parent]);
    for (uint32_t i = 0; i < from->n_samples && err == 0; i++) {
        const struct call_sample *s = &from->samples[i];
        if (f->threads[s->thread] == 0)
            f->threads[s->thread] = thread_add(f->to, &f->from->threads[s->thread], f->member) + 1;
        if (f->threads[s->thread] == 0)
            err = -ENOMEM;
        else
            err = call_tree_add(to, nodes[s->node], f->threads[s->thread] - 1, s->label, s->ticks, s->ns);
    }
    free(nodes);
    return err;
}

/* --- Totals */

static void told_fold(struct told *to, const struct told *from)
{
    for (int i = 0; i < STILE__CLOCK_KINDS; i++)
        to->clocks[i] += from->clocks[i];
    to->perf_error = to->perf_error != 0 ? to->perf_error : from->perf_error;
    to->timer_error = to->timer_error != 0 ? to->timer_error : from->timer_error;
    to->threads_unsampled += from->threads_unsampled;
    to->stale_signals += from->stale_signals;
    to->signal_taken = to->signal_taken || from->signal_taken;
    to->toggle_taken = to->toggle_taken || from->toggle_taken;
}

static void waits_fold(struct waits *to, const struct waits *from)
{
    to->on = to->on || from->on;
    to->n += from->n;
    to->ns += from->ns;
    for (int i = 0; i < STILE__WAIT_REASONS; i++) {
        to->reason_n[i] += from->reason_n[i];
        to->reason_ns[i] += from->reason_ns[i];
    }
    for (int i = 0; i < STILE__REASON_COUNT; i++) {
        to->part_n[i] += from->part_n[i];
        to->part_ns[i] += from->part_ns[i];
    }
    to->wakes += from->wakes;
    to->lost += from->lost;
    to->lost_ns += from->lost_ns;
    to->lost_wakes += from->lost_wakes;
    to->late += from->late;
    to->generations += from->generations;
    to->open += from->open;
    to->broken += from->broken;
    to->checks += from->checks;
}

static void totals_fold(struct process *t, const struct process *p)
{
    const struct told told = process_told(p);
    uint64_t end = p->end_mono_ns != 0 ? p->end_mono_ns : now_mono_ns();

    t->ticks += p->ticks;
    t->cpu_ns += p->cpu_ns;
    t->kernel_ns += p->kernel_ns;
    t->signals += p->signals;
    for (int i = 0; i < STILE__REASON_COUNT; i++) {
        t->reason_ticks[i] += p->reason_ticks[i];
        t->reason_ns[i] += p->reason_ns[i];
    }
    t->frames_saved += p->frames_saved;
    t->frames_by_rules += p->frames_by_rules;
    t->frames_by_libunwind += p->frames_by_libunwind;
    t->frames_unruled += p->frames_unruled;
    t->rules_bytes += p->rules_bytes;
    for (int i = 0; i < 2; i++) {
        t->walks[i].n += p->walks[i].n;
        t->walks[i].cycles += p->walks[i].cycles;
    }
    t->verify.samples += p->verify.samples;
    t->verify.differ += p->verify.differ;
    t->verify.unknown += p->verify.unknown;
    t->verify.uncopied += p->verify.uncopied;
    t->barrier_totals.placed += p->barrier_totals.placed;
    t->barrier_totals.hit += p->barrier_totals.hit;
    t->barrier_totals.retired += p->barrier_totals.retired;
    t->barrier_totals.restored += p->barrier_totals.restored;
    if (end > t->end_mono_ns)
        t->end_mono_ns = end;
    told_fold(&t->tree_file->told, &told);
    char why[VET_NAME + 96] = "";
    vet_describe(&p->vetting, told.barriers_state, why, sizeof why);
    t->tree_file->no_barriers += p->barriers != STILE__BARRIERS_OFF && why[0] != '\0';
    t->tree_file->damaged += p->damage != NULL;
    waits_fold(&t->waits, &p->waits);
}

int tree_fold_into(struct process *t, const struct process *p)
{
    struct fold f = {.from = p, .to = t};
    int err = -ENOMEM;

    f.mappings = calloc(p->mappings.n_all + 1, sizeof *f.mappings);
    f.threads = calloc(p->n_threads + 1, sizeof *f.threads);
    f.member = member_add(t->tree_file, p);
    if (f.mappings != NULL && f.threads != NULL && f.member != UINT32_MAX) {
        /* Its main binary comes first, as it does in any profile. */
        if (t->mappings.n_all == 0 && p->mappings.n_all != 0)
            mapping_of(&f, 0);
        err = p->files[FILE_CPU].in_tree ? call_tree_fold(&f, &p->tree, &t->tree) : 0;
        if (err == 0 && p->files[FILE_BLOCK].in_tree)
            err = call_tree_fold(&f, &p->waits.tree, &t->waits.tree);
    }
    totals_fold(t, p);
    free(f.mappings);
    free(f.threads);
    return err;
}

uint32_t tree_member_thread(struct process *t, uint32_t member)
{
    const struct tree_member *m = &t->tree_file->members[member];
    struct thread_seen main_thread = {.tid = (uint32_t)m->owner.own_pid, .clocked = true};
    memcpy(main_thread.comm, m->comm, sizeof main_thread.comm);
    return thread_add(t, &main_thread, member);
}
