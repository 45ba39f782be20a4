/* Memory that can be read: each page is asked for once. A cache of the caller's, for as long as he needs it: what could be
 * read may be unmapped later. Async-signal-safe. */
#ifndef STILE_AGENT_CRASH_PAGES_H
#define STILE_AGENT_CRASH_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/raw_syscall.h"

#define STILE__PAGES_KNOWN 32u
#define STILE__PAGES_BYTES 4096u
#define STILE__PAGES_END   0x7ffffffff000u /* of what a program can have, with four levels of page tables */

/* Zeros at first. */
struct stile__pages {
    uint64_t known[STILE__PAGES_KNOWN]; /* page i is in known[i % STILE__PAGES_KNOWN] */
};

/* Whether n bytes can be read. */
static inline bool stile__pages_readable(struct stile__pages *p, uint64_t address, uint64_t n)
{
    if (n == 0)
        return true;
    if (n > STILE__PAGES_END || address > STILE__PAGES_END - n)
        return false;
    for (uint64_t page = address / STILE__PAGES_BYTES; page <= (address + n - 1) / STILE__PAGES_BYTES;
         page++) {
        if (p->known[page % STILE__PAGES_KNOWN] == page && page != 0)
            continue;
        if (!stile__raw_readable(page * STILE__PAGES_BYTES))
            return false;
        p->known[page % STILE__PAGES_KNOWN] = page;
    }
    return true;
}

#endif
