/* Faults that tests inject into a library of their own (STILE_FAULTS, see tests/faults/faults.c). In the product there are
 * none: each question has a constant answer. */
#ifndef STILE_AGENT_SIGNAL_FAULTS_H
#define STILE_AGENT_SIGNAL_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/layout.h"

enum stile__fault {
    STILE__FAULT_LOCK,  /* the stack is locked */
    STILE__FAULT_STUBS, /* there are no stubs left */
    STILE__FAULT_SLOT,  /* a slot changes between walk and commit */
    STILE__FAULT_GONE,  /* a barrier's slot gets its return address back without us */
    STILE__FAULT_RULE,  /* a walk goes by a wrong rule, which its memo keeps */
    STILE__FAULT_ROW,   /* the table has a wrong rule, which the cache of the process keeps */
    STILE__FAULT_RING,  /* the ring is full */
    STILE__FAULT_BLOCK, /* there are no blocks left */
    /* Violations of stack ownership, for its check to find. Each is harmless where nobody else is there. */
    STILE__FAULT_OWNER_SAMPLE,   /* a sample's walk without the stack's lock */
    STILE__FAULT_OWNER_BARRIERS, /* barriers are placed after it is given back */
    STILE__FAULT_OWNER_REMOVE,   /* they are taken off after that */
    STILE__FAULT_OWNER_WAIT,     /* a wait's walk after the stack was given away */
    STILE__FAULT_OWNER_EXECUTES, /* a thread executes in a wait that is none of these */
    STILE__FAULTS
};

#ifdef STILE_FAULTS
#    define STILE__FAULTY 1

/* Whether it happens now; then it is counted, as so many. All of these are async-signal-safe. */
bool stile__fault(enum stile__fault kind, uint32_t n);

/* A rule, or a wrong one. */
uint64_t stile__fault_rule(enum stile__fault kind, uint64_t rule);

/* Stubs below this number are all there are. */
uint32_t stile__fault_stubs(void);

/* Counts that there was none. */
void stile__fault_starved(void);
#else
#    define STILE__FAULTY 0

static inline bool stile__fault(enum stile__fault kind, uint32_t n)
{
    (void)kind, (void)n;
    return false;
}

static inline uint64_t stile__fault_rule(enum stile__fault kind, uint64_t rule)
{
    (void)kind;
    return rule;
}

static inline uint32_t stile__fault_stubs(void)
{
    return STILE__STUBS;
}

static inline void stile__fault_starved(void)
{
}
#endif

#endif
