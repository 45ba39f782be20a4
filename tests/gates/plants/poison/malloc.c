/* Planted: calls malloc below the poison. Without PLANT it must compile. */
#include <stdlib.h>
#include "profiler/agent/signal/poison.h"

void *planted_allocation(void);
void *planted_allocation(void)
{
#ifdef PLANT
    return malloc(16);
#else
    return 0;
#endif
}
