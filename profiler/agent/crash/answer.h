/* What the collector answers, to the outputs. Runs in the handlers of crashes and of dumps. */
#ifndef STILE_AGENT_CRASH_ANSWER_H
#define STILE_AGENT_CRASH_ANSWER_H

#include "profiler/agent/session.h"

/* Copies the answer to what was asked (see stile__answer_of) as it comes, within a time limit; one line says so if there is none. */
void stile__answer_copy(const struct stile__session *s, struct stile__region *r, uint32_t asked);

#endif
