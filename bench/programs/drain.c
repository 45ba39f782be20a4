/* A collector's work alone, on records that nobody had to sample: this program is both the profiled one, whose threads write
 * whole stacks into their rings as the handler does, and the collector, which drains them as `stile collect` does.
 *
 *   drain rate RATE THREADS DEPTH STACKS SECONDS    RATE samples per second in all, of so many distinct stacks
 *   drain stacks STACKS DEPTH FILE                  each once, as fast as they are taken; then the profile
 *
 * Prints JSON: what was written and drained, what found its ring full, the collector's CPU time; or resident memory. */
#include <pthread.h>
#include <stdatomic.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "profiler/agent/region_make.h"
#include "profiler/collector/process.h"
#include "profiler/collector/profile_write.h"
#include "profiler/region/ring.h"

#define COMMON       5u  /* frames from the root that all have in common; */
#define SHARED       20u /* those that neighbours have, */
#define NEIGHBOURS   64u /* so many of them */
#define ROUND_NS     10000000
#define PACE_NS      2000000
#define BEHIND_S     0.02
#define HZ           10000u
#define DEPTH_MOST   512u
#define THREADS_MOST 64u
#define KNOWN_CPU_NS (1ull << 62) /* the process's own CPU time is no part of it */

extern const char __executable_start[], etext[];

static struct stile__region *region;
static struct process *process;
static unsigned threads = 1, depth = 30;
static uint64_t stacks = 1, rate, written, lost;
static double seconds;
static _Atomic bool over;

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Of stack i, leaf first: some places of this program's own code. The leaf tells all stacks apart that there can be. */
static void stack_make(uint64_t i, uint64_t *words)
{
    const uint64_t start = (uintptr_t)__executable_start, size = (uintptr_t)etext - start;
    for (unsigned k = 0; k < depth; k++) {
        unsigned from_root = depth - 1 - k;
        uint64_t of = from_root < COMMON ? 0 : from_root < SHARED ? i / NEIGHBOURS * 2 + 2 : i * 2 + 1;
        words[k] = start + mixed(of * 1024 + from_root) % size / 16 * 16;
    }
}

static bool record_write(unsigned thread, uint64_t i)
{
    struct stile__slot *slot = stile__region_slot(region, thread);
    uint64_t commit;
    struct stile__record *r = stile__ring_reserve(stile__region_ring(region, process->size, thread),
                                                  stile__slot_cells(process->size, thread), &slot->head,
                                                  &slot->tail, stile__record_cells(depth), &commit);
    if (r == NULL)
        return false;
    const uint8_t cells = r->cells;
    memset(r, 0, sizeof *r);
    r->cells = cells;
    r->kind = STILE__RECORD_WALKED;
    r->n_new = r->n_inline = depth;
    r->frames_block = r->block = STILE__BLOCK_NONE;
    r->ticks = 1;
    stack_make(i, r->words);
    stile__ring_commit(&slot->head, commit);
    return true;
}

/* Some stacks are taken often and most of them rarely, as in programs: each tenth part of the numbers is as frequent as the
 * nine tenths above it. */
static uint64_t chosen(uint64_t random)
{
    return (uint64_t)exp2(log2((double)stacks + 1) * ((double)(random >> 11) / (double)(1ull << 53))) - 1;
}

/* Stands for all threads of the program: every few milliseconds what has come due. What has come due while this one was kept
 * from running does not count: threads that do not run have no samples. */
static void *produce(void *unused)
{
    const struct timespec pace = {0, PACE_NS};
    double last = now_s(CLOCK_MONOTONIC), run = 0;
    uint64_t random = 1;
    (void)unused;
    while (run < seconds) {
        double now = now_s(CLOCK_MONOTONIC);
        run += now - last < BEHIND_S ? now - last : BEHIND_S;
        last = now;
        for (uint64_t due = (uint64_t)(run * (double)rate); written + lost < due;) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            if (record_write((unsigned)((written + lost) % threads), chosen(random)))
                written++;
            else
                lost++;
        }
        nanosleep(&pace, NULL);
    }
    atomic_store(&over, true);
    return NULL;
}

