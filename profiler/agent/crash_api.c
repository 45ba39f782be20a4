/* The public functions of stile.h for crash reports. Async-signal-safe. */
#include "profiler/agent/crash/output.h"
#include "profiler/agent/stile.h"

int stile_crash_output_set(int fd)
{
    return stile__crash_output_swap(fd); /* raw system calls: errno is not touched */
}
