/* `./dev bench depth`: what does a sample cost by how deep the stack is, of which ten frames are new each time, with
 * barriers on it and without? Every figure that counts is a ratio of two sides of the same run of the benchmark.
 *
 *   cost      cycles of a walk, as the profiler's comments have them, and whether every stack was whole: if one in two
 *             hundred was not, with barriers, the benchmark fails
 *   handler   a whole tick / one whose handler does nothing
 *   hits      what the program is slower by when it returns through stubs, beyond what the handler takes
 */
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/depth_plot.h"
#include "bench/runs.h"

#define NEW           10 /* as in depth_stack.c */
#define TICK_ROUNDS   301
#define WHOLE_LEAST   0.995
#define HITS_MOST     0.002
#define HITS_HZ       1000
#define HITS_PAIRS    15
#define HITS_MS       "600"
#define HITS_WALKS    5
#define PASSING       6u /* frames of what is called in passing: clock_gettime and what it calls */
#define BEFORE_MAIN   4u
#define COMPARED_WITH 1 /* depth 30 */

static const unsigned depths[] = {10, 30, 100, 300, 1000, 3000, 10000};
static const unsigned rates[] = {1000, 4000};
static const unsigned hits_depths[] = {1, 2, 4}; /* of depths */
static const char *const modes[] = {"off", "auto", "on", "all"};
enum { DEPTHS = 7, RATES = 2, MODES = 4, HITS_DEPTHS = 3, RUNS_MAX = 99 };
_Static_assert(DEPTHS == DEPTH_PLOT_POINTS && MODES == DEPTH_PLOT_LINES, "what is plotted");

static const char *program, *out_dir;
static unsigned runs = 3;
static const char *run_ms = "1000";
static bool failed;

/* Medians of the runs, all doubles; NAN where nothing was measured. */
static struct {
    double cycles[RATES][MODES][DEPTHS]; /* of a walk */
    double whole[RATES][MODES][DEPTHS];  /* share of samples, the least */
    double handler[MODES][DEPTHS];       /* a whole tick / an empty one */
    double slower[MODES][HITS_DEPTHS];   /* by hits, of the program's time */
} all;

/* ---- one run ---- */

/* What a location is, in a stack that is whole: STEP + its level, or one of these. */
enum { OTHER, BRACKETED, START, MAIN, AT_DEPTH, DOWN, CHANGING, STEP };

static int kind_of(const char *name)
{
    static const struct {
        const char *name;
        int kind;
    } known[] = {{"_start", START}, {"main", MAIN}, {"at_depth", AT_DEPTH}, {"changing", CHANGING}};
    int level, kind;
    if (name[0] == '[')
        return BRACKETED;
    if (sscanf(name, "step_%d_%d", &level, &kind) == 2)
        return STEP + level;
    if (strncmp(name, "down_", 5) == 0)
        return DOWN;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].kind;
    return OTHER;
}

struct taken {
    unsigned depth;
    double whole, broken; /* samples at the depth */
    double walks, cycles;
    uint64_t hits;
    char why[128]; /* one of the broken ones */
};

/* Whether a stack, leaf first, has all that it must have. */
static bool is_whole(const int *kinds, size_t n, unsigned depth)
{
    unsigned levels = depth > NEW ? NEW : depth - 1, downs = depth - 1 - levels, before = 0, step = 0;
    size_t i = n;
    if (n == 0 || kinds[--i] != START)
        return false;
    while (i > 0 && kinds[i - 1] == OTHER && before++ < BEFORE_MAIN)
        i--;
    if (i < 3 || kinds[--i] != MAIN || kinds[--i] != AT_DEPTH)
        return false;
    while (i > 0 && downs > 0 && kinds[i - 1] == DOWN) {
        downs--;
        i--;
    }
    if (downs != 0 || i == 0 || kinds[--i] != CHANGING)
        return false;
    while (i > 0 && kinds[i - 1] == STEP + (int)step) {
        step++;
        i--;
    }
    if (step > levels || i > PASSING)
        return false;
    while (i > 0 && (kinds[i - 1] == OTHER || (kinds[i - 1] == BRACKETED && i == 1))) /* [kernel] */
        i--;
    return i == 0;
}

