/* A process comes, is looked at, and goes: its region, maps and answers. Collector, normal context. */
#include "profiler/collector/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "profiler/collector/crash.h"
#include "profiler/collector/dump.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/tree.h"
#include "profiler/collector/waits.h"
#include "profiler/region/check.h"

#define BLOCKS_AT_LEAST 16u /* 256 KiB: what a deep stack takes; more comes when it is used */
#define WAITS_BLOCKS                                                                                         \
    128u /* 2 MiB: threads that wait keep theirs until there are rules for all of their stacks */
#define BLOCK_ROUNDS    50u         /* at first, blocks for the samples of so much of a second */
#define TICK_NS_LONGEST 10000000u   /* of a kernel at 100 Hz */
#define MAPS_TRIES      3u          /* looks at the maps while libraries go */
#define MAPS_BYTES_MAX  (64u << 20) /* no program has so many mappings; what we were handed may be anything */

uint64_t now_mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool process_has_samples(const struct process *p, int file)
{
    return file == FILE_CPU ? p->ticks != 0 : p->waits.tree.n_samples != 0;
}

bool process_file_due(const struct process *p, int file)
{
    return p->files[file].path[0] != '\0' && !p->files[file].in_tree &&
           (p->files[file].owns || process_has_samples(p, file));
}

int process_files_trouble(const struct process *p, char *message, size_t size)
{
    for (int i = 0; i < FILES; i++) {
        const struct target *t = &p->files[i];
        if (t->error == 0)
            continue;
        snprintf(message, size, "cannot write %.*s: %s", 400, t->path, strerror(-t->error));
        return t->error;
    }
    return 0;
}

/* Whether a process has another CLOCK_MONOTONIC than we have: it is in another time namespace. */
static bool clock_is_foreign(pid_t pid)
{
    char path[64], its[64] = "", ours[64] = "";
    snprintf(path, sizeof path, "/proc/%d/ns/time", (int)pid);
    return readlink(path, its, sizeof its - 1) > 0 &&
           readlink("/proc/self/ns/time", ours, sizeof ours - 1) > 0 && strcmp(its, ours) != 0;
}

static const char *region_map(struct process *p, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(struct stile__region))
        return "the region is smaller than its header";
    /* A file that could shrink under us would be a SIGBUS here. */
    if ((fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) == 0 || fcntl(fd, F_GET_SEALS) < 0)
        return "the region is not sealed";
    p->region_size = (uint64_t)st.st_size;
    p->uid = st.st_uid;
    void *at = mmap(NULL, p->region_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return "the region cannot be mapped";
    p->region = at;
    const char *why = stile__region_check(p->region, p->region_size, &p->size);
    if (why != NULL)
        return why;
    p->hz = p->region->hz;
    p->period_ns = p->region->period_ns;
    p->start_unix_ns = p->session_unix_ns = p->region->start_unix_ns;
    p->start_mono_ns = p->region->start_mono_ns;
    p->foreign_clock = clock_is_foreign(p->pid);
    if (p->foreign_clock) /* just before it said hello */
        p->start_mono_ns = now_mono_ns();
    p->birth_ns = p->start_mono_ns;
    p->parent_pid = p->region->parent_pid;
    p->start_cpu_ns = p->region->start_cpu_ns;
    p->from_birth = p->region->from_birth != 0;
    p->depth = p->region->depth;
    p->debug = p->region->debug;
    p->tick_ns = p->region->tick_ns <= TICK_NS_LONGEST ? p->region->tick_ns : TICK_NS_LONGEST;
    int signal = p->region->signal;
    p->signal = signal > 0 && signal <= SIGRTMAX && signal != SIGKILL && signal != SIGSTOP ? signal : 0;
    p->ticks_wanted = p->region->ticks_wanted != 0;
    p->waits_told = p->region->dump != 0;
    p->stubs = (struct stubs){p->region->stubs, p->region->stub_entries};
    p->barriers = p->region->barriers;
    /* Read again from shared memory: checked again. */
    if (p->barriers >= STILE__BARRIERS_WISHES)
        return "the region's wish for barriers is out of range";
    if (p->depth == 0)
        return "the region's depth is out of range";
    return p->period_ns == 0 || p->hz == 0 || p->hz > STILE__REGION_HZ_MAX
               ? "the region's sampling rate is out of range"
               : NULL;
}

