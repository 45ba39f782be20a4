/* Crash reports, from the program's side: whose the signals are, and where reports go. Normal context. */
#ifndef STILE_AGENT_CRASH_SIGNALS_H
#define STILE_AGENT_CRASH_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

#include "profiler/agent/options.h"

/* Installs the handler for each signal that is a crash and that the program does not ignore; again for those that are the
 * program's by now. freezes: reports stop all other threads. Returns 0 or -errno. */
int stile__crash_install(bool freezes);

/* In the child of a fork: nothing is reported there yet. */
void stile__crash_forked(void);

/* The program's sigaction on such a signal: true if it has been dealt with. *old gets what the program set. What it sets is what
 * happens after the report. In a vfork's child nothing is dealt with. */
bool stile__crash_sigaction(int signal, const struct sigaction *act, struct sigaction *old);

/* Opens what PROFILE_CRASH names and makes it the crash output; one line if that fails: reports go to descriptor 2 alone then.
 * forked: in the child of a fork, which has its parent's unless the name has its pid. */
void stile__crash_output_open(const struct stile__options *o, bool forked);

/* The file's name, "" for none. Constant until the next call of stile__crash_output_open. */
const char *stile__crash_path(void);

#endif
