/* What a session begins with: its part of the region, its clocks and signals. Normal context. */
#include "profiler/agent/session_open.h"

#include <errno.h>
#include <unistd.h>

#include "barriers/chain.h"
#include "barriers/shadow_stack.h"
#include "barriers/unwind/personality.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/log.h"
#include "profiler/agent/maps.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/region/signal_name.h"

void stile__session_region_fill(struct stile__session *s, struct stile__region *r,
                                const struct stile__options *o, enum stile__origin origin,
                                uint64_t start_cpu_ns)
{
    r->hz = o->hz;
    r->ticks_wanted = o->profile[0] != '\0';
    r->block_rate_ns = o->block[0] != '\0' ? o->block_rate_ns : 0;
    r->advance_ns = o->advance_ns;
    r->interval_ns = o->interval_ns;
    r->signal = s->signal;
    r->dump = o->dump;
    atomic_store_explicit(&r->crash_wanted, o->crashes, memory_order_relaxed);
    r->toggle = o->toggle;
    r->depth = o->depth;
    r->debug = o->debug;
    r->barriers = o->barriers;
    atomic_store_explicit(&r->barriers_state, stile__barriers_off_why(), memory_order_relaxed);
    r->stubs = stile__stubs;
    r->stub_entries = (uintptr_t)stile__stub_entries;
    atomic_store_explicit(&r->rules_unloads, STILE__RULES_NONE, memory_order_relaxed);
    r->period_ns = 1000000000u / o->hz;
    r->start_unix_ns = stile__clock_now(CLOCK_REALTIME);
    r->start_mono_ns = stile__clock_now(CLOCK_MONOTONIC);
    r->start_cpu_ns = start_cpu_ns;
    r->parent_pid = getppid();
    r->from_birth = origin != STILE__ORIGIN_API;
    stile__maps_publish(r);
}

int stile__session_clocks_open(struct stile__session *s, struct stile__region *r,
                               const struct stile__options *o)
{
    int perf_error;
    stile__session_size_set(s, r->size);
    s->period_ns = r->period_ns;
    s->dump = o->dump;
    s->toggle = o->toggle;
    s->depth = o->depth;
    s->barriers = o->barriers;
    s->ticks = r->ticks_wanted != 0;
    s->block_rate_ns = r->block_rate_ns;
    s->leaves = r->size.waits != 0;
    if (!s->ticks) {
        s->clocks = NULL;
        s->process_timer = -1;
        s->use_perf = false;
        atomic_store_explicit(&s->breaks_waits, false, memory_order_relaxed);
        return 0;
    }
    int err = stile__clocks_open(s, o->clock != STILE__CLOCK_WISH_TIMER, &perf_error);
    if (err != 0)
        return err;
    s->use_perf = o->clock == STILE__CLOCK_WISH_PERF || s->period_ns < s->tick_ns;
    r->tick_ns = (uint32_t)s->tick_ns;
    if (s->use_perf)
        atomic_store_explicit(&r->perf_error, perf_error, memory_order_relaxed);
    return 0;
}

/* Two owners of one signal would spoil both: the program has it, and the user may choose another. */
int stile__session_signals_install(struct stile__session *s, const struct stile__options *o,
                                   enum stile__origin origin)
{
    char name[STILE__SIGNAL_NAME_MAX];
    s->signal = 0;
    if (o->profile[0] == '\0' && o->dump == 0 && !o->crashes)
        return 0;
    int err = stile__signal_install(o->signal, stile__handle_tick);
    int busy = err == -EBUSY ? o->signal : 0;
    if (busy != 0 &&
        o->profile[0] == '\0') { /* it is for dumps only: running threads are not stopped for them */
        err = 0;
        busy = 0;
    } else if (err == 0) {
        s->signal = o->signal;
    }
    if (err == 0 && o->dump != 0) {
        err = stile__signal_install(o->dump, stile__handle_dump);
        busy = err == -EBUSY ? o->dump : 0;
    }
    if (err == 0 && o->toggle != 0) {
        err = stile__signal_install(o->toggle, stile__handle_toggle);
        busy = err == -EBUSY ? o->toggle : 0;
    }
    if (busy != 0 && origin == STILE__ORIGIN_START)
        stile__log(
            "the program handles %s itself (%s=NAME chooses another signal); running without a profile",
            stile__signal_name(busy, name, sizeof name),
            busy == o->toggle ? "PROFILE_TOGGLE"
            : busy == o->dump ? "PROFILE_DUMP"
                              : "PROFILE_SIGNAL");
    return err;
}

bool stile__session_leaves_wanted(const struct stile__options *o)
{
    return o->block[0] != '\0' || o->dump != 0 || (o->crashes && (o->debug & STILE__DEBUG_NO_FREEZE) != 0);
}

void stile__session_barriers_check(void)
{
    if (stile__shadow_stack_on())
        stile__barriers_off(NULL, STILE__BARRIERS_OFF_SHADOW_STACK);
    else
        stile__barrier_unwinder_test();
}
