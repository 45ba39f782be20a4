/* A program, its region and its hello as the collector is given them, of which anything may be damaged. */
#ifndef STILE_TESTS_UNIT_FUZZ_WORLD_H
#define STILE_TESTS_UNIT_FUZZ_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "profiler/collector/process.h"

struct world {
    struct stile__region *region; /* the program's side of it, in this process and in the child */
    struct stile__region_size size;
    uint64_t bytes; /* of the region */
    int fd;
    pid_t
        program; /* a child that stands for the program: what is signalled, asked for its clocks and its maps */
    struct process *process; /* NULL: it was refused */
    uint64_t numbers;        /* what is done next comes from here */
};

/* A region as an agent makes it, with waits, pieces, barriers and a report or without. scribbler: the child writes into it as long
 * as it lives. */
void world_make(struct world *w, uint64_t seed, bool scribbler);

/* Gives it to the collector. False, and *why says so, if that does not take it. */
bool world_hand_over(struct world *w, const char **why);

/* What a program leaves between two looks: records of all kinds, blocks, waits, counters, threads that come and go. */
void world_go_on(struct world *w);

/* Writes somewhere into the region: into what has a meaning, or anywhere. */
void world_damage(struct world *w);

/* What was found does not end the look at it; the rings begin anew. */
void world_mend(struct world *w);

/* The child ends: the collector finds its program dead. */
void world_kill(struct world *w);

void world_free(struct world *w);

/* A hello of this many bytes, to be freed; its texts are paths below a directory. */
struct stile__hello *world_hello(const char *directory, size_t *size);

/* A value that is near a limit, or any other. */
uint64_t world_value(uint64_t *numbers);

#endif
