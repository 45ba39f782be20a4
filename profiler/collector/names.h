/* Which file each process of the tree writes. Collector, normal context.
 *
 * Where the tree has one file (tree.h), that is where every process goes that means the first one's path. Otherwise:
 *
 * The first process that names a path owns it. Another one that means the same path writes NAME.PID.pb.gz beside it.
 * After an exec in place the last image owns the name; earlier ones become NAME.PID.N.pb.gz.
 *
 * A process that may write several files (an interval, a toggle) numbers them all: NAME.1.pb.gz, NAME.2.pb.gz, ..., or
 * NAME.PID.1.pb.gz, .... After an exec in place the next image goes on counting, so earlier files keep their names. A
 * child of such a process that has one file only writes NAME.PID.0.pb.gz: NAME.PID.pb.gz could be a number's. */
#ifndef STILE_COLLECTOR_NAMES_H
#define STILE_COLLECTOR_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "profiler/collector/process.h"

/* What a hello says, as strings into it. False if they do not fill it exactly. */
struct hello_text {
    const char *text[STILE__HELLO_TEXTS];
};
bool hello_parse(const struct stile__hello *hello, size_t size, struct hello_text *out);

/* Sets p->files. earlier: the image that this pid had before, or NULL; it gives its paths away. */
void names_assign(struct process *p, const struct hello_text *hello, struct process *earlier);

/* The files that a numbered process writes next have the next number: those of one time have one. */
void names_next(struct process *p);

/* The pid is free for another process: it has no claim to what this one owned. */
void names_release(pid_t pid);

/* NAME.MIDDLE.pb.gz of NAME.pb.gz. */
void names_insert(const char *path, const char *middle, char *out, size_t size);

#endif
