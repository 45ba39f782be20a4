/* The books are balanced: what was booked against the CPU clocks of threads and process. Collector, normal context, when
 * a session has ended and its rings are empty.
 *
 * A tick stands for a period, but a thread starts and ends in the middle of one: a thread of sixteen periods or more is
 * brought to its own clock by what is over or short, on its heaviest stack, where that distorts least. (Shorter threads
 * add up together; see carry_take in the agent's clock.c.) More than what ticks can be late by was not on any stack that
 * we saw: [unsampled]. Then what is left of the process's clock: before the session could start, and in each thread after
 * its last look at its clock, [exec and exit]; and what even those cannot explain, [unsampled] again. */
#include "profiler/collector/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LATE_NS     100000000u  /* more than a signal can be late by */
#define TEARDOWN_NS 200000u     /* what a thread takes in libc and the kernel after our last look, at most */
#define DEATH_NS    50000000u   /* a core dump, say */
#define EXEC_NS_MAX 1000000000u /* loading a program: more is an image before this one that nobody profiled */

void process_clock_read(struct process *p)
{
    struct timespec ts;
    /* The kernel's encoding of a process's CPU clock; unlike a thread's, anybody may read it. */
    if (clock_gettime((clockid_t)(~(unsigned)p->pid << 3 | 2), &ts) != 0)
        return;
    uint64_t ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    if (ns < p->used_cpu_ns) /* another process has the pid now */
        return;
    p->used_cpu_ns = ns;
    p->used_read_ns = now_mono_ns();
}

/* Whether a thread has used so much that it is brought to its own clock. */
static bool is_exact(const struct process *p, uint32_t thread)
{
    return p->threads[thread].used_ns >= STILE__EXACT_PERIODS * p->period_ns;
}

/* Index of each thread's heaviest sample, plus 1. NULL without memory. */
static uint32_t *heaviest_samples(const struct process *p)
{
    uint32_t *best = calloc(p->n_threads, sizeof *best);
    for (uint32_t i = 0; best != NULL && i < p->tree.n_samples; i++) {
        uint32_t *b = &best[p->tree.samples[i].thread];
        if (*b == 0 || p->tree.samples[i].ns > p->tree.samples[*b - 1].ns)
            *b = i + 1;
    }
    return best;
}

static void sample_adjust(struct process *p, struct call_sample *s, int64_t ns)
{
    if (ns < 0 && (uint64_t)-ns >= s->ns)
        return;
    s->ns += (uint64_t)ns;
    p->cpu_ns += (uint64_t)ns;
    p->threads[s->thread].booked_ns += (uint64_t)ns;
}

static void unsampled_add(struct process *p, uint32_t thread, uint64_t ns)
{
    process_stack_add(p, thread, NULL, 0, STILE__REASON_UNSAMPLED, false, ns / p->period_ns, ns);
}

static void threads_settle(struct process *p)
{
    uint32_t *best = heaviest_samples(p);
    for (uint32_t t = 0; best != NULL && t < p->n_threads; t++) {
        uint64_t used = p->threads[t].used_ns;
        if (used < STILE__EXACT_PERIODS * p->period_ns ||
            used > p->used_cpu_ns) /* more than all is no clock's */
            continue;
        int64_t rest = (int64_t)(used - p->threads[t].booked_ns);
        if (rest > (int64_t)(LATE_NS + 2 * p->period_ns) || (rest > 0 && p->threads[t].booked_ns == 0))
            unsampled_add(p, t, (uint64_t)rest);
        else if (best[t] != 0)
            sample_adjust(p, &p->tree.samples[best[t] - 1], rest);
    }
    free(best);
}

void process_comm(const struct process *p, char *comm)
{
    size_t len = strcspn(p->command, " ");
    const char *slash = memrchr(p->command, '/', len), *name = slash != NULL ? slash + 1 : p->command;
    size_t size = sizeof((struct thread_seen *)0)->comm;

    for (uint32_t t = 0; t < p->n_threads; t++)
        if (p->threads[t].tid == (uint32_t)p->own_pid) {
            memcpy(comm, p->threads[t].comm, size);
            return;
        }
    snprintf(comm, size, "%.*s", (int)(p->command + len - name), name);
    if (comm[0] == '\0')
        snprintf(comm, size, "main");
}

/* A process of which no thread was ever seen to tick has its main thread all the same. */
static bool main_thread_add(struct process *p)
{
    struct thread_seen *t = calloc(1, sizeof *t);
    if (t == NULL)
        return false;
    t->tid = (uint32_t)p->own_pid;
    process_comm(p, t->comm);
    p->threads = t;
    p->n_threads = p->cap_threads = 1;
    return true;
}

