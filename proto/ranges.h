/* Which of many address ranges, nested or overlapping, holds an address. Context: any; single-threaded. */
#ifndef STILE_PROTO_RANGES_H
#define STILE_PROTO_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__range {
    uint64_t lo, hi;     /* [lo, hi), lo < hi */
    uint64_t highest_hi; /* of all ranges up to this one; valid once sorted */
    uint32_t value;      /* the caller's */
};

/* All zero is empty. */
struct stile__ranges {
    struct stile__range *items;
    size_t count, capacity;
};

/* Empty ranges are ignored. 0 or -ENOMEM. */
int stile__ranges_add(struct stile__ranges *r, uint64_t lo, uint64_t hi, uint32_t value);
/* After the last add, before the first find. */
void stile__ranges_sort(struct stile__ranges *r);
/* The value of the range around address that starts last; among those that start together, the largest value. */
bool stile__ranges_find(const struct stile__ranges *r, uint64_t address, uint32_t *value);
void stile__ranges_free(struct stile__ranges *r);

#endif
