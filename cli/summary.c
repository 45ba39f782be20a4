/* The lines that `stile record` ends with. Context: the command line. */
#include "cli/summary.h"

#include <stdio.h>
#include <string.h>

#include "profiler/region/record.h"
#include "profiler/region/waits.h"

#define REASONS_SHOWN 4

static void files_print(const struct stile__summary *summary)
{
    const struct stile__status *s = summary->status;
    /* The name as it was given, where that is all there is to it. */
    const char *path = strchr(summary->profile, '%') == NULL ? summary->profile : s->path;
    const char *see = path;

    if (s->numbered) {
        if (s->files == 0) {
            fprintf(stderr, "stile: no file, since sampling was never on\n");
            return;
        }
        see = s->busiest[0] != '\0' ? s->busiest : s->path;
        fprintf(stderr, "stile: wrote %u file%s, from %s on\n", s->files, s->files == 1 ? "" : "s", s->path);
        fprintf(stderr, "stile: see it with: stile top %s, or: go tool pprof -http=: %s\n", see, see);
        return;
    }
    fprintf(stderr, "stile: wrote %s", path);
    if (s->merged > 1)
        fprintf(stderr, ", with %u processes in it", s->merged);
    if (s->running != 0)
        fprintf(stderr, "; %u still run%s, and are added when all have ended", s->running,
                s->running == 1 ? "s" : "");
    if (s->files > 1)
        fprintf(stderr, " and %u more beside it, one for each child", s->files - 1);
    if (s->busiest[0] != '\0' && strcmp(s->busiest, s->path) != 0) {
        see = s->busiest;
        fprintf(stderr, "; most of the time is in %s", see);
    }
    fprintf(stderr, "\nstile: see it with: stile top %s, or: go tool pprof -http=: %s\n", see, see);
}

/* A number in groups of three digits. */
static const char *grouped(uint64_t n, char *text, size_t size)
{
    char digits[32];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;
    for (size_t i = 0; i < len && at + 2 < size; i++) {
        if (i != 0 && (len - i) % 3 == 0)
            text[at++] = ' ';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

/* The reasons with the most time, in brackets. */
static void reasons_print(const struct stile__status *s)
{
    bool shown[STILE__WAIT_REASONS] = {false};
    for (int n = 0;; n++) {
        int best = 0;
        for (int i = 1; i < STILE__WAIT_REASONS; i++)
            if (!shown[i] && s->wait_reason_ns[i] > (best != 0 ? s->wait_reason_ns[best] : 0))
                best = i;
        if (best == 0 || n == REASONS_SHOWN) {
            fprintf(stderr, "%s%s", best != 0 ? ", ..." : "", n != 0 ? ")" : "");
            return;
        }
        shown[best] = true;
        fprintf(stderr, "%s%s %.2f s", n == 0 ? " (" : ", ",
                stile__wait_reason_name((enum stile__wait_reason)best),
                (double)s->wait_reason_ns[best] / 1e9);
    }
}

static void block_print(const struct stile__summary *summary)
{
    const struct stile__status *s = summary->status;
    bool as_given = summary->block[0] != '\0' && strchr(summary->block, '%') == NULL && !s->numbered;
    const char *path = as_given ? summary->block : s->block_path;
    char number[64];

    if (s->block_files == 0)
        return;
    fprintf(stderr, "stile: wrote %s", path);
    if (s->block_files > 1)
        fprintf(stderr, " and %u more %s", s->block_files - 1, s->numbered ? "after it" : "beside it");
    fprintf(stderr, ": %s wait%s, %.2f s blocked", grouped(s->waits, number, sizeof number),
            s->waits == 1 ? "" : "s", (double)s->wait_ns / 1e9);
    reasons_print(s);
    if (s->block_most[0] != '\0' && strcmp(s->block_most, s->block_path) != 0)
        fprintf(stderr, "; most of it is in %s", s->block_most);
    fputc('\n', stderr);
}

static void samples_print(const struct stile__summary *summary)
{
    const struct stile__status *s = summary->status;
    double cpu = (double)s->cpu_ns / 1e9;
    fprintf(stderr,
            "stile: %llu samples, %.2f s of CPU time in %.2f s, %u process%s; %u Hz asked, %.1f/s taken\n",
            (unsigned long long)s->ticks, cpu, summary->seconds, s->processes, s->processes == 1 ? "" : "es",
            summary->hz, s->cpu_ns != 0 ? (double)s->signals / cpu : 0.0);
    if (s->clock[0] != '\0')
        fprintf(stderr, "stile: clock: %s\n", s->clock);
    if (s->kernel_ns != 0)
        fprintf(stderr, "stile: " STILE__KERNEL_NAME " %.2f s\n", (double)s->kernel_ns / 1e9);
    if (s->unprofiled_ns != 0)
        fprintf(stderr, "stile: [children not profiled] %.2f s\n", (double)s->unprofiled_ns / 1e9);
    for (int i = 1; i < STILE__REASON_COUNT; i++)
        if (s->bracketed_ns[i] != 0)
            fprintf(stderr, "stile: %s %.2f s\n", stile__reason_name((enum stile__reason)i),
                    (double)s->bracketed_ns[i] / 1e9);
    if (s->lines_late != 0)
        fprintf(stderr, "stile: lines are left out for %u place%s, since looking them up took too long\n",
                s->lines_late, s->lines_late == 1 ? "" : "s");
}

bool stile__summary_print(const struct stile__summary *summary)
{
    const struct stile__status *s = summary->status;

    if (s->final == 0) {
        fprintf(stderr, "stile: the collector %s; there may be no profile\n",
                summary->collector_gone ? "is gone" : "does not answer");
        return false;
    }
    if (s->path[0] == '\0') {
        if (!summary->told)
            fprintf(stderr, "stile: %s was not profiled: it did not load libstile, or ended before that\n",
                    summary->command);
        return false;
    }
    if (s->error != 0) {
        fprintf(stderr, "stile: %s\n", s->message);
        if (s->failed > 1)
            fprintf(stderr, "stile: %u files could not be written\n", s->failed);
        if (s->files == 0) {
            block_print(summary);
            return false;
        }
    }
    samples_print(summary);
    files_print(summary);
    block_print(summary);
    return s->files != 0;
}
