/* Checks of what the program left in the region, before the collector believes it. Collector, normal context. */
#include "profiler/region/check.h"

#include <stdbool.h>

const char *stile__region_check(const struct stile__region *r, uint64_t file_size,
                                struct stile__region_size *size)
{
    if (file_size < sizeof *r)
        return "the region is smaller than its header";
    if (r->magic != STILE__REGION_MAGIC)
        return "the region has not our magic number";
    if (r->version != STILE__REGION_VERSION)
        return "the region is of another version of libstile";
    *size = r->size;
    if (size->slot_max == 0 || size->slot_max > STILE__SLOT_MAX || size->slot_max % 16 != 0)
        return "the region's number of thread slots is out of range";
    if (size->block_max == 0 || size->block_max > STILE__BLOCK_MAX)
        return "the region's number of snapshot blocks is out of range";
    if (size->ring_cells < STILE__RING_CELLS_MIN || size->ring_cells > STILE__RING_CELLS_MAX ||
        (size->ring_cells & (size->ring_cells - 1)) != 0)
        return "the region's size of rings is out of range";
    if (size->waits > 1)
        return "the region's room for waits is out of range";
    if (size->report > STILE__REPORT_BYTES || size->report % STILE__PAGE != 0)
        return "the region's room for a report is out of range";
    if (size->rule_pages > STILE__RULES_PAGES_MAX)
        return "the region's room for unwind rules is out of range";
    if (stile__region_layout(*size).size > file_size)
        return "the region is smaller than its parts";
    if (r->hz == 0 || r->hz > STILE__REGION_HZ_MAX || r->period_ns == 0 || r->period_ns > 1000000000u)
        return "the region's sampling rate is out of range";
    if (r->depth == 0 || r->depth > STILE__DEPTH_MAX)
        return "the region's depth is out of range";
    if (r->block_rate_ns > STILE__BLOCK_RATE_MAX || r->advance_ns > STILE__ADVANCE_NS_MAX)
        return "the region's rate of waits is out of range";
    if (r->barriers >= STILE__BARRIERS_WISHES)
        return "the region's wish for barriers is out of range";
    if (r->interval_ns != 0 &&
        (r->interval_ns < STILE__INTERVAL_NS_MIN || r->interval_ns > STILE__INTERVAL_NS_MAX))
        return "the region's interval is out of range";
    return NULL;
}

const char *stile__record_check(const struct stile__record *r, uint64_t room, uint32_t block_max)
{
    if (r->cells == 0 || r->cells > room)
        return "a record is longer than what was written";
    if (r->kind >= STILE__RECORD_KINDS)
        return "a record's kind is unknown";
    if (r->kind == STILE__RECORD_PAD)
        return NULL;
    bool snapshot = r->kind != STILE__RECORD_WALKED;
    bool wait = (r->flags & STILE__IS_WAIT) != 0;
    uint64_t words =
        (uint64_t)r->n_inline + (snapshot ? STILE__REG_COUNT : 0) + (wait ? STILE__WAIT_WORDS : 0);
    if (words * sizeof(uint64_t) > (uint64_t)r->cells * STILE__CELL_BYTES - sizeof *r)
        return "a record's frames exceed it";
    if (r->n_inline > r->n_new || (r->n_inline < r->n_new && r->frames_block >= block_max) ||
        r->n_new > STILE__DEPTH_MAX)
        return "a record's frames are out of range";
    bool dump = (r->flags & STILE__IS_DUMP) != 0;
    if (r->ticks == 0 && !wait && !dump)
        return "a record stands for no time";
    if (wait && (r->kept != 0 || (r->flags & (STILE__IS_BASE | STILE__IN_KERNEL)) != 0))
        return "a wait's record is a tick's, too";
    if (dump && (wait || r->kept != 0 || r->ticks != 0 || (r->flags & STILE__IS_BASE) != 0))
        return "a dump's record is a tick's, too";
    if (r->reason >= STILE__REASON_COUNT)
        return "a record's reason is unknown";
    if (snapshot != (r->block != STILE__BLOCK_NONE) ||
        (snapshot && (r->block >= block_max || r->stack_len > STILE__SNAPSHOT_MAX)))
        return "a record's snapshot is out of range";
    if (r->kept > STILE__DEPTH_MAX || r->n_barriers > (snapshot ? STILE__STUBS : 0))
        return "a record's barriers are out of range";
    return NULL;
}

const char *stile__reason_name(enum stile__reason reason)
{
    static const char *const names[STILE__REASON_COUNT] = {
        [STILE__REASON_NONE] = "",
        [STILE__REASON_STACK_LOCKED] = "[stack locked]",
        [STILE__REASON_NO_UNWIND_INFO] = "[no unwind info]",
        [STILE__REASON_TRUNCATED] = "[truncated]",
        [STILE__REASON_BUFFER_FULL] = "[buffer full]",
        [STILE__REASON_UNKNOWN_STACK] = "[unknown stack]",
        [STILE__REASON_UNSAMPLED] = "[unsampled]",
        [STILE__REASON_SIGNAL_BLOCKED] = "[signal blocked]",
        [STILE__REASON_EXEC_AND_EXIT] = "[exec and exit]",
    };
    return reason < STILE__REASON_COUNT ? names[reason] : "[unknown reason]";
}
