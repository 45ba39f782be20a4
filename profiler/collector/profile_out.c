/* What files have in common: names, locations, samples, the way to the disk. Runs in the writer process, normal context. */
#include "profiler/collector/profile_out.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/collector/tree.h"
#include "profiler/collector/waits.h"

/* What is known of one mapping while locations are made. */
struct mapping_out {
    uint64_t id; /* in the profile; 0: not added yet */
    uint64_t locations, named, with_file, with_line;
    bool run_time_names; /* some of its code is named by the perf map */
};

/* What is known of code that no file has: of one process. */
struct run_time_names {
    struct perf_map map;
    bool tried;          /* there is such code: the map was read, */
    const char *trouble; /* or this is why not */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
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
    return stile__builder_mapping_add(w->builder, &b, &out->id);
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

/* The name of code that a process (of a tree: which) compiled at run time, by its address there, or NULL. */
static const char *run_time_name(struct writer *w, uint32_t member, uint64_t address)
{
    if (w->names == NULL) /* what broke it may have been this */
        return NULL;
    struct run_time_names *names = &w->run_time[member];
    const struct tree *tree = w->whole->tree_file;
    if (!names->tried) {
        const struct perf_map_owner owner =
            tree != NULL ? tree->members[member].owner : perf_map_owner(w->whole);
        names->trouble = perf_map_read(&names->map, &owner);
        names->tried = true;
    }
    return perf_map_find(&names->map, address);
}

/* whole: of a function, not of what is inlined where its code begins. */
static int location_in_mapping(struct writer *w, uint32_t node, bool whole, uint64_t *id)
{
    const uint32_t i = w->tree->nodes[node].mapping;
    const uint64_t address = w->tree->nodes[node].address;
    const struct mapping *m = &w->whole->mappings.all[i];
    struct mapping_out *out = &w->mappings[i];
    const struct stile__symbol_frame *frames = NULL;
    struct stile__builder_line lines[64];
    char unnamed[512];

    int err = mapping_out(w, i);
    if (err != 0)
        return err;
    size_t n = w->names == NULL ? 0 : look_up_frames(w->names, node, &frames);
    if (whole && n > 1) {
        frames += n - 1;
        n = 1;
    }
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
        const char *name = has_code_file(m) ? NULL : run_time_name(w, m->member, address - m->moved);
        out->run_time_names = out->run_time_names || name != NULL;
        if (name == NULL) {
            line_unnamed(m, address, unnamed, sizeof unnamed);
            name = unnamed;
        }
        lines[n++] = (struct stile__builder_line){name, name, "", 0, 0};
    }
    return stile__builder_location_add(w->builder, out->id, address, lines, n, id);
}

/* What a node is called that has no address, or NULL. */
static const char *place_name(uint32_t mapping)
{
    switch (mapping) {
    case CALL_TREE_KERNEL:
        return STILE__KERNEL_NAME;
    case CALL_TREE_ELSEWHERE:
        return WAITS_ELSEWHERE_NAME;
    case CALL_TREE_UNPROFILED:
        return TREE_UNPROFILED_NAME;
    default:
        return NULL;
    }
}

static int location_of(struct writer *w, uint32_t node, bool leaf, uint64_t *id)
{
    const struct call_node *n = &w->tree->nodes[node];
    char name[64];
    int err;

    *id = w->node_location[node];
    if (*id != 0)
        return 0;
    if (n->mapping == CALL_TREE_REASON) {
        const char *reason = stile__reason_name((enum stile__reason)n->address);
        const struct stile__builder_line line = {reason, reason, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, 0, &line, 1, id);
    } else if (place_name(n->mapping) != NULL) {
        const char *what = place_name(n->mapping);
        const struct stile__builder_line line = {what, what, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, 0, &line, 1, id);
    } else if (n->mapping == MAPPING_NONE) {
        const char *known = w->whole->tree_file != NULL ? NULL : run_time_name(w, 0, n->address);
        snprintf(name, sizeof name, "0x%" PRIx64, n->address);
        if (known == NULL)
            known = name;
        const struct stile__builder_line line = {known, known, "", 0, 0};
        err = stile__builder_location_add(w->builder, 0, n->address, &line, 1, id);
    } else {
        err = location_in_mapping(w, node, leaf && w->leaves_are_functions, id);
    }
    w->node_location[node] = *id;
    return err;
}

