/* What `stile record` says at the end. Context: the command line. */
#ifndef STILE_CLI_SUMMARY_H
#define STILE_CLI_SUMMARY_H

#include <stdbool.h>

#include "profiler/region/hello.h"

struct stile__summary {
    const struct stile__status *status; /* the collector's last report */
    const char *profile, *block;        /* the files as they were asked for; block "": not by an option */
    const char *command;
    bool told; /* why the command would have no profile */
    double seconds;
    unsigned hz;
    bool collector_gone;
};

/* Prints it to stderr. Returns whether there are files whose comments can be shown. */
bool stile__summary_print(const struct stile__summary *s);

#endif
