/* Instead of agent/blocking.c: it writes down what the hooks tell. */
#ifndef STILE_TESTS_UNIT_AGENT_FAKE_BLOCKING_H
#define STILE_TESTS_UNIT_AGENT_FAKE_BLOCKING_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/waits.h"

enum told { BEGUN, ENDED, CHECKED, MEASURED, WOKE, TOLD };

/* Sends the hooks here, or to libc alone. What was told and is remembered is forgotten. */
void fake_record(bool on);
void fake_forget(void);

/* How often it was told since then; of any reason, or with a hook of that reason. */
unsigned fake_told(enum told what);
unsigned fake_told_of(enum told what, enum stile__wait_reason why, const void *hook);

/* Waits until this thread sleeps in the kernel, for ten seconds at most. */
bool asleep(int tid);

#endif