/* The locations of a stack, leaf first. */
static int stack_out(struct writer *w, uint32_t leaf, uint64_t **ids, size_t *cap, size_t *n)
{
    *n = 0;
    for (uint32_t node = leaf; node != CALL_TREE_ROOT; node = w->tree->nodes[node].parent) {
        if (*n == *cap) {
            uint64_t *more = realloc(*ids, (*cap * 2 + 64) * sizeof **ids);
            if (more == NULL)
                return -ENOMEM;
            *ids = more;
            *cap = *cap * 2 + 64;
        }
        int err = location_of(w, node, node == leaf, &(*ids)[(*n)++]);
        if (err != 0)
            return err;
    }
    return 0;
}

static int thread_order(const void *a, const void *b, void *threads)
{
    const struct thread_seen *all = threads;
    const uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    if (all[i].tid != all[k].tid)
        return all[i].tid < all[k].tid ? -1 : 1;
    int names = strcmp(all[i].comm, all[k].comm);
    return names != 0 ? names : i < k ? -1 : 1;
}

/* For each thread the first one that has the same labels: ids are used again. Returns whether there are any such. */
static bool threads_alike(const struct process *p, uint32_t *order, uint32_t *first)
{
    bool any = false;
    for (uint32_t i = 0; i < p->n_threads; i++)
        order[i] = i;
    qsort_r(order, p->n_threads, sizeof *order, thread_order, p->threads);
    for (uint32_t i = 0; i < p->n_threads; i++) {
        const struct thread_seen *t = &p->threads[order[i]],
                                 *last = i != 0 ? &p->threads[order[i - 1]] : NULL;
        const bool alike = last != NULL && last->tid == t->tid && strcmp(last->comm, t->comm) == 0;
        first[order[i]] = alike ? first[order[i - 1]] : order[i];
        any = any || alike;
    }
    return any;
}

static int sample_order(const void *a, const void *b)
{
    const struct call_sample *s = a, *t = b;
    if (s->thread != t->thread)
        return s->thread < t->thread ? -1 : 1;
    if (s->node != t->node)
        return s->node < t->node ? -1 : 1;
    return s->label != t->label ? (s->label < t->label ? -1 : 1) : 0;
}

/* A copy of the samples, in which threads with the same labels are one. Returns how many there are. */
static uint32_t samples_join(const struct call_tree *t, const uint32_t *first, struct call_sample *to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_samples; i++) {
        to[i] = t->samples[i];
        to[i].thread = first[to[i].thread];
    }
    qsort(to, t->n_samples, sizeof *to, sample_order);
    for (uint32_t i = 0; i < t->n_samples; i++) {
        if (n != 0 && sample_order(&to[n - 1], &to[i]) == 0) {
            to[n - 1].ticks += to[i].ticks;
            to[n - 1].ns += to[i].ns;
        } else {
            to[n++] = to[i];
        }
    }
    return n;
}

/* The tree's samples as they are written: no two have the same stack and labels. *joined is to be freed. 0 or -ENOMEM. */
static int samples_of(const struct writer *w, struct call_sample **joined, const struct call_sample **samples,
                      uint32_t *n)
{
    const struct call_tree *t = w->tree;
    const size_t threads = w->whole->n_threads;
    uint32_t *indices = malloc((2 * threads + 1) * sizeof *indices);
    int err = indices != NULL ? 0 : -ENOMEM;

    *joined = NULL;
    *samples = t->samples;
    *n = t->n_samples;
    if (w->whole->tree_file == NULL && /* there they are joined already, and others may have their labels */
        err == 0 && t->n_samples != 0 && threads_alike(w->whole, indices, indices + threads)) {
        *samples = *joined = malloc(t->n_samples * sizeof **joined);
        if (*joined != NULL)
            *n = samples_join(t, indices + threads, *joined);
        else
            err = -ENOMEM;
    }
    free(indices);
    return err;
}

int writer_samples_out(struct writer *w,
                       size_t (*label_more)(const struct call_sample *s, struct stile__builder_label *to))
{
    const struct call_sample *samples;
    struct call_sample *joined;
    uint64_t *ids = NULL;
    uint32_t n_samples;
    size_t cap = 0, n;
    int err = samples_of(w, &joined, &samples, &n_samples);
    for (uint32_t i = 0; i < n_samples && err == 0; i++) {
        const struct call_sample *s = &samples[i];
        const struct thread_seen *t = &w->whole->threads[s->thread];
        const struct tree *tree = w->whole->tree_file;
        struct stile__builder_label labels[4 + WRITER_LABELS_MORE] = {{.key = "thread", .str = t->comm},
                                                                      {.key = "tid", .num = t->tid},
                                                                      {.key = "pid", .num = w->p->own_pid}};
        const int64_t values[] = {(int64_t)s->ticks, (int64_t)s->ns};
        size_t n_labels = 3;
        if (tree != NULL) {
            labels[2].num = tree->members[t->member].owner.own_pid;
            labels[n_labels++] =
                (struct stile__builder_label){.key = "comm", .str = tree->members[t->member].comm};
        }
        if (label_more != NULL)
            n_labels += label_more(s, labels + n_labels);
        err = stack_out(w, s->node, &ids, &cap, &n);
        if (err == 0)
            err = stile__builder_sample_add(w->builder, ids, n, values, labels, n_labels);
    }
    free(joined);
    free(ids);
    return err;
}

