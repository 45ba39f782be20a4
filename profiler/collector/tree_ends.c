/* What the kernel has counted of children beyond what is booked. Runs in the writer process, normal context.
 *
 * A process's last look at its clock is before its end, and its end costs: memory is given back, files are closed. Nobody can
 * ask a process that is gone. But who has waited for it can ask for what all such children have used, to their very end and with
 * theirs, and tells that when it ends itself (getrusage, RUSAGE_CHILDREN). So for each process
 *
 *     gap = what its children have used - (what is booked of each of them + what each tells of its own children)
 *
 * is what its children used after their last looks: [exec and exit], in parts as their ends may have cost. What is too much
 * for that is of children that have no profile (static programs, say). Ticks of short children are right on average only, so
 * some gaps are too large and others below zero by chance: the former are reduced by the latter, so that the sum over all is
 * what the kernel has counted. What is further below zero than by chance is of children that nobody has waited for: the kernel
 * has not told of them, and they take nothing from others.
 *
 * Where a process's parent has no profile itself, or has ended before it, somebody further up has waited for it, and tells of
 * it: it is taken as known to the youngest that may have, as far as that one's gap goes. */
#include "profiler/collector/tree.h"

#include <stdlib.h>

#define END_NS     5000000u   /* of a process, at most; */
#define END_PART   10u        /* and of what it had used a tenth: who has used much has much memory */
#define OVERLAP_NS 500000000u /* by which the collector may see a child end later than its parent */
#define NO_PARENT  UINT32_MAX

/* All images of one process. */
struct family {
    pid_t pid, parent_pid;
    uint64_t birth_ns, end_ns, booked_ns, children_ns;
    uint32_t member; /* its last image */
    uint32_t parent; /* as an index */
    uint32_t shorts; /* images whose time is right on average only */
    bool tells;      /* of its children */
    /* Of its children: */
    uint64_t known_ns; /* booked of them, and told of theirs */
    uint64_t room_ns;  /* that their ends may have cost */
    uint32_t chances;  /* shorts among what is known */
    uint32_t first;    /* of them, plus 1, or 0 */
    uint32_t next;     /* the same: of its parent's */
};

static int by_pid_and_birth(const void *a, const void *b)
{
    const struct family *x = a, *y = b;
    if (x->pid != y->pid)
        return x->pid < y->pid ? -1 : 1;
    if (x->birth_ns != y->birth_ns)
        return x->birth_ns < y->birth_ns ? -1 : 1;
    return x->end_ns < y->end_ns ? -1 : x->end_ns > y->end_ns;
}

static int youngest_first(const void *a, const void *b)
{
    const struct family *x = *(struct family *const *)a, *y = *(struct family *const *)b;
    return x->birth_ns > y->birth_ns ? -1 : x->birth_ns < y->birth_ns;
}

/* Puts the images of each process together. Returns how many processes there are. */
static uint32_t families_join(struct family *f, uint32_t n)
{
    uint32_t kept = 0;
    qsort(f, n, sizeof *f, by_pid_and_birth);
    for (uint32_t i = 0; i < n; i++) {
        struct family *last = kept != 0 ? &f[kept - 1] : NULL;
        if (last == NULL || last->pid != f[i].pid || last->birth_ns != f[i].birth_ns) {
            f[kept++] = f[i];
            continue;
        }
        last->booked_ns += f[i].booked_ns;
        last->shorts += f[i].shorts;
        last->end_ns = f[i].end_ns;
        last->children_ns = f[i].children_ns;
        last->tells = f[i].tells;
        last->member = f[i].member;
    }
    return kept;
}

/* Who had the pid when the child was born. */
static uint32_t parent_of(const struct family *f, uint32_t n, const struct family *child)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f[mid].pid < child->parent_pid ||
            (f[mid].pid == child->parent_pid && f[mid].birth_ns <= child->birth_ns))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NO_PARENT;
    const struct family *p = &f[lo - 1];
    bool had = p->pid == child->parent_pid && p != child && child->birth_ns <= p->end_ns &&
               child->end_ns <= p->end_ns + OVERLAP_NS;
    return had ? lo - 1 : NO_PARENT;
}

static uint64_t room_of(const struct process *t, const struct family *child)
{
    return END_NS + child->booked_ns / END_PART + t->period_ns;
}

/* Its time after our last look. */
static void end_book(struct process *t, const struct family *child, uint64_t ns)
{
    uint32_t thread = tree_member_thread(t, child->member);
    if (ns != 0 && thread != UINT32_MAX)
        process_stack_add(t, thread, NULL, 0, STILE__REASON_EXEC_AND_EXIT, false, ns / t->period_ns, ns);
}

static void unprofiled_book(struct process *t, const struct family *of, uint64_t ns)
{
    uint32_t thread = tree_member_thread(t, of->member);
    uint32_t node = call_tree_child(&t->tree, CALL_TREE_ROOT, CALL_TREE_UNPROFILED, 0);
    if (thread == UINT32_MAX || call_tree_add(&t->tree, node, thread, 0, ns / t->period_ns, ns) != 0)
        return;
    t->ticks += ns / t->period_ns;
    t->cpu_ns += ns;
}

/* Books what of a gap is left. Returns what of it is of children without a profile. */
static uint64_t gap_book(struct process *t, const struct family *f, const struct family *p, uint64_t gap)
{
    uint64_t ends = gap < p->room_ns ? gap : p->room_ns;

    for (uint32_t i = p->first; ends != 0 && i != 0; i = f[i - 1].next)
        end_book(t, &f[i - 1], (uint64_t)((double)ends * (double)room_of(t, &f[i - 1]) / (double)p->room_ns));
    if (p->member == UINT32_MAX && p->first == 0)
        return 0;
    if (gap > ends)
        unprofiled_book(t, p->member != UINT32_MAX ? p : &f[p->first - 1], gap - ends);
    return gap - ends;
}

