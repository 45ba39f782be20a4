/* Whether an address is where a call returns to. */
#ifndef STILE_BARRIERS_CALL_SITE_H
#define STILE_BARRIERS_CALL_SITE_H

#include <stdbool.h>
#include <stdint.h>

/* True if a call instruction ends just before the address. Reads the code there, within its page: the address must be in
 * code that has unwind rules, so that it can be read. Async-signal-safe. */
bool stile__call_precedes(uint64_t address);

#endif
