/* A process as the collector sees it, of which the test itself is the program. */
#ifndef STILE_TESTS_UNIT_HAND_MADE_H
#define STILE_TESTS_UNIT_HAND_MADE_H

#include "profiler/collector/process.h"

struct hand_made {
    struct process *process;
    struct stile__region *region; /* the program's side of it */
    struct stile__slot *slot;     /* slot 0: live, of the calling thread */
    struct stile__left *left;     /* of slot 0, where waits are recorded */
};

void hand_made_new(struct hand_made *h);

/* The same with a blocking profile. Its session is as old as this. */
#define HAND_MADE_AGE_NS 60000000000ull
void hand_made_waits_new(struct hand_made *h, uint64_t rate_ns, uint64_t advance_ns);
void hand_made_free(struct hand_made *h);

/* Writes a record of frames into slot 0's ring, leaf first. */
void hand_made_tick(struct hand_made *h, const uint64_t *frames, uint32_t n, enum stile__reason reason,
                    uint32_t ticks);

/* Reserves room for n words, to be filled and then published. */
struct stile__record *hand_made_reserve(struct hand_made *h, uint32_t n_words, uint64_t *commit);

/* The descriptors of a hello that a program of ours with this region would send. */
void hand_made_descriptors(int region_fd, int *fds);

#endif
