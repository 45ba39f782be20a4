/* One file for a whole tree of processes. Collector, normal context.
 *
 * The tree's profile is a process structure that has no process and no region. A process that belongs to it is folded in when
 * it has ended and its books are balanced; then it is as if it had written its file. Files that several processes map are one
 * mapping of the tree: each lies at different addresses in each, so here it has an address of its own (that of the process that
 * came first with it, if nothing lies there yet). Code that has no file, such as a compiler's that runs in the program, is its
 * process's alone.
 *
 * Whatever writes the file does it in a fork, and there folds in what still runs: so a file may be had at any time, and in the
 * collector each process is folded in once, when all is known. */
#ifndef STILE_COLLECTOR_TREE_H
#define STILE_COLLECTOR_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/collector/perf_map.h"
#include "profiler/collector/process.h"

#define TREE_UNPROFILED_NAME "[children not profiled]"

/* One image of one process of the tree. */
struct tree_member {
    struct perf_map_owner owner; /* without a pidfd */
    char comm[17];
    pid_t parent_pid;                /* as its process sees it; 0: another namespace's */
    uint64_t birth_ns, end_ns;       /* CLOCK_MONOTONIC: of its first image, and of itself */
    uint64_t booked_ns, children_ns; /* CPU time: its own, and that of the children it had waited for */
    bool tells;                      /* children_ns is known */
};

/* A command that `stile record` has waited for. */
struct tree_command {
    pid_t waiter;     /* its pid */
    uint64_t used_ns; /* CPU time of the command, with children that were waited for; 0: not known */
};

struct tree {
    struct tree_member *members;
    uint32_t n_members, cap_members;
    uint32_t n_processes;      /* an image that was exec'd in place is none of its own */
    struct call_index threads; /* of the tree's process, by what labels say of them */
    uint32_t *shared;          /* mappings of files, as indices */
    uint32_t n_shared, cap_shared;
    uint64_t next_place;           /* of mappings whose own is taken */
    struct told told;              /* sums */
    uint32_t no_barriers, damaged; /* processes that could not have any, and whose region was */
};

/* What tree_ends_book has added. */
struct tree_ends {
    int64_t cpu_ns; /* in all; less than zero: taken away */
    uint64_t ends_ns, unprofiled_ns;
};

/* From here on processes whose files have the name of the first one are one tree's (names.c says which). */
void tree_begin(void);
bool tree_is_on(void);

/* The structure that stands for the tree, or NULL as long as nothing belongs to it. */
const struct process *tree_process(void);

/* A process has come, and has its names and command line. The first one's are the tree's. */
void tree_join(struct process *p);

/* Whether a file of the process is the tree's. */
bool tree_has(const struct process *p);

/* Takes what a process has in its call trees and totals. 0 or -ENOMEM, and then some of it is missing. */
int tree_fold(struct process *p);

/* tree_fold.c: the same, into any such structure. */
int tree_fold_into(struct process *t, const struct process *p);

/* In a writer process: folds in what still runs, and books what the kernel has counted beyond all that. */
void tree_complete(void);

/* A command has ended. */
void tree_command_ended(const struct tree_command *command);

/* The thread that a member's own time is told with, as an index; UINT32_MAX without memory. */
uint32_t tree_member_thread(struct process *t, uint32_t member);

/* tree_ends.c: the ends of processes, and children without a profile, whose time it returns. */
uint64_t tree_ends_book(struct process *t, const struct tree_command *command);

/* What is due of a process that belongs to the tree, as writer_start_due. */
void tree_start_due(struct process *p);

/* A look: the tree's file is written if somebody waits for it, and who waited is answered. done: there has to be a file now,
 * since the command has ended; and again when what it had left behind has. */
void tree_round(struct process *list, bool done);

/* Whether the file that `done` asked for is there; and whether there is nothing left to be done for any. */
bool tree_written(void);
bool tree_idle(void);

/* Its files and what became of them. */
void tree_status(struct stile__status *s);

/* Processes of the tree that still run. */
unsigned tree_running(const struct process *list);

#endif
