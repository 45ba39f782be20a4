/* Where one thread is. Collector, normal context. */
#include "profiler/collector/dump_look.h"

#include <stdio.h>
#include <string.h>

#include "barriers/ownership.h"
#include "profiler/collector/records.h"
#include "profiler/collector/waits.h"
#include "profiler/region/check.h"

#define LAST_FRAMES_MAX 4096u

/* What lies in a page, out of the program's reach. */
struct left_read {
    union record_copy record;
    uint64_t since_ns, hook;
    struct stack stack;
    const char *bad; /* NULL: it is whole */
};

/* Whether the maps are known as they were when the record was written; else they are read first. */
static bool maps_there(const struct process *p, const struct stile__record *r)
{
    uint32_t now = atomic_load_explicit(&p->region->unloads, memory_order_acquire) / STILE__UNLOADS_ONE;
    return !stile__unloads_beyond(r->unloads, p->unloads_seen) || stile__unloads_beyond(r->unloads, now);
}

/* Reads a page under the scan bit. False: not now. */
static bool left_take(struct process *p, const struct stile__left *page, struct left_read *l)
{
    const struct stile__record *r = &l->record.record;

    l->since_ns = *(const volatile uint64_t *)&page->since_ns;
    l->hook = *(const volatile uint64_t *)&page->hook;
    record_copy(&l->record, &page->record, STILE__LEFT_CELLS);
    l->bad = stile__record_check(r, STILE__LEFT_CELLS, p->size.block_max);
    if (l->bad == NULL && (r->kind == STILE__RECORD_PAD || (r->flags & STILE__IS_WAIT) == 0))
        l->bad = "it is no wait";
    if (l->bad != NULL)
        return true;
    return maps_there(p, r) && record_stack_copy(p, r, false, &l->stack);
}

static void left_show(struct process *p, uint32_t thread, uint64_t status, const struct left_read *l,
                      struct report_text *t)
{
    struct stack s = l->stack;
    uint64_t now = p->end_mono_ns != 0 ? p->end_mono_ns : now_mono_ns();

    report_text_thread(t, p->threads[thread].tid, p->threads[thread].comm);
    report_text_add(t, "waiting (%s)", stile__wait_reason_name(stile__stack_reason(status)));
    if (!p->foreign_clock && l->since_ns <= now)
        report_text_add(t, " for %.3f s", (double)(now - l->since_ns) / 1e9);
    report_text_add(t, ":\n");
    if (l->bad != NULL) {
        report_text_add(t, "  (what it left cannot be used: %s)\n", l->bad);
        return;
    }
    const uint64_t *frames = record_stack_frames(p, &l->record.record, l->hook, &s);
    report_text_frames(t, p, frames, s.n, s.reason);
}

enum dump_look dump_look_left(struct process *p, uint32_t i, uint32_t thread, struct report_text *t)
{
    static struct left_read l;
    struct stile__slot *slot = stile__region_slot(p->region, i);
    const struct stile__left *page;
    uint64_t seen;

    if (p->size.waits == 0)
        return DUMP_RUNNING;
    switch (stile__scan_begin(&slot->status, &seen)) {
    case STILE__SCAN_TAKEN:
        break;
    case STILE__SCAN_BUSY:
        return DUMP_AGAIN;
    case STILE__SCAN_GONE:
        return DUMP_GONE;
    default:
        return DUMP_RUNNING;
    }
    page = stile__region_left(p->region, p->size, i);
    const char *damage = p->damage;
    bool owned = p->foreign_clock || waits_owned(p, slot, seen, page);
    bool taken = owned && left_take(p, page, &l);
    if (!stile__scan_drop(&slot->status, seen)) {
        p->damage = damage; /* what was read is void */
        return DUMP_AGAIN;
    }
    if (!taken)
        return DUMP_AGAIN;
    left_show(p, thread, seen, &l, t);
    return DUMP_SHOWN;
}

void dump_look_record(struct process *p, uint32_t thread, const struct stile__record *r, const char *state,
                      struct report_text *t)
{
    struct stack s;
    if (!record_stack_copy(p, r, true, &s))
        return;
    const uint64_t *frames = record_stack_frames(p, r, 0, &s);
    report_text_thread(t, p->threads[thread].tid, p->threads[thread].comm);
    report_text_add(t, "%s%s:\n", state, (r->flags & STILE__IN_KERNEL) != 0 ? " in the kernel" : "");
    report_text_frames(t, p, frames, s.n, s.reason);
}

void dump_look_last(struct process *p, uint32_t thread, struct report_text *t)
{
    static uint64_t frames[LAST_FRAMES_MAX];
    const struct thread_seen *seen = &p->threads[thread];
    enum stile__reason reason = STILE__REASON_NONE;
    size_t n = 0;

    report_text_thread(t, seen->tid, seen->comm);
    if (!seen->has_last || seen->last_cuts != p->cuts) {
        report_text_add(
            t, "running, or waiting where no hook stands; never sampled:\n  (its stack is not known)\n");
        return;
    }
    for (uint32_t at = seen->last_node; at != CALL_TREE_ROOT; at = p->tree.nodes[at].parent) {
        const struct call_node *node = &p->tree.nodes[at];
        if (node->mapping == CALL_TREE_REASON)
            reason = (enum stile__reason)node->address;
        else if (node->mapping != CALL_TREE_KERNEL && n < LAST_FRAMES_MAX)
            frames[n++] = node->address;
    }
    report_text_add(t, "running, or waiting where no hook stands; this is when it was last sampled:\n");
    report_text_frames(t, p, frames, n, reason);
}

static size_t task_read(const struct process *p, uint32_t tid, const char *file, char *text, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/task/%u/%s", (int)p->pid, tid, file);
    FILE *f = fopen(path, "re");
    size_t n = f != NULL ? fread(text, 1, size - 1, f) : 0;
    if (f != NULL)
        fclose(f);
    text[n] = '\0';
    return n;
}

char dump_task_state(const struct process *p, uint32_t tid)
{
    char text[512];
    task_read(p, tid, "stat", text, sizeof text);
    const char *after = strrchr(text, ')'); /* its name may be anything */
    return after != NULL && after[1] == ' ' ? after[2] : '\0';
}

void dump_look_blocked(const struct process *p, uint32_t tid, const char *name, char state, const char *more,
                       struct report_text *t)
{
    char where[128], call[128], clean[128];
    long number;

    report_text_thread(t, tid, name);
    report_text_add(t, "blocked (%c", state);
    if (task_read(p, tid, "wchan", where, sizeof where) > 1) {
        report_text_clean(clean, sizeof clean, where);
        report_text_add(t, ", in the kernel's %s", clean);
    }
    if (task_read(p, tid, "syscall", call, sizeof call) > 0 && sscanf(call, "%ld", &number) == 1)
        report_text_add(t, ", system call %ld", number);
    report_text_add(t, ")%s:\n  (its stack is not known)\n", more);
}

void dump_of_the_dead(struct process *p, struct report_text *t)
{
    uint32_t used = atomic_load_explicit(&p->region->slots_used, memory_order_acquire);

    for (uint32_t i = 0; i < used && i < p->size.slot_max && p->damage == NULL; i++) {
        struct stile__slot *slot = stile__region_slot(p->region, i);
        uint32_t thread;
        if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
            (thread = process_thread_of(p, i)) == UINT32_MAX)
            continue;
        if (dump_look_left(p, i, thread, t) != DUMP_SHOWN)
            dump_look_last(p, thread, t);
    }
}