/* Hands on what is known of each process to its parent. Who tells nothing has what is known of his children. */
static void known_sum(struct process *t, struct family **youngest, struct family *f, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        struct family *child = youngest[k];
        if (!child->tells) {
            child->children_ns = child->known_ns;
            child->shorts += child->chances;
        }
        if (child->parent == NO_PARENT)
            continue;
        struct family *p = &f[child->parent];
        p->known_ns += child->booked_ns + child->children_ns;
        p->chances += child->shorts;
        p->room_ns += room_of(t, child);
        child->next = p->first;
        p->first = (uint32_t)(child - f) + 1;
    }
}

/* Hands on what is known of those without a parent to whoever has a gap that may be of them. */
static void orphans_place(struct family **youngest, uint32_t n)
{
    uint32_t gaps = 0;
    struct family **gap = calloc(n, sizeof(struct family *));
    for (uint32_t k = 0; k < n && gap != NULL; k++)
        if (youngest[k]->children_ns > youngest[k]->known_ns + youngest[k]->room_ns)
            gap[gaps++] = youngest[k];
    for (uint32_t k = 0; k < n && gaps != 0; k++) {
        const struct family *orphan = youngest[k];
        uint64_t left = orphan->parent == NO_PARENT ? orphan->booked_ns + orphan->children_ns : 0;
        for (uint32_t g = 0; g < gaps && left != 0; g++) {
            struct family *p = gap[g];
            bool outlived = orphan->end_ns <= OVERLAP_NS || p->end_ns >= orphan->end_ns - OVERLAP_NS;
            if (p == orphan || p->birth_ns > orphan->birth_ns || !outlived || p->children_ns <= p->known_ns)
                continue;
            uint64_t room = p->children_ns - p->known_ns, part = left < room ? left : room;
            p->known_ns += part;
            left -= part;
        }
    }
    free(gap);
}

/* How far below zero a gap is, as far as chance goes: four times what the sum of so many shorts scatters by. */
static double chance_below(const struct process *t, const struct family *f)
{
    double below = (double)f->known_ns - (double)f->children_ns;
    double most = 2.0 * (double)t->period_ns;
    return below * below <= most * most * f->chances ? below : 0;
}

/* Takes what short processes have too much by chance, from all of their samples alike. */
static void shorts_reduce(struct process *t, double ns)
{
    const struct tree_member *members = t->tree_file->members;
    double shorts = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < t->tree.n_samples; i++) {
            struct call_sample *s = &t->tree.samples[i];
            if (members[t->threads[s->thread].member].booked_ns >= STILE__EXACT_PERIODS * t->period_ns)
                continue;
            if (pass == 0) {
                shorts += (double)s->ns;
                continue;
            }
            uint64_t less = (uint64_t)((double)s->ns * (ns < shorts ? ns / shorts : 0));
            s->ns -= less;
            t->cpu_ns -= less;
        }
}

/* Books the gaps, less what is below zero elsewhere: together they are what the kernel has counted. */
static uint64_t gaps_book(struct process *t, const struct family *f, uint32_t n)
{
    double above = 0, below = 0;
    uint64_t unprofiled_ns = 0;
    for (uint32_t i = 0; i < n; i++)
        if (f[i].children_ns > f[i].known_ns)
            above += (double)(f[i].children_ns - f[i].known_ns);
        else
            below += chance_below(t, &f[i]);
    for (uint32_t i = 0; i < n && above > below; i++)
        if (f[i].children_ns > f[i].known_ns)
            unprofiled_ns +=
                gap_book(t, f, &f[i],
                         (uint64_t)((double)(f[i].children_ns - f[i].known_ns) * (above - below) / above));
    if (below > above)
        shorts_reduce(t, below - above);
    return unprofiled_ns;
}

uint64_t tree_ends_book(struct process *t, const struct tree_command *command)
{
    const struct tree *tree = t->tree_file;
    uint32_t n = tree->n_members;
    struct family *f = calloc(n + 1, sizeof *f), **order = calloc(n + 1, sizeof *order);
    uint64_t unprofiled_ns = 0;

    for (uint32_t i = 0; i < n && f != NULL; i++) {
        const struct tree_member *m = &tree->members[i];
        f[i] = (struct family){.pid = m->owner.own_pid,
                               .parent_pid = m->parent_pid,
                               .birth_ns = m->birth_ns,
                               .end_ns = m->end_ns,
                               .booked_ns = m->booked_ns,
                               .children_ns = m->children_ns,
                               .tells = m->tells,
                               .member = i,
                               .shorts = m->booked_ns < STILE__EXACT_PERIODS * t->period_ns,
                               .parent = NO_PARENT};
    }
    if (f == NULL || order == NULL)
        goto out;
    n = families_join(f, n);
    /* The last one stands for `stile record`, which waited for the command. */
    f[n] = (struct family){.pid = command->waiter,
                           .children_ns = command->used_ns,
                           .tells = command->used_ns != 0,
                           .member = UINT32_MAX,
                           .end_ns = UINT64_MAX,
                           .parent = NO_PARENT};
    for (uint32_t i = 0; i < n; i++) {
        f[i].parent = f[i].parent_pid == command->waiter ? n : parent_of(f, n, &f[i]);
        order[i] = &f[i];
    }
    order[n] = &f[n];
    qsort(order, n, sizeof *order, youngest_first); /* children before parents */
    known_sum(t, order, f, n + 1);
    orphans_place(order, n + 1);
    unprofiled_ns = gaps_book(t, f, n + 1);
out:
    free(f);
    free(order);
    return unprofiled_ns;
}
