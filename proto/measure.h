/* Values with units, written as pprof writes them. Context: the command line; any thread. */
#ifndef STILE_PROTO_MEASURE_H
#define STILE_PROTO_MEASURE_H

#include <stddef.h>
#include <stdint.h>

enum {
    STILE__MEASURE_TEXT = 48, /* bytes that every text here fits in */
};

/* How a column of values is shown. */
struct stile__measure {
    double divisor;
    char suffix[16];
};

/* A measure for values of `unit` ("nanoseconds", "bytes", ...; anything else is shown as it is, "count" without a
 * suffix), chosen so that both `smallest` and `largest`, absolute values, read well. */
struct stile__measure stile__measure_choose(const char *unit, uint64_t smallest, uint64_t largest);
/* "1.50s", "20ms", "0". Returns text. */
char *stile__measure_print(const struct stile__measure *m, int64_t value, char text[STILE__MEASURE_TEXT]);
/* "12.34%", five characters before the sign at least. Returns text. */
char *stile__percentage_print(int64_t value, uint64_t total, char text[STILE__MEASURE_TEXT]);

uint64_t stile__magnitude(int64_t value);

#endif
