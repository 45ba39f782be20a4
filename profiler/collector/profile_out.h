/* A pprof file of one call tree: what all kinds of profiles have in common. Runs in the writer process, or in the collector
 * where none is to be had; normal context. */
#ifndef STILE_COLLECTOR_PROFILE_OUT_H
#define STILE_COLLECTOR_PROFILE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/look_up.h"
#include "profiler/collector/perf_map.h"
#include "profiler/collector/process.h"
#include "proto/builder.h"

#define WRITER_LABELS_MORE 1u /* that a kind of profile adds to those that all have */

struct mapping_out;
struct run_time_names;

struct writer {
    const struct process *p;
    const struct process *whole; /* that it is a piece of, or itself: threads, mappings, what is told of it */
    const struct call_tree *tree;
    bool leaves_are_functions; /* the leaf's address is where the function begins */
    struct stile__builder *builder;
    struct look_up *names;           /* NULL: without any */
    struct run_time_names *run_time; /* of the process, or of each member of the tree */
    uint32_t n_run_time;
    struct mapping_out *mappings;
    uint64_t *node_location; /* per call tree node; 0: none yet */
};

/* Makes a file of a process's tree: `fill` adds all that is in it, then it is written aside and renamed. named: look names up.
 * Returns 0 or -errno. *w need not be initialized. */
int writer_run(struct writer *w, const struct process *p, const struct call_tree *tree, const char *path,
               bool named, int (*fill)(struct writer *));

/* The steps of `fill`, in this order. 0 or -errno.
 * Both sample types (type and unit), of which the second is the default; the period's type, unit and value; the times; the
 * main binary. */
int writer_head_out(struct writer *w, const char *const types[2][2], const char *const period[2],
                    int64_t period_value);

/* All samples, with what label_more adds to their labels (it returns how many, WRITER_LABELS_MORE at most), unless NULL. */
int writer_samples_out(struct writer *w,
                       size_t (*label_more)(const struct call_sample *s, struct stile__builder_label *to));

/* What the mappings' names are good for. */
int writer_flags_out(struct writer *w);

/* One comment, of one line. */
int writer_comment(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Remarks on the names in the file. */
void writer_names_comment(struct writer *w);

#endif