void process_blocks_grow(struct process *p, uint32_t want)
{
    struct stile__region_layout l = stile__region_layout(p->size);
    uint32_t ready = atomic_load_explicit(&p->region->blocks_ready, memory_order_relaxed);
    if (want > p->size.block_max)
        want = p->size.block_max;
    if (ready >= want)
        return;
    char *from = (char *)p->region + l.blocks + (uint64_t)ready * STILE__BLOCK_SIZE;
    if (madvise(from, (uint64_t)(want - ready) * STILE__BLOCK_SIZE, MADV_POPULATE_WRITE) == 0)
        atomic_store_explicit(&p->region->blocks_ready, want,
                              memory_order_release); /* pairs with block_take's load */
}

static void refresh_once(void *arg)
{
    struct process *p = arg;
    uint32_t unloads = p->mappings.now.unloads;
    if (p->maps_fresh)
        return;
    process_maps_refresh(p);
    mappings_view(&p->mappings,
                  unloads); /* if something went meanwhile, what is there now was not there then */
}

static const char *set_up(struct process *p, const int *fds)
{
    const char *why = region_map(p, fds[STILE__HELLO_FD_REGION]);
    if (why != NULL)
        return why;
    mappings_init(&p->mappings, p->pid);
    p->mappings.refresh = refresh_once;
    p->mappings.refresh_arg = p;
    p->unwinder = unwinder_new(&p->mappings);
    p->slots =
        calloc(p->size.slot_max, sizeof *p->slots); /* zeroed pages are not there until they are used */
    if (p->unwinder == NULL || p->slots == NULL || call_tree_init(&p->tree) != 0)
        return "the collector has no memory";
    why = waits_init(p);
    if (why != NULL)
        return why;
    process_blocks_grow(p, BLOCKS_AT_LEAST + p->hz / BLOCK_ROUNDS);
    process_blocks_grow(p, p->size.waits != 0 ? WAITS_BLOCKS : BLOCKS_AT_LEAST);
    pieces_init(p);
    return NULL;
}

/* The process's own /proc/self/maps, which can be read whoever it becomes; where it has no /proc, ours of it. */
static int maps_open(int given, int pidfd, pid_t pid)
{
    char path[32], byte;
    struct pollfd end = {pidfd, POLLIN, 0};
    if (read(given, &byte, 1) >= 0)
        return given;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && poll(&end, 1, 0) != 0) { /* it has ended, and its number may be another one's */
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        return given;
    close(given);
    return fd;
}

struct process *process_new(const struct stile__hello *hello, const int *fds, pid_t pid, const char **why)
{
    struct process *p = calloc(1, sizeof *p);
    *why = "the collector has no memory";
    if (p == NULL) {
        for (int i = 0; i < STILE__HELLO_FDS; i++)
            close(fds[i]);
        return NULL;
    }
    p->pid = pid;
    p->own_pid = hello->pid;
    p->pidfd = fds[STILE__HELLO_FD_PIDFD];
    p->maps_fd = maps_open(fds[STILE__HELLO_FD_MAPS], p->pidfd, pid);
    *why = set_up(p, fds);
    close(fds[STILE__HELLO_FD_REGION]);
    if (*why != NULL) {
        process_free(p);
        return NULL;
    }
    uint32_t unloads = atomic_load_explicit(&p->region->unloads, memory_order_acquire);
    process_maps_refresh(p);
    rule_table_open(&p->rules, p->region, p->size, &p->mappings, unloads);
    p->vetting.region = p->barriers != STILE__BARRIERS_OFF ? p->region : NULL;
    p->rules.vetting = &p->vetting;
    return p;
}