static bool is_broken(const struct stile__profile *p, const Perftools__Profiles__Sample *s, const int *kinds,
                      struct taken *t)
{
    size_t n = s->n_location_id;
    const Perftools__Profiles__Location *root =
        p->pb->location[stile__profile_location_index(p, s->location_id[n - 1])];
    bool here = kinds[n - 1] == BRACKETED && strcmp(runs_frame_name(p, root), "[exec and exit]") != 0;
    for (size_t i = 0; i < n && !here; i++)
        here = kinds[i] == CHANGING || kinds[i] >= STEP;
    if (here)
        snprintf(t->why, sizeof t->why, "%zu frames under %s", n, runs_frame_name(p, root));
    return here; /* otherwise it is of what comes before or after */
}

static void profile_take(const struct stile__profile *p, void *arg)
{
    struct taken *t = arg;
    const char *command = runs_comment(p, "command: ");
    uint64_t n, cycles;
    if (strstr(command, " warm ") != NULL)
        return;
    if (sscanf(runs_comment(p, "walk time: "), "walk time: %" SCNu64 " by rules alone, %" SCNu64, &n,
               &cycles) == 2) {
        t->walks = (double)n;
        t->cycles = (double)cycles;
    }
    sscanf(runs_comment(p, "stack barriers: "), "stack barriers: %*[a-z]; placed %*u, hit %" SCNu64,
           &t->hits);
    int *kinds = malloc(p->pb->n_location * sizeof *kinds);
    size_t deepest = 0;
    for (size_t i = 0; i < p->pb->n_sample; i++)
        deepest = p->pb->sample[i]->n_location_id > deepest ? p->pb->sample[i]->n_location_id : deepest;
    int *stack = malloc(deepest * sizeof *stack);
    if (kinds == NULL || stack == NULL)
        abort();
    for (size_t i = 0; i < p->pb->n_location; i++)
        kinds[i] = kind_of(runs_frame_name(p, p->pb->location[i]));
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        for (size_t k = 0; k < s->n_location_id; k++)
            stack[k] = kinds[stile__profile_location_index(p, s->location_id[k])];
        if (is_whole(stack, s->n_location_id, t->depth))
            t->whole += (double)s->value[0];
        else if (is_broken(p, s, stack, t))
            t->broken += (double)s->value[0];
    }
    free(kinds);
    free(stack);
}

struct asked {
    const char *way; /* of depth_stack */
    unsigned depth;
    const char *amount, *mode;
    unsigned hz;
    const char *clock, *cpu; /* cpu: any if NULL */
    bool time_walks;
};

static void start(unsigned number, const struct asked *a)
{
    char depth[16], clock[32], mode[32];
    const char *argv[] = {program, a->way, depth, a->amount, a->cpu, NULL};
    const char *env[] = {clock, mode, a->time_walks ? "PROFILE_DEBUG=walktime=1" : NULL, NULL};
    snprintf(depth, sizeof depth, "%u", a->depth);
    snprintf(clock, sizeof clock, "PROFILE_CLOCK=%s", a->clock);
    snprintf(mode, sizeof mode, "PROFILE_BARRIERS=%s", a->mode);
    runs_start(number, a->hz, argv, env);
}

static bool take(unsigned number, const struct asked *a, struct taken *t)
{
    *t = (struct taken){.depth = a->depth};
    bool ok = runs_wait(number) && runs_files(number, profile_take, t) != 0;
    if (!ok) {
        printf("depth %u, %s, %u Hz could not be measured\n", a->depth, a->mode, a->hz);
        failed = true;
    }
    return ok;
}

static bool run(const struct asked *a, struct taken *t)
{
    start(0, a);
    return take(0, a, t);
}

/* ---- the walk ---- */

/* Cycles of a walk; NAN if there are none. */
static double cost_run(unsigned rate, unsigned mode, unsigned depth)
{
    struct taken t;
    if (!run(&(struct asked){"warm", depths[depth], run_ms, modes[mode], rates[rate], "perf", NULL, true},
             &t))
        return NAN;
    double whole = t.whole / (t.whole + t.broken);
    if (!(whole >= all.whole[rate][mode][depth]))
        all.whole[rate][mode][depth] = whole;
    if (!(whole >= WHOLE_LEAST)) {
        /* Without barriers all frames of all samples go through the buffers, which have an end. */
        printf("depth %u, %s, %u Hz: %.2f %% of the stacks whole (>= %.1f%s); e.g. %s\n", depths[depth],
               modes[mode], rates[rate], 100 * whole, 100 * WHOLE_LEAST,
               mode != 0 ? ": FAILED" : ", with barriers", t.why);
        failed = failed || mode != 0;
    }
    return t.cycles / t.walks;
}

