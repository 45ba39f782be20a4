/* Where a report goes: to descriptor 2, to the crash output, and into the region for the collector. */
#ifndef STILE_AGENT_CRASH_OUTPUT_H
#define STILE_AGENT_CRASH_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/agent/crash/text.h"
#include "profiler/region/layout.h"

/* Makes a duplicate of fd the crash output, or turns it off (-1). Normal context; any thread. Returns 0; -EBADF or -EMFILE: the
 * earlier one stays; -EBUSY: a crash is being reported, and nothing was changed. */
int stile__crash_output_swap(int fd);

/* Remembers what descriptor 2 is: of what the program opens there later, a file that is not appended to may be its data, and gets
 * nothing. Normal context, when reports are enabled. */
void stile__crash_output_init(void);

/* The reporter's, in its handler, and nobody else's until the end. r: the region, or NULL. copy: whether the text goes to the crash
 * output as well (a crash), or not (a dump). */
void stile__crash_output_begin(struct stile__region *r, bool copy);

/* Writes to all of them; what does not take it in time is left out from then on. All signals are blocked: those that a write causes
 * are consumed. */
stile__text_sink stile__crash_output_write;

/* The same for what comes from the region, and need not go there. */
stile__text_sink stile__crash_output_write_back;

/* The program goes on: swaps are possible again. Also for the child of a fork, whose parent may have been reporting. */
void stile__crash_output_end(void);

#endif
