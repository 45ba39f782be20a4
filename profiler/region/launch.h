/* Starts a collector: used by the agent in the program, and by `stile record`. */
#ifndef STILE_REGION_LAUNCH_H
#define STILE_REGION_LAUNCH_H

#include <stddef.h>
#include <sys/types.h>

#define STILE__NAME_MAX 64 /* of stile-VERSION-RANDOM; the version is the region's */

struct stile__launch {
    const char *program;        /* in: path of the `stile` executable */
    char name[STILE__NAME_MAX]; /* out: the abstract socket address, without its leading NUL */
    pid_t pid;                  /* out: the collector */
};

/* Starts `stile collect` as a process that the caller can neither see as a child nor lose by a signal to its
 * process group. Normal context; allocates nothing, leaves no file descriptor, restores errno and the signal mask.
 * Returns 0, or -errno of the step that failed (that of execve if the program cannot be run). */
int stile__launch_collector(struct stile__launch *launch);

/* Connects to a collector's abstract address. Returns a close-on-exec descriptor that the caller owns, or -errno;
 * -EPERM if somebody else (another user) listens there. */
int stile__launch_connect(const char *name);

#endif
