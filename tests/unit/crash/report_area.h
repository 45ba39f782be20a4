/* A report's area as the output's tests have it: a buffer of the test's own. */
#ifndef STILE_TESTS_UNIT_CRASH_REPORT_AREA_H
#define STILE_TESTS_UNIT_CRASH_REPORT_AREA_H

#include <stddef.h>

struct stile__region;

/* A region of which nothing but its header is there; what was added to its area, and how much. */
struct stile__region *area_region(void);
const char *area_text(void);
size_t area_size(void);
void area_clear(void);

#endif
