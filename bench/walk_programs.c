/* Walks in real programs, and what rules take there of memory and of the collector's time. What programs say of themselves
 * in a profile's comments is read here; a peer says it in a file. */
#include "bench/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/reader.h"

#define HZ           1000
#define PAIRS        3 /* of runs, ours and the peer's in turn */
#define WARM_SECONDS 2
#define REAL_SECONDS 8
#define LONG_SECONDS 30
#define RULES_KIB    4096
#define ARGS_MAX     12

static char dir[] = "/tmp/stile-bench-XXXXXX";
static char library[PATH_MAX], peer[PATH_MAX], collector[PATH_MAX];

/* A program that is measured: its name for people, and how it is run; no arguments if it is not here. */
struct program {
    const char *name;
    double target; /* peer / ours */
    char path[PATH_MAX], file[PATH_MAX];
    const char *args[ARGS_MAX];
};

/* What a profile says of its walks. */
struct walks {
    uint64_t by_rules, by_libunwind, unruled; /* frames */
    uint64_t kib;
    uint64_t n, cycles; /* walks, and what they took */
    uint64_t snapshots; /* of the walks, those that left the rest of the stack to the collector */
};

/* ---- files and processes ---- */

static const char *in_dir(char *path, const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return path;
}

static bool file_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return false;
    fputs(text, f);
    return fclose(f) == 0;
}

/* The first line that a command writes. */
static bool ask(const char *command, char *line, size_t size)
{
    FILE *f = popen(command, "re");
    bool ok = f != NULL && fgets(line, (int)size, f) != NULL;
    if (f != NULL)
        ok = pclose(f) == 0 && ok;
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok && line[0] == '/';
}

/* Starts a command with more environment ("NAME=value", NULL-terminated), silent. */
static pid_t command_start(const char *const *argv, char *const *env)
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        for (; *env != NULL; env++)
            putenv(*env);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

