/* [waiting elsewhere]: the time of a thread that is in no book. It lived, did not run, was not waiting for a processor, and no
 * hook has seen it wait: stdio, a raw futex, a page from a disk, a debugger. Collector, normal context.
 *
 * Where a wait ends the thread is runnable for a moment before it runs, and that is in the wait's delay and in the kernel's
 * count: so the rest is rather too small than too large. Waits that are sampled are right on average, and noisy: what is
 * small is left out. */
#include "profiler/collector/waits.h"

#include <inttypes.h>
#include <stdio.h>

#define LEAST_NS   1000000u   /* less is noise */
#define LEAST_PART 1000u      /* of the thread's life: the same */
#define DEVIATIONS 3          /* of chance: the same */
#define OLD_CPU_NS 100000000u /* a thread that had used more was there long before its session */

/* What the kernel has counted of a live thread: time on a processor, and runnable without one. */
static bool schedstat_read(const struct process *p, uint32_t tid, uint64_t *cpu_ns, uint64_t *run_delay_ns)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%u/schedstat", (int)p->pid, tid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    bool there = fscanf(f, "%" SCNu64 " %" SCNu64, cpu_ns, run_delay_ns) == 2;
    fclose(f);
    return there;
}

void elsewhere_begin(struct process *p, uint32_t thread, const struct stile__slot *slot)
{
    struct thread_seen *t = &p->threads[thread];
    uint64_t cpu, delay;
    t->birth_ns = slot->birth_mono_ns;
    if (t->birth_ns < p->waits.start_mono_ns || t->birth_ns > now_mono_ns())
        t->birth_ns = p->waits.start_mono_ns;
    if (slot->base_cpu_ns > OLD_CPU_NS && schedstat_read(p, t->tid, &cpu, &delay))
        t->run_delay_base_ns = delay;
}

/* What is left of the thread's life up to a moment. */
static void life_take(struct thread_seen *t, uint64_t until_ns, uint64_t cpu_ns, uint64_t base_cpu_ns,
                      uint64_t run_delay_ns)
{
    uint64_t life = until_ns > t->birth_ns ? until_ns - t->birth_ns : 0;
    uint64_t ran = cpu_ns > base_cpu_ns ? cpu_ns - base_cpu_ns : 0;
    t->clocked = true;
    t->life_ns = life;
    /* One after another: what the program left may be anything. */
    life -= ran < life ? ran : life;
    life -= run_delay_ns < life ? run_delay_ns : life;
    t->idle_ns = life;
}

static void waits_take(struct thread_seen *t)
{
    t->elsewhere_ns = t->idle_ns > t->waited_ns ? t->idle_ns - t->waited_ns : 0;
}

void elsewhere_look(struct process *p, uint32_t thread, const struct stile__slot *slot)
{
    struct thread_seen *t = &p->threads[thread];
    uint64_t cpu, delay;
    if (!schedstat_read(p, t->tid, &cpu, &delay))
        return;
    life_take(t, now_mono_ns(), cpu, slot->base_cpu_ns,
              delay > t->run_delay_base_ns ? delay - t->run_delay_base_ns : 0);
    t->looked = true;
}

void elsewhere_looked(struct process *p, uint32_t thread)
{
    struct thread_seen *t = &p->threads[thread];
    if (t->looked)
        waits_take(t);
    t->looked = false;
}

void elsewhere_end(struct process *p, uint32_t thread, const struct stile__slot *slot)
{
    uint64_t until = atomic_load_explicit(&slot->exit_mono_ns, memory_order_relaxed), now = now_mono_ns();
    uint64_t cpu = atomic_load_explicit(&slot->exit_cpu_ns, memory_order_relaxed);
    uint64_t delay = atomic_load_explicit(&slot->run_delay_ns, memory_order_relaxed);
    if (until != 0 && cpu != 0 && delay != UINT64_MAX) {
        life_take(&p->threads[thread], until < now ? until : now, cpu, slot->base_cpu_ns, delay);
        waits_take(&p->threads[thread]);
    }
    elsewhere_book(p, thread);
}

/* Waits shorter than the rate are right on average: what they lack by chance is waiting nowhere, nor is one under way. */
static bool by_chance(const struct process *p, const struct thread_seen *t, uint64_t share)
{
    double rate = (double)p->waits.rate_ns, beyond = (double)share - rate;
    return beyond <= 0 || beyond * beyond <= DEVIATIONS * DEVIATIONS * (rate * rate + t->chance_ns2);
}

void elsewhere_book(struct process *p, uint32_t thread)
{
    struct thread_seen *t = &p->threads[thread];
    if (!t->clocked || p->toggles || t->elsewhere_ns <= t->elsewhere_told_ns)
        return;
    uint64_t share = t->elsewhere_ns - t->elsewhere_told_ns;
    if (share <= LEAST_NS || share <= t->life_ns / LEAST_PART || by_chance(p, t, share))
        return;
    uint32_t node = call_tree_child(&p->waits.tree, CALL_TREE_ROOT, CALL_TREE_ELSEWHERE, 0);
    waits_book(p, thread, node, STILE__REASON_NONE, STILE__WAIT_ELSEWHERE, 1, share);
    t->elsewhere_told_ns += share;
}
