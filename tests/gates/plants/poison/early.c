/* Planted: includes another header below poison.h. */
#include "profiler/agent/signal/poison.h"
#include <stddef.h>