static bool command_ended(pid_t pid)
{
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* ---- the programs ---- */

static const char python_script[] =
    "import json, re, sys, time\n"
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
    "def tree(n): return {} if n == 0 else {'left': tree(n - 1), 'right': tree(n - 1), 'n': [n] * 3}\n"
    "def depth(t): return 1 + max(map(depth, (t['left'], t['right']))) if t else 0\n"
    "end = time.process_time() + float(sys.argv[1])\n"
    "while time.process_time() < end:\n"
    "    fib(16)\n"
    "    t = json.loads(json.dumps(tree(7)))\n"
    "    depth(t)\n"
    "    re.sub(r'(\\d+)|([a-c]+)', lambda m: (m.group(1) or 'x') * 2, 'a1b22c333' * 50)\n"
    "    counts = {}\n"
    "    for word in json.dumps(t, indent=1).split():\n"
    "        counts[word] = counts.get(word, 0) + 1\n"
    "    sorted(counts.items(), key=lambda item: (-item[1], item[0]))\n";

static const char node_script[] =
    "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\n"
    "function tree(n) { return n == 0 ? {} : {left: tree(n - 1), right: tree(n - 1), n: [n, n]}; }\n"
    "let sink = 0;\n"
    "while (process.cpuUsage().user < Number(process.argv[2]) * 1e6) {\n"
    "  sink += fib(18);\n"
    "  const text = JSON.stringify(tree(8));\n"
    "  sink += JSON.stringify(JSON.parse(text)).length;\n"
    "  sink += 'a1b22'.repeat(50).replace(/\\d+/g, m => m * 2).length;\n"
    "  const counts = new Map();\n"
    "  for (const word of text.split(',')) counts.set(word, (counts.get(word) || 0) + 1);\n"
    "  sink += [...counts.entries()].sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1)).length;\n"
    "}\n"
    "if (sink == 1) console.log(sink);\n";

static const char cxx_source[] =
    "#include <algorithm>\n#include <functional>\n#include <map>\n#include <regex>\n#include <string>\n"
    "#include <unordered_map>\n"
    "template <int N> struct S {\n"
    "    std::map<int, std::string> m;\n"
    "    std::function<int(int)> f;\n"
    "    int go() {\n"
    "        std::regex r(\"a+b\");\n"
    "        std::unordered_map<std::string, S<N - 1>> u;\n"
    "        std::sort(&m[0], &m[N], [](auto &a, auto &b) { return a.size() < b.size() + N; });\n"
    "        return u[\"x\"].go() + f(N);\n"
    "    }\n"
    "};\n"
    "template <> struct S<0> { int go() { return 0; } };\n"
    "int main() { S<22> s; return s.go(); }\n";

static void python_find(struct program *p, const char *seconds)
{
    *p = (struct program){.name = "CPython", .target = 5};
    if (!ask("python3 -c 'import sys; print(sys.executable)' 2>/dev/null", p->path, sizeof p->path) ||
        !file_write(in_dir(p->file, "work.py"), python_script))
        return;
    const char *args[] = {p->path, p->file, seconds};
    memcpy(p->args, args, sizeof args);
}

static void node_find(struct program *p, const char *seconds)
{
    *p = (struct program){.name = "node"};
    if (!ask("node -p process.execPath 2>/dev/null", p->path, sizeof p->path) ||
        !file_write(in_dir(p->file, "work.js"), node_script))
        return;
    const char *args[] = {p->path, p->file, seconds};
    memcpy(p->args, args, sizeof args);
}

/* The compiler proper, of a source whose headers are in it. */
static void cc1plus_find(struct program *p)
{
    char source[PATH_MAX], command[3 * PATH_MAX];
    *p = (struct program){.name = "cc1plus", .target = 10};
    if (!ask("g++ -print-prog-name=cc1plus 2>/dev/null", p->path, sizeof p->path) ||
        !file_write(in_dir(source, "work.cc"), cxx_source))
        return;
    in_dir(p->file, "work.ii");
    snprintf(command, sizeof command, "g++ -std=c++17 -E %s -o %s", source, p->file);
    if (system(command) != 0)
        return;
    /* Its garbage collector is kept from running: a few samples in it, thousands of frames deep, would be most of what is
     * compared. */
    const char *args[] = {
        p->path, "-quiet", "-O2",      "-std=c++17", "-fpreprocessed", "--param=ggc-min-heapsize=4194304",
        p->file, "-o",     "/dev/null"};
    _Static_assert(sizeof args / sizeof *args < ARGS_MAX, "a NULL ends them");
    memcpy(p->args, args, sizeof args);
}

static bool found(const struct program *p)
{
    if (p->args[0] == NULL)
        printf("  %-8s is not here\n", p->name);
    return p->args[0] != NULL;
}

/* ---- ours ---- */

static bool comments_take(const char *path, struct walks *w)
{
    struct stile__profile *p;
    char err[512];
    bool told = false;
    uint64_t n[2] = {0}, cycles[2] = {0};
    memset(w, 0, sizeof *w);
    if (stile__profile_read(path, &p, err, sizeof err) != 0) {
        fprintf(stderr, "bench_walk: %s\n", err);
        return false;
    }
    for (size_t i = 0; i < p->pb->n_comment; i++) {
        const char *text = stile__profile_string(p, p->pb->comment[i]);
        if (sscanf(text,
                   "walk: %" SCNu64 " frames by rules, %" SCNu64 " by libunwind, %" SCNu64
                   " of them without a rule; %" SCNu64 " KiB",
                   &w->by_rules, &w->by_libunwind, &w->unruled, &w->kib) == 4)
            told = true;
        sscanf(text,
               "walk time: %" SCNu64 " by rules alone, %" SCNu64 " cycles; %" SCNu64
               " with a snapshot, %" SCNu64,
               &n[0], &cycles[0], &n[1], &cycles[1]);
    }
    stile__profile_free(p);
    w->n = n[0] + n[1];
    w->cycles = cycles[0] + cycles[1];
    w->snapshots = n[1];
    return told;
}

/* Of the pieces of one run: totals up to the first cut, and at the end. Files are removed. */
static bool pieces_take(const char *in, struct walks *first, struct walks *last)
{
    DIR *d = opendir(in);
    unsigned files = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[2 * PATH_MAX];
        struct walks w;
        snprintf(path, sizeof path, "%s/%s", in, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (comments_take(path, &w)) {
            if (files == 0 || w.n < first->n)
                *first = w;
            if (files == 0 || w.n > last->n)
                *last = w;
            files++;
        }
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
    return files >= 2;
}

static pid_t ours_start(const struct program *p, const char *profile, const char *interval)
{
    static char preload[PATH_MAX + 16], where[PATH_MAX + 32], hz[32];
    char *env[] = {preload, where, hz, (char *)"PROFILE_DEBUG=walktime=1", (char *)interval, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(where, sizeof where, "PROFILE=%s", profile);
    snprintf(hz, sizeof hz, "PROFILE_HZ=%d", HZ);
    return command_start(p->args, env);
}

/* Walks after the first cut. */
static bool ours_run(const struct program *p, struct walks *w)
{
    char pieces[PATH_MAX], profile[PATH_MAX + 16], interval[64];
    struct walks first = {0};
    mkdir(in_dir(pieces, "pieces"), 0700);
    snprintf(profile, sizeof profile, "%s/o.pb.gz", pieces);
    snprintf(interval, sizeof interval, "PROFILE_INTERVAL=%ds", WARM_SECONDS);
    if (!command_ended(ours_start(p, profile, interval)) || !pieces_take(pieces, &first, w))
        return false;
    w->by_rules -= first.by_rules;
    w->by_libunwind -= first.by_libunwind;
    w->unruled -= first.unruled;
    w->n -= first.n;
    w->cycles -= first.cycles;
    w->snapshots -= first.snapshots;
    return w->n != 0;
}

/* ---- the peer ---- */

struct peer_walks {
    uint64_t n, cycles, frames;
};

static bool peer_run(const struct program *p, struct peer_walks *w)
{
    char preload[PATH_MAX + 16], out[PATH_MAX], told[PATH_MAX + 32], hz[32];
    char *env[] = {preload, told, hz, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", peer);
    snprintf(told, sizeof told, "STILE_BENCH_OUT=%s", in_dir(out, "peer"));
    snprintf(hz, sizeof hz, "STILE_BENCH_HZ=%d", HZ);
    if (!command_ended(command_start(p->args, env)))
        return false;
    FILE *f = fopen(out, "re");
    bool ok = f != NULL &&
              fscanf(f, "%" SCNu64 " %" SCNu64 " %" SCNu64, &w->n, &w->cycles, &w->frames) == 3 && w->n != 0;
    if (f != NULL)
        fclose(f);
    unlink(out);
    return ok;
}

/* ---- walks in real programs ---- */

/* What the pairs of runs came to. */
struct pairs {
    double ratio[PAIRS];               /* peer / ours */
    double ours[PAIRS], theirs[PAIRS]; /* cycles of a walk */
    double ours_frames, theirs_frames; /* of a walk */
    double ruled;                      /* share of frames that had a rule, the least */
    double snapshots;                  /* share of walks, the greatest */
    uint64_t kib;
};

static bool pair_run(const struct program *p, int i, struct pairs *all)
{
    struct walks w;
    struct peer_walks pw;
    if (!ours_run(p, &w) || !peer_run(p, &pw))
        return false;
    double frames = (double)(w.by_rules + w.by_libunwind), n = (double)w.n;
    double ruled = 1 - (double)w.unruled / frames, snapshots = (double)w.snapshots / n;
    all->ours[i] = (double)w.cycles / n;
    all->theirs[i] = (double)pw.cycles / (double)pw.n;
    all->ratio[i] = all->theirs[i] / all->ours[i];
    all->ours_frames = frames / n;
    all->theirs_frames = (double)pw.frames / (double)pw.n;
    all->ruled = ruled < all->ruled ? ruled : all->ruled;
    all->snapshots = snapshots > all->snapshots ? snapshots : all->snapshots;
    all->kib = w.kib > all->kib ? w.kib : all->kib;
    return true;
}

static void program_compare(const struct program *p)
{
    struct pairs all = {.ruled = 1};
    if (!found(p))
        return;
    for (int i = 0; i < PAIRS; i++)
        if (!pair_run(p, i, &all)) {
            printf("  %-8s could not be measured\n", p->name);
            return;
        }
    /* Medians sort. */
    double ratio = walk_median(all.ratio, PAIRS), ours = walk_median(all.ours, PAIRS),
           theirs = walk_median(all.theirs, PAIRS);
    printf("  %-8s unw_backtrace / ours: %.1f (>= %.0f), from %.1f to %.1f; least / least: %.1f   %s\n",
           p->name, ratio, p->target, all.ratio[0], all.ratio[PAIRS - 1], all.theirs[0] / all.ours[0],
           p->path);
    printf("           ours %.0f cycles, %.1f frames; unw_backtrace %.0f cycles, %.1f frames\n", ours,
           all.ours_frames, theirs, all.theirs_frames);
    printf("           frames with a rule %.2f %% (>= 99.5); walks that ended in a snapshot %.1f %%; "
           "%" PRIu64 " KiB of rules\n",
           100 * all.ruled, 100 * all.snapshots, all.kib);
}

static void real(void)
{
    struct program p;
    char seconds[16];
    printf("A sample's walk at %d Hz, mean of all from second %d on; median of %d pairs of runs, worst of "
           "shares.\n"
           "The least stands beside it: what else runs on the machine only adds to a mean\n",
           HZ, WARM_SECONDS, PAIRS);
    snprintf(seconds, sizeof seconds, "%d", REAL_SECONDS);
    python_find(&p, seconds);
    program_compare(&p);
    cc1plus_find(&p);
    program_compare(&p);
}

/* ---- memory, and the collector's time ---- */

/* CPU time of a process, in clock ticks, and when it started; false if it is gone. */
static bool process_read(long pid, double *cpu, double *started)
{
    char path[64], text[1024];
    unsigned long user, kernel;
    unsigned long long start;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    const char *after_name = strrchr(text, ')');
    if (after_name == NULL ||
        sscanf(after_name + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu", &user,
               &kernel, &start) != 3)
        return false;
    *cpu = (double)(user + kernel);
    *started = (double)start;
    return true;
}

/* The collector that was started last, and not before a program; 0 if there is none. */
static long collector_find(double not_before)
{
    DIR *d = opendir("/proc");
    long found_pid = 0;
    double latest = not_before;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[300], exe[PATH_MAX];
        double cpu, started;
        long pid = strtol(e->d_name, NULL, 10);
        snprintf(path, sizeof path, "/proc/%s/exe", e->d_name);
        ssize_t n = pid > 0 ? readlink(path, exe, sizeof exe - 1) : -1;
        if (n <= 0)
            continue;
        exe[n] = '\0';
        if (strcmp(exe, collector) == 0 && process_read(pid, &cpu, &started) && started >= latest) {
            latest = started;
            found_pid = pid;
        }
    }
    if (d != NULL)
        closedir(d);
    return found_pid;
}

static void sleep_seconds(double seconds)
{
    struct timespec ts = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        ;
}

static void program_watch(const struct program *p)
{
    char profile[PATH_MAX];
    double program[2], ours[2], started, unused;
    struct walks w;
    if (!found(p))
        return;
    pid_t pid = ours_start(p, in_dir(profile, "long.pb.gz"), NULL);
    sleep_seconds(WARM_SECONDS);
    bool ok = process_read(pid, &program[0], &started);
    long of = ok ? collector_find(started) : 0;
    ok = of != 0 && process_read(of, &ours[0], &unused);
    for (double cpu; ok;) {
        sleep_seconds(0.5);
        if (waitpid(pid, NULL, WNOHANG | WNOWAIT) != 0 || !process_read(pid, &cpu, &unused) ||
            !process_read(of, &ours[1], &unused))
            break;
        program[1] = cpu;
        if (cpu > (LONG_SECONDS - 1) * (double)sysconf(_SC_CLK_TCK)) /* before it is asked for a file */
            break;
    }
    if (!command_ended(pid) || !ok || !comments_take(profile, &w)) {
        printf("  %-8s could not be measured\n", p->name);
    } else {
        double all = (double)(w.by_rules + w.by_libunwind);
        printf("  %-8s %5" PRIu64
               " KiB of rules (<= %d)   collector %.2f %% (< 3)   rules hit %.3f %%, from the "
               "start   %.1f frames   %s\n",
               p->name, w.kib, RULES_KIB, 100 * (ours[1] - ours[0]) / (program[1] - program[0]),
               100 * (1 - (double)w.unruled / all), all / (double)w.n, p->path);
    }
    unlink(profile);
}

static void memory(void)
{
    struct program p;
    char seconds[16];
    printf("%d s at %d Hz: the rules' memory; the collector's CPU time / the program's from second %d on\n",
           LONG_SECONDS, HZ, WARM_SECONDS);
    snprintf(seconds, sizeof seconds, "%d", LONG_SECONDS);
    node_find(&p, seconds);
    program_watch(&p);
    python_find(&p, seconds);
    program_watch(&p);
}

/* In a directory of its own, with what was built beside this program. */
static int with_programs(void (*part)(void))
{
    char bin[PATH_MAX], path[2 * PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", bin, sizeof bin - 1);
    strcpy(dir + sizeof dir - 7, "XXXXXX");
    if (n < 0 || mkdtemp(dir) == NULL) {
        perror("bench_walk");
        return 1;
    }
    bin[n] = '\0';
    *strrchr(bin, '/') = '\0';
    snprintf(path, sizeof path, "%s/../lib/libstile.so", bin);
    bool ok = realpath(path, library) != NULL;
    snprintf(path, sizeof path, "%s/../bench/peers/unw_backtrace.so", bin);
    ok = realpath(path, peer) != NULL && ok;
    snprintf(path, sizeof path, "%s/stile", bin);
    ok = realpath(path, collector) != NULL && ok;
    if (ok)
        part();
    else
        fputs("bench_walk: the library, the tool or the peer is not built\n", stderr);
    snprintf(path, sizeof path, "rm -r %s", dir);
    return system(path) == 0 && ok ? 0 : 1;
}

int walk_real(const void *unused)
{
    (void)unused;
    return with_programs(real);
}

int walk_memory(const void *unused)
{
    (void)unused;
    return with_programs(memory);
}
