/* What `stile record` is asked for. Context: the command line. */
#ifndef STILE_CLI_RECORD_OPTIONS_H
#define STILE_CLI_RECORD_OPTIONS_H

#include <limits.h>
#include <stdbool.h>

#include "profiler/agent/options.h"

struct stile__record_options {
    struct stile__options options;          /* profile, hz and block */
    const char *interval, *toggle, *signal; /* as they were given, or NULL */
    const char *block, *block_rate;         /* the same; block: "" for the default name */
    const char *crash;                      /* the crash output, or NULL; absolute */
    bool verbose, apart;
    char crash_path[2 * PATH_MAX];
    char block_path[PATH_MAX]; /* the default */
    char **command;            /* of argv; NULL behind its last word */
};

/* Reads the command line into *run, which is zeroed and has to stay where it is. Returns 0 to go on, -1 when the help was
 * printed, else the exit status, after one line. */
int stile__record_options_parse(int argc, char **argv, struct stile__record_options *run);

/* Whether the whole tree is to have one file: unless it is told otherwise, or the name is one for each process. */
bool stile__record_merges(const struct stile__record_options *run);

#endif