/* The modes take turns: what else runs on the machine is the same for all. */
static void cost_measure(unsigned rate, unsigned depth)
{
    double cycles[MODES][RUNS_MAX];
    for (unsigned m = 0; m < MODES; m++)
        all.whole[rate][m][depth] = 1;
    for (unsigned i = 0; i < runs; i++)
        for (unsigned m = 0; m < MODES; m++)
            cycles[m][i] = cost_run(rate, m, depth);
    for (unsigned m = 0; m < MODES; m++)
        all.cycles[rate][m][depth] = runs_median(cycles[m], runs);
}

/* The depth from which on a mode costs less than off. */
static void break_even(const char *what, double of[MODES][DEPTHS])
{
    for (unsigned mode = 1; mode < MODES; mode++) {
        unsigned d = DEPTHS;
        while (d > 0 && of[mode][d - 1] < of[0][d - 1])
            d--;
        if (d < DEPTHS)
            printf("  %s: %s costs less than off from depth %u on\n", what, modes[mode], depths[d]);
        else
            printf("  %s: %s does not cost less than off\n", what, modes[mode]);
    }
}

static void table(double of[MODES][DEPTHS], const char *format)
{
    printf("  %-8s", "depth");
    for (unsigned m = 0; m < MODES; m++)
        printf(" %20s", modes[m]);
    putchar('\n');
    for (unsigned d = 0; d < DEPTHS; d++) {
        printf("  %-8u", depths[d]);
        for (unsigned m = 0; m < MODES; m++) {
            printf(format, of[m][d]);
            printf("  x %-7.2f", of[m][d] / of[m][COMPARED_WITH]);
        }
        putchar('\n');
    }
}

static void cost(void)
{
    for (unsigned rate = 0; rate < RATES; rate++) {
        printf("Cycles of a walk at %u Hz, ten frames new, mean of a run, median of %u runs; x: by what they "
               "are "
               "at depth %u\n",
               rates[rate], runs, depths[COMPARED_WITH]);
        for (unsigned d = 0; d < DEPTHS; d++)
            cost_measure(rate, d);
        table(all.cycles[rate], " %10.0f");
        break_even("a walk", all.cycles[rate]);
        printf("  Stacks whole, the least of all runs:");
        for (unsigned m = 0; m < MODES; m++) {
            double least = 1;
            for (unsigned d = 0; d < DEPTHS; d++)
                least = all.whole[rate][m][d] < least ? all.whole[rate][m][d] : least;
            printf(" %s %.2f %%%s", modes[m], 100 * least, m + 1 < MODES ? "," : "\n");
        }
    }
}

/* ---- the handler ---- */

static double handler_run(unsigned mode, unsigned depth)
{
    static double sending[TICK_ROUNDS], empty[TICK_ROUNDS], ours[TICK_ROUNDS];
    char rounds[16];
    struct taken t;
    int n = 0, used;
    snprintf(rounds, sizeof rounds, "%d", TICK_ROUNDS);
    /* A timer's ticks are taken each; of perf's some would be let go by, as there are more than there is time. */
    if (!run(&(struct asked){"ticks", depths[depth], rounds, modes[mode], 20000, "timer", NULL, false}, &t))
        return NAN;
    for (const char *at = runs_output(0); n < TICK_ROUNDS; at += used, n++)
        if (sscanf(at, "%lf %lf %lf%n", &sending[n], &empty[n], &ours[n], &used) != 3)
            break;
    double call = runs_median(sending, (size_t)n);
    return (runs_median(ours, (size_t)n) - call) / (runs_median(empty, (size_t)n) - call);
}

static void handler_measure(unsigned depth)
{
    double ratio[MODES][RUNS_MAX];
    for (unsigned i = 0; i < runs; i++)
        for (unsigned m = 0; m < MODES; m++)
            ratio[m][i] = handler_run(m, depth);
    for (unsigned m = 0; m < MODES; m++)
        all.handler[m][depth] = runs_median(ratio[m], runs);
}

