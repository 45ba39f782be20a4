/* The library that loader.c loads and unloads. */
#include "work.h"

uint64_t plugin_spin(uint64_t ns);

WORK static uint64_t work_in_plugin(uint64_t ns)
{
    return burn(ns);
}

__attribute__((visibility("default"))) WORK uint64_t plugin_spin(uint64_t ns)
{
    return work_in_plugin(ns) + 1;
}
