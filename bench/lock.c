/* `./dev bench lock`: how often is a sample without a stack because the stack was locked? The thread's own code holds the
 * lock with signals blocked, so only what another thread holds can be in a sample's way. Told under what programs do, and
 * where one of the things that take the lock is done again and again. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bench/runs.h"

#define MODE     "on"
#define RUN_MS   "1500"
#define RUNS_MAX 99

static const char *const ways[] = {"normal", "fork", "threads", "throw"};
static const unsigned rates[] = {1000, 4000, 10000, 20000};
enum { WAYS = 4, RATES = 4 };

static const char *program;
static unsigned runs = 3;

struct result {
    double locked;  /* share of samples under [stack locked] */
    double whole;   /* share without any reason */
    double samples; /* of a run */
    double hits;    /* barriers that were returned through, of a run */
};
static struct result all[WAYS][RATES];

struct taken {
    double samples, locked, reasons;
    uint64_t hits;
};

/* Of the program and each child. */
static void profile_take(const struct stile__profile *p, void *arg)
{
    struct taken *t = arg;
    uint64_t hits = 0;
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        size_t at = stile__profile_location_index(p, s->location_id[s->n_location_id - 1]);
        const char *root = runs_frame_name(p, p->pb->location[at]);
        double n = (double)s->value[0];
        t->samples += n;
        if (strcmp(root, "[stack locked]") == 0)
            t->locked += n;
        if (root[0] == '[' && strcmp(root, "[exec and exit]") != 0 && strcmp(root, "[kernel]") != 0)
            t->reasons += n;
    }
    sscanf(runs_comment(p, "stack barriers: "), "stack barriers: %*[a-z]; placed %*u, hit %" SCNu64, &hits);
    t->hits += hits;
}

static bool measure(unsigned way, unsigned rate, struct result *r)
{
    double locked[RUNS_MAX], whole[RUNS_MAX], samples[RUNS_MAX], hits[RUNS_MAX];
    const char *argv[] = {program, ways[way], RUN_MS, NULL};
    const char *env[] = {"PROFILE_CLOCK=perf", "PROFILE_BARRIERS=" MODE, NULL};
    for (unsigned i = 0; i < runs; i++) {
        struct taken t = {0};
        runs_start(0, rates[rate], argv, env);
        if (!runs_wait(0) || runs_files(0, profile_take, &t) == 0 || t.samples == 0)
            return false;
        locked[i] = t.locked / t.samples;
        whole[i] = 1 - t.reasons / t.samples;
        samples[i] = t.samples;
        hits[i] = (double)t.hits;
    }
    *r = (struct result){runs_median(locked, runs), runs_median(whole, runs), runs_median(samples, runs),
                         runs_median(hits, runs)};
    return true;
}

static bool tell(void)
{
    bool ok = true;
    printf("Samples under [stack locked] with PROFILE_BARRIERS=%s, median of %u runs of " RUN_MS
           " ms; beside it those with a whole stack, samples and hits of a run\n"
           "  %-10s",
           MODE, runs, "");
    for (unsigned rate = 0; rate < RATES; rate++)
        printf(" %30u Hz  ", rates[rate]);
    putchar('\n');
    for (unsigned way = 0; way < WAYS; way++) {
        printf("  %-10s", ways[way]);
        for (unsigned rate = 0; rate < RATES; rate++) {
            struct result *r = &all[way][rate];
            if (measure(way, rate, r)) {
                printf(" %9.4f %% (%6.2f %%, %5.0f, %5.0f)", 100 * r->locked, 100 * r->whole, r->samples,
                       r->hits);
            } else {
                *r = (struct result){NAN, NAN, NAN, NAN};
                printf(" %35s", "-");
                ok = false;
            }
            fflush(stdout);
        }
        putchar('\n');
    }
    return ok;
}

static void number_out(FILE *f, const char *name, double value, const char *end)
{
    if (isfinite(value))
        fprintf(f, "\"%s\": %.6g%s", name, value, end);
    else
        fprintf(f, "\"%s\": null%s", name, end);
}

static void result_write(const char *out_dir)
{
    FILE *f = runs_result(out_dir, "lock.json");
    if (f == NULL)
        return;
    fprintf(f, "{\"barriers\": \"%s\", \"runs\": %u, \"results\": [", MODE, runs);
    for (unsigned way = 0; way < WAYS; way++)
        for (unsigned rate = 0; rate < RATES; rate++) {
            fprintf(f, "%s\n  {\"way\": \"%s\", \"hz\": %u, ", way + rate != 0 ? "," : "", ways[way],
                    rates[rate]);
            number_out(f, "locked", all[way][rate].locked, ", ");
            number_out(f, "whole", all[way][rate].whole, ", ");
            number_out(f, "samples", all[way][rate].samples, ", ");
            number_out(f, "hits", all[way][rate].hits, "}");
        }
    fputs("\n]}\n", f);
    fclose(f);
}

int main(int argc, char **argv)
{
    const char *out_dir = NULL;
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--out") == 0) {
            out_dir = argv[++i];
        } else if (i + 1 < argc && strcmp(argv[i], "--runs") == 0) {
            runs = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            runs = 0;
            break;
        }
    }
    if (runs < 1 || runs > RUNS_MAX) {
        fputs("bench_lock takes --out DIR for its results and --runs N\n", stderr);
        return 2;
    }
    if (!runs_begin())
        return 1;
    program = runs_program("lock_load");
    bool ok = program != NULL && tell();
    if (program != NULL)
        result_write(out_dir);
    runs_end();
    return ok ? 0 : 1;
}
