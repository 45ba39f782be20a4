/* AddressSanitizer's runtime ends a program when a library comes before it, as every preload does. It asks for options first,
 * by a function of this name; the program's own one, if it has it, comes before ours. What it is afraid of is that another
 * library takes libc's functions from it: ours call the next one, which is the runtime's. */
#include "profiler/agent/stile.h"

const char *__asan_default_options(void);

STILE_EXPORT const char *__asan_default_options(void)
{
    return "verify_asan_link_order=0";
}
