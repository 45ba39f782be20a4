/* Checks of a region before it is believed. Collector only. */
#ifndef STILE_REGION_CHECK_H
#define STILE_REGION_CHECK_H

#include <stdint.h>

#include "profiler/region/layout.h"

/* Says whether a mapped header of a file of file_size bytes can be used: NULL, or why not (constant text). The
 * caller has mapped at least the header. Copies the limits that it has checked to *size: the header itself is
 * writable by the program and is not to be read for them again. */
const char *stile__region_check(const struct stile__region *r, uint64_t file_size,
                                struct stile__region_size *size);

/* Says whether a record that lies `room` cells before the head and before the ring's end is well formed. */
const char *stile__record_check(const struct stile__record *r, uint64_t room, uint32_t block_max);

#endif
