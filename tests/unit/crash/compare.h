/* Walks compared with those of the compiler's own unwinder. */
#ifndef STILE_TESTS_UNIT_CRASH_COMPARE_H
#define STILE_TESTS_UNIT_CRASH_COMPARE_H

#include <stdbool.h>
#include <ucontext.h>

#include "profiler/agent/crash/frames.h"

#define COMPARE_FRAMES 2000u /* of a reference walk, at most */

struct compare_counts {
    unsigned walks, frames;
    unsigned beyond; /* walks that went on where the reference had no CFI */
    unsigned differ;
};

extern struct compare_counts compare_counts;
extern struct stile__frames compare_walk; /* the last one */

/* Loads what the reference needs. Normal context, before the first. */
void compare_init(void);

/* In a signal handler: walks from what it interrupted, both ways. */
void compare_at(const ucontext_t *uc);

/* What the first difference was. */
void compare_explain(void);

#endif