/* The thread that the process's own time is told with. */
static uint32_t main_thread(const struct process *p)
{
    for (uint32_t t = 0; t < p->n_threads; t++)
        if (p->threads[t].tid == (uint32_t)p->own_pid)
            return t;
    return 0;
}

static void exec_and_exit_add(struct process *p, uint64_t ns)
{
    process_stack_add(p, main_thread(p), NULL, 0, STILE__REASON_EXEC_AND_EXIT, false, ns / p->period_ns, ns);
}

/* By the agent's last look if there was one; but what it left can be anything, and ours cannot. */
static uint64_t process_used(const struct process *p)
{
    uint64_t end = atomic_load_explicit(&p->region->end_cpu_ns, memory_order_relaxed);
    return end != 0 && end < p->used_cpu_ns ? end : p->used_cpu_ns;
}

/* By how much the ticks of short threads may be off by chance: two periods for each that ran at once, of which some are
 * early and some late. As many as slots were used ran at once. */
static uint64_t chance_of(const struct process *p, uint64_t shorts)
{
    uint64_t slots = atomic_load_explicit(&p->region->slots_used, memory_order_relaxed), root = 0;
    if (shorts > slots)
        shorts = slots;
    while (root * root < shorts)
        root++;
    return root * 2 * p->period_ns;
}

/* The heaviest stack, where a correction distorts least: of short threads only, or of all. NULL if there is none. */
static struct call_sample *heaviest(const struct process *p, bool shorts_only)
{
    struct call_sample *best = NULL;
    for (uint32_t i = 0; i < p->tree.n_samples; i++) {
        struct call_sample *s = &p->tree.samples[i];
        if (!(shorts_only && is_exact(p, s->thread)) && s->ns != 0 && (best == NULL || s->ns > best->ns))
            best = s;
    }
    return best;
}

static uint64_t heaviest_add(struct process *p, uint64_t ns)
{
    struct call_sample *best = heaviest(p, false);
    if (best == NULL)
        return 0;
    sample_adjust(p, best, (int64_t)ns);
    return ns;
}

/* What short threads have too much by chance, since a tick stands for a period and they had less. */
static void shorts_reduce(struct process *p, uint64_t ns)
{
    struct call_sample *s;
    while (ns != 0 && (s = heaviest(p, true)) != NULL) {
        uint64_t less = ns < s->ns - 1 ? ns : s->ns - 1; /* a sample that is there weighs something */
        if (less == 0)
            return;
        sample_adjust(p, s, -(int64_t)less);
        ns -= less;
    }
}

void process_settle(struct process *p)
{
    uint64_t start = p->start_cpu_ns > p->earlier_cpu_ns ? p->start_cpu_ns - p->earlier_cpu_ns : 0;
    uint64_t live = 0, exact = 0, ended = 0;

    process_clock_read(p);
    threads_settle(p);
    for (uint32_t t = 0; t < p->n_threads; t++) {
        live += !p->threads[t].ended && p->threads[t].used_ns == 0;
        exact += is_exact(p, t);
        ended += p->threads[t].ended;
    }
    if (p->used_cpu_ns == 0 || (p->n_threads == 0 && !main_thread_add(p)))
        return;
    uint64_t booked = p->cpu_ns + p->cut_cpu_ns, all = process_used(p), base = p->start_cpu_ns;
    uint64_t rest = all > base + booked ? all - base - booked : 0;
    /* Threads that were killed kept what they had used since the kernel's last tick, and dying takes time, too. */
    bool killed = atomic_load_explicit(&p->region->end_cpu_ns, memory_order_relaxed) == 0;
    uint64_t known = p->threads_ended * TEARDOWN_NS + live * 2 * p->tick_ns + (killed ? DEATH_NS : 0);
    uint64_t ends = rest < known ? rest : known;
    /* Those that were never seen to tick have only their ends counted. */
    uint64_t shorts = p->n_threads - exact + (p->threads_ended > ended ? p->threads_ended - ended : 0);
    uint64_t chance = chance_of(p, shorts), more = rest - ends;
    if (p->from_birth && start <= EXEC_NS_MAX)
        ends += start;
    if (ends != 0)
        exec_and_exit_add(p, ends);
    /* What chance explains is brought in order where there is much beside it. Of a process of a few periods it says
     * nothing: as many have it the other way round, and together they are right. */
    bool many = all > base && all - base >= STILE__EXACT_PERIODS * p->period_ns;
    if (many && base + booked > all)
        shorts_reduce(p, base + booked - all < chance ? base + booked - all : chance);
    if (many)
        more -= heaviest_add(p, more < chance ? more : chance);
    else
        more -= more < chance ? more : chance;
    if (more != 0)
        unsampled_add(p, main_thread(p), more);
}
