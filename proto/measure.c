/* Units and percentages for tables. Context: the command line; pure functions. */
#include "proto/measure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *suffix;
    double factor; /* of the base unit; ascending within a family */
};

static const struct unit times[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"hrs", 3.6e12}, {0}};
static const struct unit sizes[] = {{"B", 1},       {"kB", 0x1p10}, {"MB", 0x1p20},
                                    {"GB", 0x1p30}, {"TB", 0x1p40}, {0}};

static const struct name {
    const char *name; /* singular */
    const struct unit *family;
    double factor;
} names[] = {
    {"ns", times, 1},      {"nanosecond", times, 1},    {"us", times, 1e3},    {"microsecond", times, 1e3},
    {"ms", times, 1e6},    {"millisecond", times, 1e6}, {"s", times, 1e9},     {"second", times, 1e9},
    {"b", sizes, 1},       {"byte", sizes, 1},          {"kb", sizes, 0x1p10}, {"kilobyte", sizes, 0x1p10},
    {"mb", sizes, 0x1p20}, {"megabyte", sizes, 0x1p20}, {"gb", sizes, 0x1p30}, {"gigabyte", sizes, 0x1p30},
};

static const struct name *name_find(const char *unit)
{
    size_t length = strlen(unit);

    if (length > 2 && (unit[length - 1] == 's' || unit[length - 1] == 'S'))
        length--;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i].name) == length && !strncasecmp(names[i].name, unit, length))
            return &names[i];
    return NULL;
}

/* The largest unit of which value, in base units, is at least one; the smallest if there is none. */
static const struct unit *unit_for(const struct unit *family, double value)
{
    const struct unit *best = family;

    for (const struct unit *u = family; u->suffix; u++)
        if (value / u->factor >= 1)
            best = u;
    return best;
}

struct stile__measure stile__measure_choose(const char *unit, uint64_t smallest, uint64_t largest)
{
    const struct name *name = name_find(unit);
    struct stile__measure m = {.divisor = 1};
    const struct unit *best;

    if (!name) {
        if (strcasecmp(unit, "count") && strcasecmp(unit, "sample") && strcasecmp(unit, "samples"))
            snprintf(m.suffix, sizeof(m.suffix), "%.15s", unit);
        return m;
    }
    best = unit_for(name->family, (double)smallest * name->factor);
    /* Far apart: small values may go down to 0.01 of the unit. */
    if (best != unit_for(name->family, (double)largest * name->factor) &&
        (double)smallest * 100 < (double)largest)
        best = unit_for(name->family, (double)smallest * 100 * name->factor);
    m.divisor = best->factor / name->factor;
    snprintf(m.suffix, sizeof(m.suffix), "%s", best->suffix);
    return m;
}

char *stile__measure_print(const struct stile__measure *m, int64_t value, char text[STILE__MEASURE_TEXT])
{
    size_t length;

    snprintf(text, STILE__MEASURE_TEXT, "%.2f", (double)value / m->divisor);
    length = strlen(text);
    if (length > 3 && !strcmp(text + length - 3, ".00"))
        text[length -= 3] = '\0';
    if (!strcmp(text, "0") || !strcmp(text, "-0"))
        return strcpy(text, "0");
    snprintf(text + length, STILE__MEASURE_TEXT - length, "%s", m->suffix);
    return text;
}

char *stile__percentage_print(int64_t value, uint64_t total, char text[STILE__MEASURE_TEXT])
{
    double ratio = total ? fabs((double)value / (double)total) * 100 : 0;

    if (ratio >= 99.95 && ratio <= 100.05)
        return strcpy(text, "  100%");
    snprintf(text, STILE__MEASURE_TEXT, ratio >= 1 ? "%5.2f%%" : "%5.2g%%", ratio);
    return text;
}

uint64_t stile__magnitude(int64_t value)
{
    return value < 0 ? -(uint64_t)value : (uint64_t)value;
}
