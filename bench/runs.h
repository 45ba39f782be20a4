/* Runs of profiled programs, for benchmarks: in a directory of their own, with what was built beside the benchmark. */
#ifndef STILE_BENCH_RUNS_H
#define STILE_BENCH_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "proto/reader.h"

/* Before all else; false after a line about why not. The other removes what the first has made. */
bool runs_begin(void);
void runs_end(void);

/* The path of a program that is there to be measured, for good. NULL if it is not built. */
const char *runs_program(const char *name);

/* Starts a command with a profile at so many hertz and more environment ("NAME=value", NULL-terminated). Two may run at a time, which have
 * the numbers 0 and 1. */
void runs_start(unsigned number, unsigned hz, const char *const *argv, const char *const *env);
/* Waits for it and all its files. True if it ended with 0 and left a profile. */
bool runs_wait(unsigned number);

/* What the command wrote to its standard output, up to the next call. */
const char *runs_output(unsigned number);

/* Calls `take` for each file that the command and its children left, and removes it. The number of files. */
unsigned runs_files(unsigned number, void (*take)(const struct stile__profile *p, void *arg), void *arg);

/* The comment that starts like this, or "". */
const char *runs_comment(const struct stile__profile *p, const char *start);

/* The name of the function whose frame a location is. */
const char *runs_frame_name(const struct stile__profile *p, const Perftools__Profiles__Location *l);

/* Of n values, which are sorted; 0 of none. */
double runs_median(double *values, size_t n);

/* A file in the directory of results, to be written: dir, or NULL for where benchmarks' programs are built. A line says
 * where it is, or why it is not. */
FILE *runs_result(const char *dir, const char *name);

#endif
