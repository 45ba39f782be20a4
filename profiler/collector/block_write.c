/* The blocking profile: sample types and period as Go has them, and labels that say what was waited for. Runs in the writer
 * process, normal context. */
#include "profiler/collector/block_write.h"

#include <inttypes.h>
#include <stdio.h>

#include "profiler/collector/profile_out.h"
#include "profiler/collector/tree.h"
#include "profiler/collector/waits.h"

/* For waits `reason`, for those who ended some `wakes`; both have one value for each reason. */
static size_t label_reason(const struct call_sample *s, struct stile__builder_label *to)
{
    enum stile__wait_reason why = (enum stile__wait_reason)(s->label & (STILE__WAIT_WAKES - 1));
    if (why == STILE__WAIT_NONE)
        return 0;
    to->key = (s->label & STILE__WAIT_WAKES) != 0 ? "wakes" : "reason";
    to->str = stile__wait_reason_name(why);
    return 1;
}

static void reasons_out(struct writer *w)
{
    const struct waits *waits = &w->p->waits;
    char text[1536];
    size_t n = 0;
    text[0] = '\0';
    for (int i = STILE__WAIT_NONE + 1; i < STILE__WAIT_REASONS && n < sizeof text; i++)
        if (waits->reason_n[i] != 0 || waits->reason_ns[i] != 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %" PRIu64 ", %.3f s", n == 0 ? "" : ";",
                                  stile__wait_reason_name((enum stile__wait_reason)i), waits->reason_n[i],
                                  (double)waits->reason_ns[i] / 1e9);
    writer_comment(w, "by reason:%s", n != 0 ? text : " none");
}

/* Every reason is named, with its count, so that "none" is a statement. */
static void parts_out(struct writer *w)
{
    const struct waits *waits = &w->p->waits;
    char text[768];
    size_t n = 0;
    for (int i = 1; i < STILE__REASON_COUNT && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %" PRIu64 " waits, %.3f s", i == 1 ? "" : ";",
                              stile__reason_name((enum stile__reason)i), waits->part_n[i],
                              (double)waits->part_ns[i] / 1e9);
    writer_comment(w, "not whole:%s", text);
}

/* What no hook has seen, and of which threads that cannot be told. */
static void elsewhere_out(struct writer *w)
{
    const struct waits *waits = &w->p->waits;
    uint32_t unknown = 0;

    if (w->whole->toggles) {
        writer_comment(w, "[waiting elsewhere]: left out, since the profile does not cover the whole time");
        return;
    }
    for (uint32_t i = 0; i < w->whole->n_threads; i++)
        unknown += !w->whole->threads[i].clocked;
    writer_comment(w,
                   "[waiting elsewhere]: %.3f s; left out for %" PRIu32
                   " threads of which it is not known how long they ran or were kept from running",
                   (double)waits->reason_ns[STILE__WAIT_ELSEWHERE] / 1e9, unknown);
}

static void comments_out(struct writer *w)
{
    const struct waits *waits = &w->p->waits;
    const struct process *whole = w->whole;

    writer_comment(w, "stile %s", STILE_VERSION);
    writer_comment(w, "command: %s", whole->command);
    writer_comment(w, "rate: a wait for each %" PRIu64 " ns waited, on average; all that take longer",
                   whole->waits.rate_ns);
    writer_comment(w, "waits: %" PRIu64 ", %.3f s; %" PRIu64 " wake-ups", waits->n, (double)waits->ns / 1e9,
                   waits->wakes);
    reasons_out(w);
    writer_comment(w, "lost: %" PRIu64 " waits, %.3f s; %" PRIu64 " wake-ups", waits->lost,
                   (double)waits->lost_ns / 1e9, waits->lost_wakes);
    parts_out(w);
    elsewhere_out(w);
    writer_comment(w,
                   "generations: %" PRIu64 "; waits told while they went on %" PRIu64
                   ", looks broken off by their threads %" PRIu64,
                   waits->generations, waits->open, waits->broken);
    if ((whole->debug & STILE__DEBUG_OWNERSHIP) != 0)
        writer_comment(w, "stack ownership: checked, %" PRIu64 " times by the collector", waits->checks);
    else
        writer_comment(w, "stack ownership: not checked");
    writer_comment(w, "threads: %u seen, %u without a slot", whole->n_threads,
                   process_told(whole).threads_unsampled);
    if (whole->foreign_clock)
        writer_comment(w, "time namespace: waits are told when they are over, and not before");
    if (whole->toggles)
        writer_comment(w, "late: %" PRIu64 " waits came after their piece was written", whole->waits.late);
    if (whole->tree_file != NULL)
        writer_comment(w, "processes: %u, by the labels pid and comm", whole->tree_file->n_processes);
    if (whole->damage != NULL)
        writer_comment(w, "damaged: %s; waits end there", whole->damage);
    writer_names_comment(w);
}

static int block_fill(struct writer *w)
{
    static const char *const types[2][2] = {{"contentions", "count"}, {"delay", "nanoseconds"}};
    w->leaves_are_functions = true;
    int err = writer_head_out(w, types, types[0], 1);
    if (err == 0)
        err = writer_samples_out(w, label_reason);
    if (err == 0)
        err = writer_flags_out(w);
    comments_out(w);
    return err;
}

int block_write(const struct process *p, const char *path, bool named)
{
    struct writer w;
    return writer_run(&w, p, &p->waits.tree, path, named, block_fill);
}