static void mirrors_free(struct process *p)
{
    for (uint32_t i = 0; i < p->n_threads; i++)
        mirror_free(&p->threads[i].mirror);
}

void process_free(struct process *p)
{
    if (p->origin != NULL) { /* the rest is its origin's */
        p->origin->pieces_open--;
        call_tree_free(&p->tree);
        waits_free(p);
        free(p);
        return;
    }
    while (p->cut != NULL) {
        struct process *piece = p->cut;
        p->cut = piece->next;
        process_free(piece);
    }
    free(p->trouble);
    if (p->region != NULL) {
        dump_free(p);
        crash_free(p);
    }
    if (p->region != NULL)
        munmap(p->region, p->region_size);
    unwinder_free(p->unwinder);
    rule_table_close(&p->rules);
    verify_free(&p->verify);
    mappings_free(&p->mappings);
    call_tree_free(&p->tree);
    waits_free(p);
    mirrors_free(p);
    free(p->threads);
    free(p->slots);
    close(p->pidfd);
    if (p->maps_fd >= 0)
        close(p->maps_fd);
    free(p);
}

/* The newest generation of the modules text, if there is one that was not taken yet. */
static void modules_text_take(struct process *p, uint32_t unloads)
{
    uint32_t len =
        atomic_load_explicit(&p->region->modules_len, memory_order_acquire); /* pairs with publish */
    if (len <= p->modules_seen || len > STILE__MODULES_BYTES)
        return;
    char *text = malloc(len);
    if (text == NULL)
        return;
    memcpy(text, stile__region_modules(p->region), len);
    uint32_t from = p->modules_seen;
    for (uint32_t i = from; i + 1 < len; i++)
        if (text[i] == '@' && text[i + 1] == '\n' && (i == 0 || text[i - 1] == '\n'))
            from = i + 2;
    mappings_update(&p->mappings, text + from, len - from, unloads);
    p->modules_seen = len;
    free(text);
}

/* /proc/PID/maps by the descriptor that the program opened: it stays with the image, and reads empty after it. */
static void maps_file_take(struct process *p, uint32_t unloads)
{
    size_t have = 0, cap = 64u << 10;
    char *text = malloc(cap);
    ssize_t n;

    if (text == NULL || lseek(p->maps_fd, 0, SEEK_SET) != 0)
        goto out;
    while ((n = read(p->maps_fd, text + have, cap - have)) > 0 && have < MAPS_BYTES_MAX) {
        have += (size_t)n;
        if (cap - have < 8192) {
            char *bigger = realloc(text, cap * 2);
            if (bigger == NULL)
                goto out;
            text = bigger;
            cap *= 2;
        }
    }
    if (n == 0 && have > 0)
        mappings_update(&p->mappings, text, have, unloads);
out:
    free(text);
}

/* The count of unloads as of which the maps are what has been read, or a later one. */
static uint32_t maps_take(struct process *p)
{
    uint32_t unloads, now = atomic_load_explicit(&p->region->unloads, memory_order_acquire);
    unsigned tries = 0;
    do {
        unloads = now;
        modules_text_take(p, unloads / STILE__UNLOADS_ONE);
        if (p->maps_fd >= 0)
            maps_file_take(p, unloads / STILE__UNLOADS_ONE);
        now = atomic_load_explicit(&p->region->unloads, memory_order_acquire);
    } while (now / STILE__UNLOADS_ONE != unloads / STILE__UNLOADS_ONE && ++tries < MAPS_TRIES);
    return unloads;
}

void process_maps_refresh(struct process *p)
{
    uint64_t start = now_mono_ns();
    uint32_t n_before = p->mappings.now.n_live;
    uint32_t *before = malloc((n_before + 1) * sizeof *before);
    if (before == NULL)
        return;
    if (n_before != 0)
        memcpy(before, p->mappings.now.live, n_before * sizeof *before);
    uint32_t unloads = maps_take(p);
    rule_table_follow(&p->rules, &p->mappings, before, n_before, unloads);
    free(before);
    p->maps_fresh = true;
    p->maps_read_ns = now_mono_ns();
    p->maps_cost_ns = p->maps_read_ns - start;
}

