/* All stacks of a live program, for somebody who asks: `stile dump`, or the program itself. Collector, normal context.
 *
 * The world is stopped by `freezing`: who waits stays there, and what it left is read; who runs is signalled, records its own
 * stack and stands still. It is let go after half a second at the latest, then names are looked up in a fork. Nothing of it
 * waits: a dump goes on from round to round. */
#ifndef STILE_COLLECTOR_DUMP_H
#define STILE_COLLECTOR_DUMP_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/collector/dump_look.h"
#include "profiler/collector/process.h"

/* Begins a dump of one of these processes for a client, whose descriptors are owned from here on: where it hears how it went,
 * and where the text goes. */
void dump_ask(struct process *list, const struct stile__dump_ask *ask, int client, int out);

/* One look: begins what the program asks for, goes on with what is under way. After the drain. */
void dump_round(struct process *p);

/* A record that answers. Takes its blocks. */
void dump_record_take(struct process *p, uint32_t i, uint32_t thread, const struct stile__record *r);

/* Whether the program stands still, and whether somebody waits for the end. */
bool dump_urgent(const struct process *p);
bool dump_pending(const struct process *p);

/* Lets the program go, whatever is missing. What is already known is still told. */
void dump_thaw(struct process *p, const char *why);

void dump_free(struct process *p);

#endif
