/* The walk in the measuring program's own process: the product's objects, a region and a session such as the agent makes,
 * and rules that the collector's code has learned from this program's files. Beside it other ways of walking. */
#include "bench/programs/walk_here.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "profiler/agent/clock.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/terminate.h"
#include "profiler/collector/modules.h"
#include "profiler/collector/rule_table.h"
#include "profiler/region/raw_syscall.h"

#define FRAMES_MAX 1200
#define GENERATION 5ull
#define AROUND     2048 /* bytes */

/* What the agent has; see profiler/agent/session.c and threads.c. */
struct stile__session *stile__session;
struct stile__terminated stile__terminated;
_Thread_local struct stile__thread stile__thread;

static struct stile__session session;
static struct stile__region *region;
static struct stile__slot *slot;
static struct stile__clock clocks[1];
static struct mapping_table mappings;
static struct rule_table rules;

static bool mappings_read(void)
{
    size_t cap = 1u << 20, have = 0;
    char *text = malloc(cap);
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    while (text != NULL && fd >= 0 && (n = read(fd, text + have, cap - have)) > 0)
        have += (size_t)n;
    mappings_init(&mappings, getpid());
    bool ok = n == 0 && have < cap && mappings_update(&mappings, text, have, 0) == 0;
    close(fd);
    free(text);
    return ok;
}

bool walk_here_begin(const void *stack_end)
{
    int fd;
    if (stile__region_make(&region, &fd, 10000, false, false) != 0 || !mappings_read()) {
        fputs("walk_frames: no region can be made here\n", stderr);
        return false;
    }
    close(fd);
    clocks[0].kind = STILE__CLOCK_TIMER;
    clocks[0].perf_fd = -1;
    stile__session_size_set(&session, region->size);
    session.period_ns = 1000000;
    session.tick_ns = 4000000;
    session.depth = STILE__DEPTH_MAX;
    session.clocks = clocks;
    slot = stile__region_slot(region, 0);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    atomic_store(&slot->tid, (uint32_t)gettid());
    atomic_store(&slot->generation, (uint32_t)GENERATION);
    atomic_store(&session.region, region);
    stile__thread.stack.hi = (uintptr_t)stack_end;
    stile__thread.stack.lo = stile__thread.stack.hi - (4u << 20);
    rule_table_open(&rules, region, session.size, &mappings, 0);
    stile__session = &session;
    return true;
}

/* As the collector does of samples; and what lies around, since the same functions make other calls. */
void walk_here_learn(void)
{
    void *frames[FRAMES_MAX];
    int n = unw_backtrace(frames, FRAMES_MAX);
    for (int i = 0; i < n; i++)
        for (int64_t off = -AROUND; off <= AROUND; off += 1 << STILE__RULES_BLOCK_BITS)
            rule_table_learn(&rules, &mappings, (uint64_t)((int64_t)(uintptr_t)frames[i] - 1 + off));
}

static uint32_t walk_ours(const struct walk_place *at)
{
    static _Alignas(64) uint8_t cells[64 * STILE__CELL_BYTES];
    static uint64_t regs[NGREG];
    static const struct stile__place place = {.regs = regs};
    struct stile__record *record = (void *)cells;
    regs[REG_RIP] = at->pc;
    regs[REG_RSP] = at->rsp;
    regs[REG_RBP] = at->rbp;
    record->cells = 64;
    record->kind = STILE__RECORD_WALKED;
    record->frames_block = record->block = STILE__BLOCK_NONE;
    stile__walk(&session, region, &stile__thread, &place, record);
    atomic_store_explicit(&region->blocks_used[0], 0, memory_order_relaxed); /* as a drain does */
    return record->kind == STILE__RECORD_WALKED && record->reason == STILE__REASON_NONE ? record->n_new : 0;
}

/* The least that a walk by frame pointers can do in a handler, which must not read beyond the stack. */
static uint32_t walk_frame_pointers(const struct walk_place *at)
{
    static uint64_t out[FRAMES_MAX];
    const uint64_t hi = stile__thread.stack.hi;
    uint64_t last = at->rsp, rbp = at->rbp, pc = at->pc;
    uint32_t n = 0;
    while (n < FRAMES_MAX) {
        out[n++] = pc;
        if (rbp < last || rbp % 8 != 0 || rbp >= hi || hi - rbp < 16)
            break;
        const uint64_t *frame = (const uint64_t *)rbp;
        uint64_t ret = frame[1];
        if (ret - 65536 >= (1ull << 48) - 65536)
            break;
        last = rbp + 16;
        rbp = frame[0];
        pc = ret - 1;
    }
    __asm__ volatile("" : : "m"(out));
    return n;
}

static uint32_t walk_unw_backtrace(const struct walk_place *at)
{
    static void *out[FRAMES_MAX];
    (void)at;
    return (uint32_t)unw_backtrace(out, FRAMES_MAX);
}

static uint32_t walk_unw_step(const struct walk_place *at)
{
    static unw_word_t out[FRAMES_MAX];
    unw_context_t context;
    unw_cursor_t cursor;
    uint32_t n = 0;
    (void)at;
    unw_getcontext(&context);
    unw_init_local(&cursor, &context);
    do
        unw_get_reg(&cursor, UNW_REG_IP, &out[n++]);
    while (n < FRAMES_MAX && unw_step(&cursor) > 0);
    return n;
}

uint32_t walk_here(enum walk_side side, const struct walk_place *at)
{
    switch (side) {
    case WALK_STILE:
        return walk_ours(at);
    case WALK_FRAME_POINTERS:
        return walk_frame_pointers(at);
    case WALK_UNW_BACKTRACE:
        return walk_unw_backtrace(at);
    default:
        return walk_unw_step(at);
    }
}
