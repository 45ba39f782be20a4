/* The report's text in the region. Runs in the handlers of crashes. */
#include "profiler/agent/crash/area.h"

#include <sys/mman.h>

#include "profiler/agent/session.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define STEP 65536u /* bytes that are populated at once: a fault that a memfd cannot serve is a SIGBUS */
_Static_assert(STILE__REPORT_BYTES % STEP == 0, "whole steps");

static uint32_t ready;  /* bytes that are populated; the reporter's */
static uint32_t length; /* of the text: the region's own word may be scribbled on */

void stile__report_area_begin(struct stile__region *r)
{
    ready = length = 0;
    atomic_store_explicit(&r->report_len, 0, memory_order_relaxed);
    atomic_store_explicit(&r->report_out, 0, memory_order_relaxed);
}

bool stile__report_area_add(struct stile__region *r, const char *bytes, size_t n)
{
    const struct stile__region_size size = stile__session->size;
    char *area = stile__region_report(r, size);

    if (n > size.report - length)
        return false;
    while (length + n > ready) {
        const uint32_t step = size.report - ready < STEP ? size.report - ready : STEP;
        if (stile__raw_syscall(SYS_madvise, (long)(area + ready), step, MADV_POPULATE_WRITE, 0) != 0)
            return false;
        ready += step;
    }
    for (size_t i = 0; i < n; i++)
        area[length + i] = bytes[i];
    length += (uint32_t)n;
    atomic_store_explicit(&r->report_len, length,
                          memory_order_release); /* pairs with the collector's acquire */
    return true;
}