bool process_dead(const struct process *p)
{
    struct pollfd fd = {p->pidfd, POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
}

bool process_image_gone(const struct process *p)
{
    char byte;
    return p->maps_fd >= 0 && pread(p->maps_fd, &byte, 1, 0) == 0;
}

void process_end(struct process *p)
{
    if (p->state != PROCESS_ACTIVE)
        return;
    dump_thaw(p, "it has ended");
    if (p->damage == NULL)
        process_maps_refresh(p);
    crash_gather(p);
    pieces_drain_last(p, now_mono_ns());
    if (p->damage == NULL && !p->toggles && !p->waits.alone) /* what went by while it was off is nobody's */
        process_settle(p);
    p->end_mono_ns = now_mono_ns();
    p->state = PROCESS_ENDED;
    /* What only the walk needed; many processes may be waiting for their files. */
    unwinder_free(p->unwinder);
    p->unwinder = NULL;
    mirrors_free(p);
    p->rules_bytes = rule_table_bytes(&p->rules);
    rule_table_close(&p->rules);
    free(p->slots);
    p->slots = NULL;
    if (p->maps_fd >= 0)
        close(p->maps_fd);
    p->maps_fd = -1;
    p->mappings.refresh = NULL;
}

static void wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void process_drain_asked(struct process *p)
{
    uint32_t asked = atomic_load_explicit(&p->region->drain_request, memory_order_acquire);
    process_drain(p);
    if (asked == atomic_load_explicit(&p->region->drain_done, memory_order_relaxed))
        return;
    atomic_store_explicit(&p->region->drain_done, asked, memory_order_release);
    wake(&p->region->drain_done);
}

static void message_set(struct process *p, const char *message)
{
    snprintf(p->region->message, sizeof p->region->message, "%s", message != NULL ? message : "");
}

struct told process_told(const struct process *p)
{
    struct stile__region *r = p->region;
    if (r == NULL)
        return p->tree_file->told;
    struct told t = {
        .perf_error = atomic_load_explicit(&r->perf_error, memory_order_relaxed),
        .timer_error = atomic_load_explicit(&r->timer_error, memory_order_relaxed),
        .threads_unsampled = atomic_load_explicit(&r->threads_unsampled, memory_order_relaxed),
        .stale_signals = atomic_load_explicit(&r->stale_signals, memory_order_relaxed),
        .signal_taken = atomic_load_explicit(&r->signal_taken, memory_order_relaxed) != 0,
        .toggle_taken = atomic_load_explicit(&r->toggle_taken, memory_order_relaxed) != 0,
        .barriers_state = atomic_load_explicit(&r->barriers_state, memory_order_relaxed),
    };
    for (int i = 0; i < STILE__CLOCK_KINDS; i++)
        t.clocks[i] = atomic_load_explicit(&r->clocks[i], memory_order_relaxed);
    return t;
}

void process_answer_finish(struct process *p, bool failed, const char *message)
{
    if (p->region == NULL) /* a tree's: who waits is told by tree.c */
        return;
    uint32_t flushes = atomic_load_explicit(&p->region->flush_request, memory_order_acquire);
    message_set(p, message);
    /* Release: whoever sees the state sees the message and the file. */
    atomic_store_explicit(&p->region->finish_state, failed ? STILE__FINISH_FAILED : STILE__FINISH_WRITTEN,
                          memory_order_release);
    wake(&p->region->finish_state);
    /* The last file has all that a flush asked for. */
    atomic_store_explicit(&p->region->flush_done, flushes, memory_order_release);
    wake(&p->region->flush_done);
}

void process_answer_flush(struct process *p, uint32_t request, const char *message)
{
    message_set(p, message);
    atomic_store_explicit(&p->region->flush_done, request, memory_order_release);
    wake(&p->region->flush_done);
}