static void drain_while_produced(void)
{
    const struct timespec round = {0, ROUND_NS};
    pthread_t producer;
    double cpu = 0, longest = 0;
    bool last = false;
    double start = now_s(CLOCK_MONOTONIC);
    if (pthread_create(&producer, NULL, produce, NULL) != 0)
        exit(2);
    while (!last) {
        last = atomic_load(&over);
        double before = now_s(CLOCK_THREAD_CPUTIME_ID);
        process_drain(process);
        double took = now_s(CLOCK_THREAD_CPUTIME_ID) - before;
        cpu += took;
        longest = took > longest ? took : longest;
        nanosleep(&round, NULL);
    }
    pthread_join(producer, NULL);
    printf("{\"written\": %llu, \"lost\": %llu, \"drained\": %llu, \"cpu\": %.6f, \"longest\": %.6f, "
           "\"wall\": %.6f}\n",
           (unsigned long long)written, (unsigned long long)lost, (unsigned long long)process->ticks, cpu,
           longest, now_s(CLOCK_MONOTONIC) - start);
}

static long resident_kib(void)
{
    char line[128];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static void stacks_collect(const char *path)
{
    long before = resident_kib();
    double cpu = 0;
    for (uint64_t i = 0; i < stacks;) {
        while (i < stacks && record_write(0, i))
            i++;
        double start = now_s(CLOCK_THREAD_CPUTIME_ID);
        process_drain(process);
        cpu += now_s(CLOCK_THREAD_CPUTIME_ID) - start;
    }
    long with = resident_kib();
    process->end_mono_ns = now_mono_ns();
    double start = now_s(CLOCK_MONOTONIC);
    int err = profile_write(process, path, true);
    printf("{\"stacks\": %u, \"nodes\": %u, \"before_kib\": %ld, \"with_kib\": %ld, \"cpu\": %.6f, "
           "\"write\": %.6f}\n",
           process->tree.n_samples, process->tree.n_nodes, before, with, cpu, now_s(CLOCK_MONOTONIC) - start);
    if (err != 0)
        exit(2);
}

static void process_make(void)
{
    static struct stile__hello hello;
    int fds[STILE__HELLO_FDS], fd;
    const char *why = "no region";
    if (stile__region_make(&region, &fd, HZ, false, false) == 0) {
        region->hz = HZ;
        region->period_ns = 1000000000 / HZ;
        region->depth = STILE__DEPTH_MAX;
        region->start_cpu_ns = KNOWN_CPU_NS;
        region->start_mono_ns = now_mono_ns();
        region->start_unix_ns = 1;
        region->ticks_wanted = 1;
        for (unsigned i = 0; i < threads; i++) {
            struct stile__slot *slot = stile__region_slot(region, i);
            atomic_store(&slot->tid, (uint32_t)gettid());
            atomic_store(&slot->generation, i + 1);
            atomic_store(&slot->signals, 1);
            atomic_store(&slot->state, STILE__SLOT_LIVE);
        }
        atomic_store(&region->slots_used, threads);
        fds[STILE__HELLO_FD_REGION] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        fds[STILE__HELLO_FD_MAPS] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
        fds[STILE__HELLO_FD_PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
        hello.pid = getpid();
        process = process_new(&hello, fds, getpid(), &why);
    }
    if (process == NULL) {
        fprintf(stderr, "drain: %s\n", why);
        exit(2);
    }
    process->used_cpu_ns = KNOWN_CPU_NS;
}

int main(int argc, char **argv)
{
    bool is_rate = argc == 7 && strcmp(argv[1], "rate") == 0;
    if (!is_rate && !(argc == 5 && strcmp(argv[1], "stacks") == 0)) {
        fputs("drain rate RATE THREADS DEPTH STACKS SECONDS | drain stacks STACKS DEPTH FILE\n", stderr);
        return 2;
    }
    rate = is_rate ? strtoull(argv[2], NULL, 10) : 0;
    threads = is_rate ? (unsigned)atoi(argv[3]) : 1;
    depth = (unsigned)atoi(argv[is_rate ? 4 : 3]);
    stacks = strtoull(argv[is_rate ? 5 : 2], NULL, 10);
    seconds = is_rate ? atof(argv[6]) : 0;
    if (threads == 0 || threads > THREADS_MOST || depth == 0 || depth > DEPTH_MOST || stacks == 0)
        return 2;
    process_make();
    if (is_rate)
        drain_while_produced();
    else
        stacks_collect(argv[4]);
    if (process->damage != NULL) {
        fprintf(stderr, "drain: damaged: %s\n", process->damage);
        return 2;
    }
    return 0;
}
