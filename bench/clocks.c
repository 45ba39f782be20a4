/* `./dev bench clocks`: does a profile hold as many samples as were asked for, and all of the CPU time? Every figure is
 * a ratio to what was asked, or to the CPU clock of the program, in the same run. Peers that are on the machine are
 * asked the same. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/reader.h"

#define RUNS 3 /* of which the median is told */

static char dir[] = "/tmp/stile-bench-XXXXXX";
static char library[PATH_MAX], usage[PATH_MAX];
static const char gperftools[] = "/usr/lib/x86_64-linux-gnu/libprofiler.so.0";

struct run {
    double process_ns; /* by the program's own CPU clock */
    double samples;    /* ticks, weights included */
    double signals;    /* places: signals taken */
    double ns;
    double bracketed; /* share of the time under a bracketed root */
};

static const char *in_dir(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Runs a command with more environment ("NAME=value", NULL-terminated), output to `out`. */
static bool command_run(char *const *argv, char *const *env)
{
    pid_t pid = fork();
    if (pid == 0) {
        int out = open(in_dir("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int null = open("/dev/null", O_WRONLY);
        dup2(out, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        for (; *env != NULL; env++)
            putenv(*env);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* What the usage program said of its CPU time. */
static double told_process_ns(void)
{
    static char text[1 << 20];
    FILE *f = fopen(in_dir("out"), "re");
    if (f == NULL)
        return 0;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    const char *at = strstr(text, "\"process\": ");
    return at != NULL ? strtod(at + strlen("\"process\": "), NULL) : 0;
}

static const char *root_name(const struct stile__profile *p, const Perftools__Profiles__Sample *s)
{
    size_t i = stile__profile_location_index(p, s->location_id[s->n_location_id - 1]);
    const Perftools__Profiles__Location *l = p->pb->location[i];
    return l->n_line == 0
               ? ""
               : stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
}

static bool profile_take(const char *path, struct run *r)
{
    struct stile__profile *p;
    char err[512];
    double bracketed = 0;
    if (stile__profile_read(path, &p, err, sizeof err) != 0)
        return false;
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        const char *root = root_name(p, s);
        r->samples += (double)s->value[0];
        r->ns += (double)s->value[1];
        if (root[0] == '[' && strcmp(root, "[exec and exit]") != 0 && strcmp(root, "[kernel]") != 0)
            bracketed += (double)s->value[1];
    }
    for (size_t i = 0; i < p->pb->n_comment; i++) {
        const char *in = strstr(stile__profile_string(p, p->pb->comment[i]), " ticks in ");
        if (in != NULL)
            r->signals = strtod(in + strlen(" ticks in "), NULL);
    }
    r->bracketed = bracketed / r->ns;
    stile__profile_free(p);
    return true;
}

static bool stile_run(char *const *argv, unsigned hz, const char *clock, struct run *r)
{
    char hz_env[64], clock_env[64], preload[PATH_MAX + 16], profile[PATH_MAX];
    char *env[] = {hz_env, clock_env, preload, profile, NULL};
    snprintf(hz_env, sizeof hz_env, "PROFILE_HZ=%u", hz);
    snprintf(clock_env, sizeof clock_env, "PROFILE_CLOCK=%s", clock);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(profile, sizeof profile, "PROFILE=%s/out.pb.gz", dir);
    *r = (struct run){0};
    bool ok = command_run(argv, env) && profile_take(profile + strlen("PROFILE="), r);
    r->process_ns = told_process_ns();
    unlink(profile + strlen("PROFILE="));
    return ok && r->process_ns > 0;
}

/* gperftools' own format: words; a header of five, then records of count, length and addresses; count 0 ends it. */
static bool gperftools_run(char *const *argv, unsigned hz, const char *unused, struct run *r)
{
    char hz_env[64], preload[PATH_MAX + 16], profile[PATH_MAX];
    char *env[] = {hz_env, preload, profile, NULL};
    uint64_t words[2];
    (void)unused;
    snprintf(hz_env, sizeof hz_env, "CPUPROFILE_FREQUENCY=%u", hz);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", gperftools);
    snprintf(profile, sizeof profile, "CPUPROFILE=%s/gperf", dir);
    *r = (struct run){0};
    if (!command_run(argv, env))
        return false;
    r->process_ns = told_process_ns();
    FILE *f = fopen(profile + strlen("CPUPROFILE="), "re");
    if (f == NULL || fseek(f, 5 * 8, SEEK_SET) != 0)
        return false;
    while (fread(words, 8, 2, f) == 2 && words[0] != 0) {
        r->samples += (double)words[0];
        if (fseek(f, (long)words[1] * 8, SEEK_CUR) != 0)
            break;
    }
    fclose(f);
    r->signals = r->samples;
    r->ns = r->samples * 1e9 / hz;
    return true;
}

static bool perf_run(char *const *argv, unsigned hz, const char *unused, struct run *r)
{
    char rate[32], data[PATH_MAX], line[PATH_MAX + 64];
    char *perf[16] = {"perf", "record", "-q", "-e", "cpu-clock", "-F", rate, "-o", data, "--"},
         *none[] = {NULL};
    int n = 10;
    (void)unused;
    snprintf(rate, sizeof rate, "%u", hz);
    snprintf(data, sizeof data, "%s/perf.data", dir);
    for (int i = 0; argv[i] != NULL && n < 15; i++)
        perf[n++] = argv[i];
    *r = (struct run){0};
    if (!command_run(perf, none))
        return false;
    r->process_ns = told_process_ns();
    snprintf(line, sizeof line, "perf script -F tid -i %s 2>/dev/null | wc -l", data);
    FILE *f = popen(line, "re");
    bool ok = f != NULL && fgets(line, sizeof line, f) != NULL;
    if (f != NULL)
        pclose(f);
    r->samples = r->signals = ok ? strtod(line, NULL) : 0;
    r->ns = r->samples * 1e9 / hz;
    return ok && r->samples > 0;
}

typedef bool run_fn(char *const *, unsigned, const char *, struct run *);

static int by_samples(const void *a, const void *b)
{
    double x = ((const struct run *)a)->samples / ((const struct run *)a)->process_ns;
    double y = ((const struct run *)b)->samples / ((const struct run *)b)->process_ns;
    return (x > y) - (x < y);
}

static bool median(run_fn *run, char *const *argv, unsigned hz, const char *clock, struct run *r)
{
    struct run runs[RUNS];
    for (int i = 0; i < RUNS; i++)
        if (!run(argv, hz, clock, &runs[i]))
            return false;
    qsort(runs, RUNS, sizeof *runs, by_samples);
    *r = runs[RUNS / 2];
    return true;
}

static void delivered(const char *who, run_fn *run, const char *clock)
{
    static const unsigned rates[] = {100, 250, 1000, 4000, 10000, 20000};
    char threads[8];
    char *argv[] = {usage, "threads", threads, "1000", NULL};
    struct run r;
    for (int n = 1; n <= 2; n++) {
        printf("%-24s %d thread%s", who, n, n == 1 ? " " : "s");
        snprintf(threads, sizeof threads, "%d", n);
        for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
            if (median(run, argv, rates[i], clock, &r))
                printf("   %.3f / %.3f", r.samples * 1e9 / (r.process_ns * rates[i]),
                       r.signals * 1e9 / (r.process_ns * rates[i]));
            else
                printf("        -       ");
            fflush(stdout);
        }
        putchar('\n');
    }
}

static void sums(void)
{
    static char *const programs[][6] = {
        {"threads", "1", "2000"}, {"threads", "64", "100"}, {"pool", "10000", "2", "1000"},
        {"calls", "2000"},        {"faults", "2000"},       {"blocked", "2000"},
        {"raw_blocked", "2000"},  {"sleeper", "300"},
    };
    static const unsigned rates[] = {100, 1000, 10000};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        char *argv[8] = {usage}, words[128] = "";
        for (int k = 0; programs[i][k] != NULL; k++) {
            argv[k + 1] = programs[i][k];
            strcat(strcat(words, programs[i][k]), " ");
        }
        printf("%-24s", words);
        for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
            struct run r;
            if (median(stile_run, argv, rates[k], "auto", &r))
                printf("   %.4f (%.2f %%)", r.ns / r.process_ns, 100 * r.bracketed);
            else
                printf("        -         ");
            fflush(stdout);
        }
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    char self[PATH_MAX];
    (void)argv;
    if (argc > 1) {
        fputs("bench_clocks takes no arguments\n", stderr);
        return 2;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0 || mkdtemp(dir) == NULL) {
        perror("bench_clocks");
        return 1;
    }
    self[n] = '\0';
    const char *bin = dirname(self);
    if (snprintf(library, sizeof library, "%s/../lib/libstile.so", bin) >= (int)sizeof library ||
        snprintf(usage, sizeof usage, "%s/../bench/usage", bin) >= (int)sizeof usage)
        return 1;
    printf("Samples / asked for, and places (signals) / asked for; median of %d:\n", RUNS);
    printf("%-24s          ", "");
    printf("   %-15s %-15s %-15s %-15s %-15s %-15s\n", "100 Hz", "250 Hz", "1000 Hz", "4000 Hz", "10000 Hz",
           "20000 Hz");
    delivered("stile", stile_run, "auto");
    delivered("stile, without perf", stile_run, "timer");
    if (access(gperftools, R_OK) == 0)
        delivered("gperftools", gperftools_run, NULL);
    delivered("perf record cpu-clock", perf_run, NULL);
    printf("\nSum of cpu/nanoseconds / CPU clock of the process (share without a whole stack), at 100, 1000, "
           "10000 Hz:\n");
    sums();
    snprintf(self, sizeof self, "rm -r %s", dir);
    return system(self) == 0 ? 0 : 1;
}