static void handler(void)
{
    printf("A whole tick: (our handler - sending) / (empty handler - sending), medians of %d ticks in turn, "
           "and of "
           "%u runs;\nx: by what it is at depth %u\n",
           TICK_ROUNDS, runs, depths[COMPARED_WITH]);
    for (unsigned d = 0; d < DEPTHS; d++)
        handler_measure(d);
    table(all.handler, " %10.3f");
    break_even("a tick", all.handler);
}

/* ---- hits ---- */

static char cpu[16];

/* The last one that there is, for both sides. */
static void cpu_choose(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            snprintf(cpu, sizeof cpu, "%d", i);
}

static double cycles_in_second(void)
{
    struct timespec a, b, pause = {0, 100000000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t start = __builtin_ia32_rdtsc();
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double cycles = (double)(__builtin_ia32_rdtsc() - start);
    return cycles / ((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
}

/* Two programs at once on one processor, which have it in turns of a few milliseconds: whatever the machine does, it does to
 * both. 1 - speed with / speed without barriers, by the CPU time of each; NAN if that cannot be told. */
static double slower_by(unsigned depth, const char *mode, struct taken *with)
{
    const struct asked pair[] = {{"warm", depth, HITS_MS, modes[0], HITS_HZ, "perf", cpu, false},
                                 {"warm", depth, HITS_MS, mode, HITS_HZ, "perf", cpu, false}};
    double n[2], ns[2];
    struct taken t[2];
    bool ok = true;
    for (unsigned i = 0; i < 2; i++)
        start(i, &pair[i]);
    for (unsigned i = 0; i < 2; i++)
        ok = take(i, &pair[i], &t[i]) && sscanf(runs_output(i), "%lf %lf", &n[i], &ns[i]) == 2 && ok;
    *with = t[1];
    return ok ? 1 - (n[1] / ns[1]) / (n[0] / ns[0]) : NAN;
}

/* What share of the time walks take: the least of some runs, since a walk that is preempted only takes longer. */
static double walks_share(unsigned depth, const char *mode, double tsc_hz)
{
    double least = INFINITY;
    struct taken t;
    for (int i = 0; i < HITS_WALKS; i++) {
        if (!run(&(struct asked){"warm", depth, HITS_MS, mode, HITS_HZ, "perf", cpu, true}, &t))
            return NAN;
        double share = t.cycles / t.walks / tsc_hz * HITS_HZ;
        least = share < least ? share : least;
    }
    return least;
}

static void hits_measure(unsigned mode, unsigned at, double tsc_hz, double walks_off)
{
    const unsigned depth = depths[hits_depths[at]];
    double slower[HITS_PAIRS], hits[HITS_PAIRS];
    double walks = walks_share(depth, modes[mode], tsc_hz) - walks_off;
    struct taken t;
    for (int i = 0; i < HITS_PAIRS; i++) {
        slower[i] = slower_by(depth, modes[mode], &t);
        hits[i] = (double)t.hits;
        if (!isfinite(slower[i]))
            return;
    }
    double median = runs_median(slower, HITS_PAIRS); /* which sorts */
    all.slower[mode][at] = median - walks;
    printf("  depth %-6u %-5s %+.3f %% (<= %.1f): slower by %+.3f %%, quartiles %+.3f to %+.3f; of that the "
           "walks %+.3f %%; %.0f hits a run\n",
           depth, modes[mode], 100 * all.slower[mode][at], 100 * HITS_MOST, 100 * median,
           100 * slower[HITS_PAIRS / 4], 100 * slower[HITS_PAIRS - 1 - HITS_PAIRS / 4], 100 * walks,
           runs_median(hits, HITS_PAIRS));
}

static void hits(void)
{
    double tsc_hz = cycles_in_second();
    cpu_choose();
    printf("What the program is slower by at %d Hz with barriers, beyond the walks: iterations in a second "
           "of CPU time,\n"
           "1 - with / without, median of %d pairs that share a processor, less the difference that the "
           "walks make\n",
           HITS_HZ, HITS_PAIRS);
    for (unsigned at = 0; at < HITS_DEPTHS; at++) {
        double walks_off = walks_share(depths[hits_depths[at]], modes[0], tsc_hz);
        for (unsigned mode = 2; mode < MODES; mode++)
            hits_measure(mode, at, tsc_hz, walks_off);
    }
}

/* ---- results ---- */

static void numbers_out(FILE *f, const char *name, const double *of, unsigned n, const char *end)
{
    fprintf(f, "\"%s\": [", name);
    for (unsigned i = 0; i < n; i++) {
        fputs(i != 0 ? ", " : "", f);
        if (isfinite(of[i]))
            fprintf(f, "%.6g", of[i]);
        else
            fputs("null", f);
    }
    fprintf(f, "]%s", end);
}

static void results_write(void)
{
    double of_depths[DEPTHS], of_hits[HITS_DEPTHS];
    for (unsigned d = 0; d < DEPTHS; d++)
        of_depths[d] = depths[d];
    for (unsigned d = 0; d < HITS_DEPTHS; d++)
        of_hits[d] = depths[hits_depths[d]];
    FILE *f = runs_result(out_dir, "depth.json");
    if (f == NULL)
        return;
    fputs("{", f);
    numbers_out(f, "depths", of_depths, DEPTHS, ", ");
    numbers_out(f, "hits_depths", of_hits, HITS_DEPTHS, ",\n \"modes\": {\n");
    for (unsigned m = 0; m < MODES; m++) {
        fprintf(f, "  \"%s\": {", modes[m]);
        for (unsigned r = 0; r < RATES; r++) {
            char name[64];
            snprintf(name, sizeof name, "walk_cycles_%u_hz", rates[r]);
            numbers_out(f, name, all.cycles[r][m], DEPTHS, ", ");
            snprintf(name, sizeof name, "whole_%u_hz", rates[r]);
            numbers_out(f, name, all.whole[r][m], DEPTHS, ", ");
        }
        numbers_out(f, "tick_by_empty_tick", all.handler[m], DEPTHS, ", ");
        numbers_out(f, "slower_by_hits", all.slower[m], HITS_DEPTHS, m + 1 < MODES ? "},\n" : "}\n");
    }
    fputs(" }}\n", f);
    fclose(f);
}

static void plot_write(void)
{
    struct depth_plot plot = {.title = "Cost of a sample's walk at 1000 Hz, ten frames new",
                              .x_label = "depth of the stack (frames)",
                              .y_label = "cycles of a walk"};
    for (unsigned d = 0; d < DEPTHS; d++)
        plot.x[d] = depths[d];
    for (unsigned m = 0; m < MODES; m++) {
        plot.lines[m].name = modes[m];
        memcpy(plot.lines[m].y, all.cycles[0][m], sizeof plot.lines[m].y);
    }
    FILE *f = runs_result(out_dir, "depth.svg");
    if (f == NULL)
        return;
    depth_plot_write(f, &plot);
    fclose(f);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*measure)(void);
    } parts[] = {{"cost", cost}, {"handler", handler}, {"hits", hits}};
    unsigned chosen = 0;
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (unsigned k = 0; k < 3; k++)
            if (strcmp(argv[i], parts[k].name) == 0) {
                chosen |= 1u << k;
                known = true;
            }
        if (!known && i + 1 < argc && strcmp(argv[i], "--out") == 0) {
            out_dir = argv[++i];
        } else if (!known && i + 1 < argc && strcmp(argv[i], "--runs") == 0) {
            runs = (unsigned)strtoul(argv[++i], NULL, 10);
            known = runs >= 1 && runs <= RUNS_MAX;
        } else if (!known && i + 1 < argc && strcmp(argv[i], "--ms") == 0) {
            run_ms = argv[++i];
        } else if (!known) {
            fputs("bench_depth takes some of cost, handler, hits, or nothing for all; --out DIR for its "
                  "results, "
                  "--runs N, --ms OF_A_RUN\n",
                  stderr);
            return 2;
        }
    }
    for (size_t i = 0; i < sizeof all / sizeof(double); i++)
        ((double *)&all)[i] = NAN;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (runs < 1 || runs > RUNS_MAX || !runs_begin())
        return 1;
    program = runs_program("depth_stack");
    failed = program == NULL;
    for (unsigned k = 0; k < 3 && program != NULL; k++)
        if (chosen == 0 || (chosen & 1u << k) != 0)
            parts[k].measure();
    if (program != NULL) {
        results_write();
        if (all.cycles[0][0][0] > 0)
            plot_write();
    }
    runs_end();
    return failed ? 1 : 0;
}
