/* The last stage of a sample: names, pprof, gzip, rename. Runs in the writer process, normal context. */
#include "profiler/collector/profile_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/collector/perf_map.h"
#include "profiler/region/signal_name.h"
#include "proto/builder.h"
#include "proto/symbolizer.h"

/* What is known of one mapping while locations are made. */
struct mapping_out {
    uint64_t id; /* in the profile; 0: not added yet */
    struct stile__symbol_module *symbols;
    uint64_t locations, named, with_file, with_line;
    bool run_time_names; /* some of its code is named by the perf map */
};

struct writer {
    const struct process *p;
    const struct process *whole; /* that it is a piece of, or itself: threads, mappings, region */
    struct stile__builder *builder;
    struct stile__symbolizer *symbolizer; /* NULL: without names */
    struct perf_map perf_map;             /* names of code that no module has */
    bool perf_map_tried;                  /* there is such code: the map was read, */
    const char *perf_map_trouble;         /* or this is why not */
    struct mapping_out *mappings;
    uint64_t *node_location; /* per call tree node; 0: none yet */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static struct stile__symbol_module *symbols_of(struct writer *w, struct module *m, const char *path)
{
    if (m->symbols == NULL)
        m->symbols =
            stile__symbolizer_module_open(w->symbolizer, path, m->elf.fd, m->elf.image, m->elf.image_size);
    return m->symbols;
}

static int mapping_out(struct writer *w, uint32_t i)
{
    const struct mapping *m = &w->whole->mappings.all[i];
    struct mapping_out *out = &w->mappings[i];
    if (out->id != 0)
        return 0;
    const struct stile__builder_mapping b = {.start = m->start,
                                             .limit = m->end,
                                             .file_offset = m->offset,
                                             .filename = m->path[0] != '\0' ? m->path : "[anon]",
                                             .build_id = m->module != NULL ? m->module->elf.build_id : ""};
    int err = stile__builder_mapping_add(w->builder, &b, &out->id);
    if (err == 0 && m->module != NULL && w->symbolizer != NULL)
        out->symbols = symbols_of(w, m->module, m->path);
    return err;
}

/* Code without a name is "module+0x<address in the file>": that of the function it is in, where the unwind tables
 * know it, so that a stripped program's functions still add up. */
static void line_unnamed(const struct mapping *m, uint64_t address, char *name, size_t size)
{
    uint64_t vaddr = address - m->bias, start;
    if (m->module != NULL && elf_file_function(&m->module->elf, vaddr, &start))
        vaddr = start;
    snprintf(name, size, "%s+0x%" PRIx64, m->path[0] != '\0' ? base_name(m->path) : "anon", vaddr);
}

/* Whether the mapping's file could know what is there. Code that is compiled at run time may lie in memory that has a name
 * (a memfd, say), or in a file that is none of code: they can be opened, but not asked. */
static bool has_code_file(const struct mapping *m)
{
    return m->module != NULL && m->module->elf.n_segments != 0;
}

/* The name of code that was compiled at run time, or NULL. */
static const char *run_time_name(struct writer *w, uint64_t address)
{
    if (w->symbolizer == NULL) /* what broke it may have been this */
        return NULL;
    if (!w->perf_map_tried)
        w->perf_map_trouble = perf_map_read(&w->perf_map, w->whole);
    w->perf_map_tried = true;
    return perf_map_find(&w->perf_map, address);
}

static int location_in_mapping(struct writer *w, uint32_t i, uint64_t address, uint64_t *id)
{
    const struct mapping *m = &w->whole->mappings.all[i];
    struct mapping_out *out = &w->mappings[i];
    const struct stile__symbol_frame *frames = NULL;
    struct stile__builder_line lines[64];
    char unnamed[512];

    int err = mapping_out(w, i);
    if (err != 0)
        return err;
    size_t n = out->symbols == NULL
                   ? 0
                   : stile__symbolizer_frames(out->symbols, address - m->start + m->offset, &frames);
    if (n > sizeof lines / sizeof *lines)
        n = sizeof lines / sizeof *lines;
    bool has_file = n > 0, has_line = n > 0;
    for (size_t k = 0; k < n; k++) {
        lines[k] = (struct stile__builder_line){frames[k].name, frames[k].system_name, frames[k].filename,
                                                frames[k].start_line, frames[k].line};
        has_file = has_file && frames[k].filename[0] != '\0';
        has_line = has_line && frames[k].line != 0;
    }
    out->locations += n > 0;
    out->named += n > 0;
    out->with_file += has_file;
    out->with_line += has_line;
    if (n == 0) {
        const char *name = has_code_file(m) ? NULL : run_time_name(w, address);
        out->run_time_names = out->run_time_names || name != NULL;
        if (name == NULL) {
            line_unnamed(m, address, unnamed, sizeof unnamed);
            name = unnamed;
        }
        lines[n++] = (struct stile__builder_line){name, name, "", 0, 0};
    }
    return stile__builder_location_add(w->builder, out->id, address, lines, n, id);
}

static int location_of(struct writer *w, uint32_t node, uint64_t *id)
{
    const struct call_node *n = &w->p->tree.nodes[node];
    char name[64];
    int err;

    *id = w->node_location[node];
    if (*id != 0)
        return 0;
    if (n->mapping == CALL_TREE_REASON) {
        const char *reason = stile__reason_name((enum stile__reason)n->address);
        const struct stile__builder_line line = {reason, reason, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, 0, &line, 1, id);
    } else if (n->mapping == CALL_TREE_KERNEL) {
        static const struct stile__builder_line line = {STILE__KERNEL_NAME, STILE__KERNEL_NAME, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, 0, &line, 1, id);
    } else if (n->mapping == MAPPING_NONE) {
        const char *known = run_time_name(w, n->address);
        snprintf(name, sizeof name, "0x%" PRIx64, n->address);
        if (known == NULL)
            known = name;
        const struct stile__builder_line line = {known, known, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, n->address, &line, 1, id);
    } else {
        err = location_in_mapping(w, n->mapping, n->address, id);
    }
    w->node_location[node] = *id;
    return err;
}

static int sample_out(struct writer *w, const struct call_sample *s, uint64_t **ids, size_t *cap)
{
    const struct process *p = w->p;
    size_t n = 0;
    for (uint32_t node = s->node; node != CALL_TREE_ROOT; node = p->tree.nodes[node].parent) {
        if (n == *cap) {
            uint64_t *more = realloc(*ids, (*cap * 2 + 64) * sizeof **ids);
            if (more == NULL)
                return -ENOMEM;
            *ids = more;
            *cap = *cap * 2 + 64;
        }
        int err = location_of(w, node, &(*ids)[n++]);
        if (err != 0)
            return err;
    }
    const struct thread_seen *t = &w->whole->threads[s->thread];
    const struct stile__builder_label labels[] = {
        {.key = "thread", .str = t->comm}, {.key = "tid", .num = t->tid}, {.key = "pid", .num = p->own_pid}};
    const int64_t values[] = {(int64_t)s->ticks, (int64_t)s->ns};
    return stile__builder_sample_add(w->builder, *ids, n, values, labels, 3);
}

static int samples_out(struct writer *w)
{
    uint64_t *ids = NULL;
    size_t cap = 0;
    int err = 0;
    for (uint32_t i = 0; i < w->p->tree.n_samples && err == 0; i++)
        err = sample_out(w, &w->p->tree.samples[i], &ids, &cap);
    free(ids);
    return err;
}

/* A has_* flag stops viewers from looking for better themselves: it is set only where debug information answered
 * for every location of the mapping that has a symbol at all (a PLT entry has none, for no viewer), or where there is
 * nothing else to ask, since the code was compiled at run time. */
static int flags_out(struct writer *w)
{
    for (uint32_t i = 0; i < w->whole->mappings.n_all; i++) {
        const struct mapping_out *m = &w->mappings[i];
        if (m->run_time_names) {
            int err = stile__builder_mapping_flags_set(w->builder, m->id, true, false, false, false);
            if (err != 0)
                return err;
            continue;
        }
        if (m->id == 0 || m->symbols == NULL || !stile__symbolizer_coverage(m->symbols).debug_info)
            continue;
        bool all = m->named != 0;
        int err =
            stile__builder_mapping_flags_set(w->builder, m->id, all, all && m->with_file == m->locations,
                                             all && m->with_line == m->locations, all);
        if (err != 0)
            return err;
    }
    return 0;
}

static int comment(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int comment(struct writer *w, const char *format, ...)
{
    char text[4400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *at = text; *at != '\0'; at++) /* a comment is one line, whatever the command line holds */
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    return stile__builder_comment_add(w->builder, text);
}

/* Every reason is named, with its count, so that "none" is a statement. */
static void reasons_out(struct writer *w)
{
    char text[768];
    size_t n = 0;
    for (int i = 1; i < STILE__REASON_COUNT && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %" PRIu64 " ticks, %.3f s", i == 1 ? "" : ";",
                              stile__reason_name((enum stile__reason)i), w->p->reason_ticks[i],
                              (double)w->p->reason_ns[i] / 1e9);
    comment(w, "not whole:%s", text);
}

/* Who found the frames, and what that took. */
static void walk_out(struct writer *w)
{
    const struct process *whole = w->whole;
    const struct verify *v = &whole->verify;
    uint64_t bytes = whole->rules_bytes != 0 ? whole->rules_bytes : rule_table_bytes(&whole->rules);

    comment(w,
            "walk: %" PRIu64 " frames by rules, %" PRIu64 " by libunwind, %" PRIu64
            " of them without a rule; %" PRIu64 " KiB of rules",
            whole->frames_by_rules, whole->frames_by_libunwind, whole->frames_unruled, bytes >> 10);
    if (whole->debug & STILE__DEBUG_WALK_TIME)
        comment(w,
                "walk time: %" PRIu64 " by rules alone, %" PRIu64 " cycles; %" PRIu64
                " with a snapshot, %" PRIu64 " cycles",
                whole->walks[0].n, whole->walks[0].cycles, whole->walks[1].n, whole->walks[1].cycles);
    if ((whole->debug & STILE__DEBUG_VERIFY) == 0)
        return;
    comment(w, "unwind verified: %" PRIu64 " samples, %" PRIu64 " differ", v->samples, v->differ);
    comment(w,
            "unwind not verified: %" PRIu64 " samples, whose reference came to no end; %" PRIu64
            ", of whose stack there is no copy",
            v->unknown, v->uncopied);
    for (unsigned i = 0; i < v->n_shown; i++) {
        int first = (int)strcspn(v->shown[i], "\n");
        comment(w, "%.*s", first, v->shown[i]);
        comment(w, "%s", v->shown[i] + first + (v->shown[i][first] != '\0'));
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
    char off[VET_NAME + 96];
    vet_describe(&whole->vetting, atomic_load_explicit(&whole->region->barriers_state, memory_order_relaxed),
                 off, sizeof off);
    comment(w,
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
    struct stile__region *r = whole->region;
    char name[STILE__SIGNAL_NAME_MAX];
    double seconds = (double)p->cpu_ns / 1e9;

    comment(w, "stile %s", STILE_VERSION);
    comment(w, "command: %s", whole->command);
    char clock[256];
    process_clock_describe(whole, clock, sizeof clock);
    comment(w, "clock: %s", clock);
    comment(w, "rate: %u Hz requested, %.1f signals per second of CPU time", p->hz,
            p->cpu_ns != 0 ? (double)p->signals / seconds : 0.0);
    comment(w, "samples: %" PRIu64 " ticks in %" PRIu64 " signals, %.3f s", p->ticks, p->signals, seconds);
    reasons_out(w);
    comment(w, "in the kernel: %.3f s", (double)p->kernel_ns / 1e9);
    comment(w, "threads: %u sampled, %u without a slot, %u without a clock", whole->n_threads,
            atomic_load_explicit(&r->threads_unsampled, memory_order_relaxed),
            atomic_load_explicit(&r->clocks[STILE__CLOCK_NONE], memory_order_relaxed));
    walk_out(w);
    barriers_out(w);
    comment(w, "stale signals: %" PRIu64, atomic_load_explicit(&r->stale_signals, memory_order_relaxed));
    if (whole->toggles)
        comment(w, "late: %" PRIu64 " ticks came after their piece was written", whole->late_ticks);
    if (atomic_load_explicit(&r->signal_taken, memory_order_relaxed) != 0)
        comment(w,
                "the program set a handler of its own for %s; samples end there; PROFILE_SIGNAL=NAME chooses "
                "another signal",
                stile__signal_name(r->signal, name, sizeof name));
    if (atomic_load_explicit(&r->toggle_taken, memory_order_relaxed) != 0)
        comment(w,
                "the program set a handler of its own for %s; sampling was neither started nor stopped after "
                "that; "
                "PROFILE_TOGGLE=NAME chooses another signal",
                stile__signal_name(r->toggle, name, sizeof name));
    if (whole->damage != NULL)
        comment(w, "damaged: %s; samples end there", whole->damage);
    if (w->perf_map_trouble != NULL)
        comment(w, "names of run-time code: /tmp/perf-%d.map left out: %s", p->own_pid, w->perf_map_trouble);
    else if (w->perf_map.lines != 0)
        comment(w, "names of run-time code: %u lines of /tmp/perf-%d.map, %u skipped", w->perf_map.lines,
                p->own_pid, w->perf_map.skipped);
    if (w->symbolizer == NULL)
        comment(w, "names: left out, since looking them up failed");
}

static int profile_fill(struct writer *w)
{
    const struct process *p = w->p;
    struct stile__builder *b = w->builder;
    uint64_t end = p->end_mono_ns != 0 ? p->end_mono_ns : now_mono_ns();
    int err = stile__builder_sample_type_add(b, "samples", "count");
    if (err == 0)
        err = stile__builder_sample_type_add(b, "cpu", "nanoseconds");
    if (err == 0)
        err = stile__builder_default_sample_type_set(b, "cpu");
    if (err == 0)
        err = stile__builder_period_set(b, "cpu", "nanoseconds", (int64_t)p->period_ns);
    if (err == 0)
        err = stile__builder_time_set(b, (int64_t)p->start_unix_ns, (int64_t)(end - p->start_mono_ns));
    if (err == 0 && w->whole->mappings.n_all > 0)
        err = mapping_out(w, 0); /* the main binary comes first */
    if (err == 0)
        err = samples_out(w);
    if (err == 0)
        err = flags_out(w);
    comments_out(w);
    return err;
}

/* Writes aside, in the same directory so that the rename is atomic, to a name that must not exist. */
static int file_out(struct stile__builder *b, const char *path)
{
    char aside[PATH_MAX + 64];
    const char *base = base_name(path);
    size_t len = strlen(path);
    bool gzip = len > 3 && strcmp(path + len - 3, ".gz") == 0;
    struct stat st;

    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return S_ISLNK(st.st_mode) ? -ELOOP
                                   : -EINVAL; /* planted since the start: neither followed nor replaced */
    snprintf(aside, sizeof aside, "%.*s.%.200s.%d.tmp", (int)(base - path), path, base, (int)getpid());
    int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int err = stile__builder_write(b, fd, gzip);
    if (close(fd) != 0 && err == 0)
        err = -errno;
    if (err == 0 && rename(aside, path) != 0)
        err = -errno;
    if (err != 0)
        unlink(aside);
    return err;
}

int profile_write(const struct process *p, const char *path, bool named)
{
    struct writer w = {.p = p, .whole = p->origin != NULL ? p->origin : p};
    int err = -ENOMEM;

    w.builder = stile__builder_new();
    static struct stile__symbolizer *symbolizer; /* a writer process ends when its files are written */
    if (named && symbolizer == NULL)
        symbolizer = stile__symbolizer_new();
    w.symbolizer = named ? symbolizer : NULL;
    w.mappings = calloc(w.whole->mappings.n_all + 1, sizeof *w.mappings);
    w.node_location = calloc(p->tree.n_nodes, sizeof *w.node_location);
    if (w.builder == NULL || (named && w.symbolizer == NULL) || w.mappings == NULL || w.node_location == NULL)
        goto out;
    err = profile_fill(&w);
    if (err == 0)
        err = file_out(w.builder, path);
out:
    free(w.node_location);
    free(w.mappings);
    perf_map_free(&w.perf_map);
    stile__builder_free(w.builder);
    return err;
}
