/* Finds or starts the collector and hands the region over. */
#ifndef STILE_AGENT_GREETING_H
#define STILE_AGENT_GREETING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "profiler/agent/options.h"
#include "profiler/region/launch.h"

/* The collector of this process tree. Inherited by fork as it is. */
struct stile__collector {
    char name[STILE__NAME_MAX]; /* its abstract address; "" before the first session */
    int32_t root_pid;           /* the process that waits for the file at its end; 0: none */
    pid_t pid;                  /* known only to the process that started it, else 0 */
    pid_t hidden;               /* the same, if it has become this process's child (we are pid 1) */
};

/* What the constructor was given; the strings may be overwritten by the program later, so they are copied. */
void stile__greeting_init(int argc, char **argv);

/* The command line, arguments separated by spaces, as much of it as there is room for. */
void stile__greeting_command(char *text, size_t size);

/* Says hello to the collector that an ancestor started, or starts one, and hands over the region's descriptor.
 * Sets STILE_ROOT in the environment when it has started one. Normal context, no allocation. Returns 0, or -errno
 * after one line about it. */
int stile__greeting_send(struct stile__collector *c, const struct stile__options *o, int region_fd,
                         bool forked);

/* Wakes the collector so that it looks at the region's requests now. Best effort: it also looks by itself. */
void stile__greeting_poke(const struct stile__collector *c);

#endif
