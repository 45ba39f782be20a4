/* A thread that waits, as the collector sees it: what the agent writes, by hand. */
#ifndef STILE_TESTS_UNIT_HAND_MADE_WAITS_H
#define STILE_TESTS_UNIT_HAND_MADE_WAITS_H

#include "tests/unit/collector/hand_made.h"

/* Frame i of a stack, which is in this program's text. */
uint64_t hand_made_frame(uint64_t i);

/* Writes the record of waits that have ended into slot 0's ring; its frames are 1, 2, ..., the leaf's first. */
void hand_made_wait(struct hand_made *h, uint32_t n_frames, uint64_t why, uint32_t count, uint64_t delay_ns,
                    enum stile__reason reason);

/* Slot 0's thread begins to wait: what it leaves (three frames), then its state. */
void hand_made_wait_begin(struct hand_made *h, enum stile__wait_reason why, uint64_t since_ns);

/* It comes back: as the agent does, it tells the rest. Returns when the wait ended. */
uint64_t hand_made_wait_end(struct hand_made *h, uint64_t why);

#endif