/* A has_* flag stops viewers from looking for better themselves: it is set only where debug information answered
 * for every location of the mapping that has a symbol at all (a PLT entry has none, for no viewer), or where there is
 * nothing else to ask, since the code was compiled at run time. */
int writer_flags_out(struct writer *w)
{
    for (uint32_t i = 0; i < w->whole->mappings.n_all; i++) {
        const struct mapping_out *m = &w->mappings[i];
        if (m->run_time_names) {
            int err = stile__builder_mapping_flags_set(w->builder, m->id, true, false, false, false);
            if (err != 0)
                return err;
            continue;
        }
        if (m->id == 0 || w->names == NULL || !look_up_has_debug_info(w->names, i))
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

int writer_comment(struct writer *w, const char *format, ...)
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

void writer_names_comment(struct writer *w)
{
    const struct tree *tree = w->whole->tree_file;
    for (uint32_t i = 0; i < w->n_run_time; i++) {
        const struct run_time_names *names = &w->run_time[i];
        int pid = tree != NULL ? tree->members[i].owner.own_pid : w->p->own_pid;
        if (names->trouble != NULL)
            writer_comment(w, "names of run-time code: /tmp/perf-%d.map left out: %s", pid, names->trouble);
        else if (names->map.lines != 0)
            writer_comment(w, "names of run-time code: %u lines of /tmp/perf-%d.map, %u skipped",
                           names->map.lines, pid, names->map.skipped);
    }
    if (w->names == NULL) {
        writer_comment(w, "names: left out, since looking them up failed");
        return;
    }
    const struct look_up_late late = look_up_late_of(w->names);
    if (late.lines != 0)
        writer_comment(w,
                       "names: time was up; lines and inlined functions are left out for %" PRIu32
                       " of %" PRIu32 " places, and names for %" PRIu32 " of them",
                       late.lines, late.places, late.nameless);
}

int writer_head_out(struct writer *w, const char *const types[2][2], const char *const period[2],
                    int64_t period_value)
{
    const struct process *p = w->p;
    struct stile__builder *b = w->builder;
    uint64_t end = p->end_mono_ns != 0 ? p->end_mono_ns : now_mono_ns();
    int err = 0;
    for (int i = 0; i < 2 && err == 0; i++)
        err = stile__builder_sample_type_add(b, types[i][0], types[i][1]);
    if (err == 0)
        err = stile__builder_default_sample_type_set(b, types[1][0]);
    if (err == 0)
        err = stile__builder_period_set(b, period[0], period[1], period_value);
    if (err == 0)
        err = stile__builder_time_set(b, (int64_t)p->start_unix_ns, (int64_t)(end - p->start_mono_ns));
    if (err == 0 && w->whole->mappings.n_all > 0)
        err = mapping_out(w, 0); /* the main binary comes first */
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

int writer_run(struct writer *w, const struct process *p, const struct call_tree *tree, const char *path,
               bool named, int (*fill)(struct writer *))
{
    int err = -ENOMEM;

    *w = (struct writer){.p = p, .whole = p->origin != NULL ? p->origin : p, .tree = tree};
    w->builder = stile__builder_new();
    w->names = named ? look_up_new(&w->whole->mappings, tree) : NULL;
    w->mappings = calloc(w->whole->mappings.n_all + 1, sizeof *w->mappings);
    w->node_location = calloc(tree->n_nodes + 1, sizeof *w->node_location);
    w->n_run_time = w->whole->tree_file != NULL ? w->whole->tree_file->n_members : 1;
    w->run_time = calloc(w->n_run_time + 1, sizeof *w->run_time);
    if (w->builder == NULL || w->run_time == NULL || (named && w->names == NULL) || w->mappings == NULL ||
        w->node_location == NULL)
        goto out;
    err = fill(w);
    if (err == 0)
        err = file_out(w->builder, path);
out:
    look_up_free(w->names);
    free(w->node_location);
    free(w->mappings);
    for (uint32_t i = 0; w->run_time != NULL && i < w->n_run_time; i++)
        perf_map_free(&w->run_time[i].map);
    free(w->run_time);
    stile__builder_free(w->builder);
    return err;
}
