/* The CPU profile of a process. Runs in the writer process, normal context. */
#include "profiler/collector/profile_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "profiler/collector/profile_out.h"
#include "profiler/collector/tree.h"
#include "profiler/region/signal_name.h"

/* Every reason is named, with its count, so that "none" is a statement. */
static void reasons_out(struct writer *w)
{
    char text[768];
    size_t n = 0;
    for (int i = 1; i < STILE__REASON_COUNT && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %" PRIu64 " ticks, %.3f s", i == 1 ? "" : ";",
                              stile__reason_name((enum stile__reason)i), w->p->reason_ticks[i],
                              (double)w->p->reason_ns[i] / 1e9);
    writer_comment(w, "not whole:%s", text);
}

/* Who found the frames, and what that took. */
static void walk_out(struct writer *w)
{
    const struct process *whole = w->whole;
    const struct verify *v = &whole->verify;
    uint64_t bytes = whole->rules_bytes != 0 ? whole->rules_bytes : rule_table_bytes(&whole->rules);

    writer_comment(w,
                   "walk: %" PRIu64 " frames by rules, %" PRIu64 " by libunwind, %" PRIu64
                   " of them without a rule; %" PRIu64 " KiB of rules",
                   whole->frames_by_rules, whole->frames_by_libunwind, whole->frames_unruled, bytes >> 10);
    if (whole->debug & STILE__DEBUG_WALK_TIME)
        writer_comment(w,
                       "walk time: %" PRIu64 " by rules alone, %" PRIu64 " cycles; %" PRIu64
                       " with a snapshot, %" PRIu64 " cycles",
                       whole->walks[0].n, whole->walks[0].cycles, whole->walks[1].n, whole->walks[1].cycles);
    if ((whole->debug & STILE__DEBUG_VERIFY) == 0)
        return;
    writer_comment(w, "unwind verified: %" PRIu64 " samples, %" PRIu64 " differ", v->samples, v->differ);
    writer_comment(w,
                   "unwind not verified: %" PRIu64 " samples, whose reference came to no end; %" PRIu64
                   ", of whose stack there is no copy",
                   v->unknown, v->uncopied);
    for (unsigned i = 0; i < v->n_shown; i++) {
        int first = (int)strcspn(v->shown[i], "\n");
        writer_comment(w, "%.*s", first, v->shown[i]);
        writer_comment(w, "%s", v->shown[i] + first + (v->shown[i][first] != '\0'));
    }
}

/* What barriers did, and what it saved; of the whole process, as who found the frames is. */
static void barriers_out(struct writer *w)
{
    static const char *const wishes[STILE__BARRIERS_WISHES] = {"off", "auto", "on", "all"};
    const struct process *whole = w->whole;
    const struct barrier_totals *b = &whole->barrier_totals;

    if (whole->barriers == STILE__BARRIERS_OFF)
        return;
    char off[VET_NAME + 96] = "";
    if (whole->tree_file == NULL)
        vet_describe(&whole->vetting, process_told(whole).barriers_state, off, sizeof off);
    else if (whole->tree_file->no_barriers != 0)
        snprintf(off, sizeof off, "in %u of %u program images", whole->tree_file->no_barriers,
                 whole->tree_file->n_members);
    writer_comment(w,
                   "stack barriers: %s;%s%s%s placed %" PRIu64 ", hit %" PRIu64 ", retired %" PRIu64
                   ", restored %" PRIu64 "; frames saved %" PRIu64 " of %" PRIu64
                   "; samples without a stack because it was locked %" PRIu64,
                   wishes[whole->barriers], off[0] != '\0' ? " off: " : "", off, off[0] != '\0' ? ";" : "",
                   b->placed, b->hit, b->retired, b->restored, whole->frames_saved,
                   whole->frames_saved + whole->frames_by_rules + whole->frames_by_libunwind,
                   w->p->reason_ticks[STILE__REASON_STACK_LOCKED]);
}

static void comments_out(struct writer *w)
{
    const struct process *p = w->p, *whole = w->whole;
    const struct tree *tree = whole->tree_file;
    const struct told told = process_told(whole);
    char name[STILE__SIGNAL_NAME_MAX];
    double seconds = (double)p->cpu_ns / 1e9;

    writer_comment(w, "stile %s", STILE_VERSION);
    writer_comment(w, "command: %s", whole->command);
    if (tree != NULL)
        writer_comment(w, "processes: %u, by the labels pid and comm", tree->n_processes);
    char clock[256];
    process_clock_describe(whole, clock, sizeof clock);
    writer_comment(w, "clock: %s", clock);
    writer_comment(w, "rate: %u Hz requested, %.1f signals per second of CPU time", p->hz,
                   p->cpu_ns != 0 ? (double)p->signals / seconds : 0.0);
    writer_comment(w, "samples: %" PRIu64 " ticks in %" PRIu64 " signals, %.3f s", p->ticks, p->signals,
                   seconds);
    reasons_out(w);
    writer_comment(w, "in the kernel: %.3f s", (double)p->kernel_ns / 1e9);
    writer_comment(w, "threads: %u sampled, %u without a slot, %u without a clock", whole->n_threads,
                   told.threads_unsampled, told.clocks[STILE__CLOCK_NONE]);
    walk_out(w);
    barriers_out(w);
    writer_comment(w, "stale signals: %" PRIu64, told.stale_signals);
    if (whole->toggles)
        writer_comment(w, "late: %" PRIu64 " ticks came after their piece was written", whole->late_ticks);
    if (told.signal_taken && tree == NULL)
        writer_comment(
            w,
            "the program set a handler of its own for %s; samples end there; PROFILE_SIGNAL=NAME chooses "
            "another signal",
            stile__signal_name(whole->region->signal, name, sizeof name));
    if (told.signal_taken && tree != NULL)
        writer_comment(w,
                       "a process set a handler of its own for its profile's signal; its samples end there; "
                       "PROFILE_SIGNAL=NAME chooses another signal");
    if (told.toggle_taken)
        writer_comment(
            w,
            "the program set a handler of its own for %s; sampling was neither started nor stopped after "
            "that; "
            "PROFILE_TOGGLE=NAME chooses another signal",
            stile__signal_name(whole->region->toggle, name, sizeof name));
    if (whole->damage != NULL)
        writer_comment(w, "damaged: %s; samples end there", whole->damage);
    if (tree != NULL && tree->damaged != 0)
        writer_comment(w, "damaged: the regions of %u processes; their samples end there", tree->damaged);
    writer_names_comment(w);
}

static int profile_fill(struct writer *w)
{
    static const char *const types[2][2] = {{"samples", "count"}, {"cpu", "nanoseconds"}};
    int err = writer_head_out(w, types, types[1], (int64_t)w->p->period_ns);
    if (err == 0)
        err = writer_samples_out(w, NULL);
    if (err == 0)
        err = writer_flags_out(w);
    comments_out(w);
    return err;
}

int profile_write(const struct process *p, const char *path, bool named)
{
    struct writer w;
    return writer_run(&w, p, &p->tree, path, named, profile_fill);
}
