/* Names the frames of a crash report: functions, files and lines, by the build ids of the report's own table of modules. The
 * format is in profiler/region/report.h.
 *
 * The text may be anything: broken, cut short, or written to do harm. What is not understood stays as it is; time and memory
 * go with the text's size. Context: forks of the collector, and the command line; single-threaded. */
#ifndef STILE_PROTO_REPORT_NAMES_H
#define STILE_PROTO_REPORT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__report_names;

/* What its owner does for it. */
struct stile__report_way {
    /* Opens the file that the program had at a path, in way 0, 1, ...: a descriptor, which is closed here, or -1. Only a file
     * of the right build is used. ways: how many there are. */
    int (*open)(void *arg, const char *path, unsigned way);
    unsigned ways;
    /* The name of code at an address of the program that no file can name, or NULL. May be NULL itself. */
    const char *(*name)(void *arg, uint64_t pc);
    /* Takes whole lines. False: no more of them. */
    bool (*write)(void *arg, const char *bytes, size_t n);
    void *arg;
};

/* debug_root: where separate debug files lie; NULL: where they always do. NULL without memory. */
struct stile__report_names *stile__report_names_new(const struct stile__report_way *way,
                                                    const char *debug_root);
void stile__report_names_free(struct stile__report_names *r);

/* Writes the report with each frame named, and all else as it is. 0, -ENOMEM, or -ECANCELED: no more was wanted. */
int stile__report_annotate(struct stile__report_names *r, const char *text, size_t size);

/* Writes the stacks alone, named, the crashed thread's first, between two texts. Returns as the other one does. */
int stile__report_stacks(struct stile__report_names *r, const char *text, size_t size, const char *first,
                         const char *last);

#endif
