/* What ticked for the threads of a process, in words for the profile and the summary. Collector, normal context. */
#include "profiler/collector/process.h"

#include <stdio.h>
#include <string.h>

static const char *perf_why(int error)
{
    switch (error) {
    case STILE__PERF_FILTERED:
        return "not tried under a seccomp filter";
    case STILE__PERF_QUEUE:
        return "its signals would queue up if they were real-time ones";
    case STILE__PERF_RATE:
        return "kernel.perf_event_max_sample_rate is lower";
    default:
        return strerror(error);
    }
}

void process_clock_describe(const struct process *p, char *text, size_t size)
{
    static const char *const names[STILE__CLOCK_KINDS] = {
        [STILE__CLOCK_NONE] = "no clock",
        [STILE__CLOCK_TIMER] = "thread timer",
        [STILE__CLOCK_PERF] = "perf cpu-clock and thread timer",
        [STILE__CLOCK_PERF_ALONE] = "perf cpu-clock",
        [STILE__CLOCK_PROCESS] = "process timer",
    };
    static const uint8_t order[] = {STILE__CLOCK_PERF, STILE__CLOCK_TIMER, STILE__CLOCK_PERF_ALONE,
                                    STILE__CLOCK_PROCESS, STILE__CLOCK_NONE};
    const struct told told = process_told(p);
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < sizeof order && n < size; i++) {
        uint32_t threads = told.clocks[order[i]];
        if (threads != 0)
            n += (size_t)snprintf(text + n, size - n, "%s%s for %u thread%s", n != 0 ? ", " : "",
                                  names[order[i]], threads, threads == 1 ? "" : "s");
    }
    if (told.perf_error != 0 && n < size)
        n += (size_t)snprintf(text + n, size - n, "; no perf: %s", perf_why(told.perf_error));
    if (told.timer_error != 0 && n < size)
        snprintf(text + n, size - n, "; no timer: %s", strerror(told.timer_error));
}
