/* Address ranges of symbols, units and inlined functions; binary search with a bounded walk back.
 * Context: any normal context; single-threaded. */
#include "proto/ranges.h"

#include <stdlib.h>
#include <string.h>

#include "proto/buffer.h"

int stile__ranges_add(struct stile__ranges *r, uint64_t lo, uint64_t hi, uint32_t value)
{
    int err;

    if (lo >= hi)
        return 0;
    err = stile__array_grow(&r->items, &r->capacity, r->count, sizeof(*r->items));
    if (!err)
        r->items[r->count++] = (struct stile__range){.lo = lo, .hi = hi, .value = value};
    return err;
}

static int range_compare(const void *a, const void *b)
{
    const struct stile__range *x = a, *y = b;

    if (x->lo != y->lo)
        return x->lo < y->lo ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

void stile__ranges_sort(struct stile__ranges *r)
{
    uint64_t highest = 0;

    if (r->count)
        qsort(r->items, r->count, sizeof(*r->items), range_compare);
    for (size_t i = 0; i < r->count; i++) {
        if (r->items[i].hi > highest)
            highest = r->items[i].hi;
        r->items[i].highest_hi = highest;
    }
}

bool stile__ranges_find(const struct stile__ranges *r, uint64_t address, uint32_t *value)
{
    size_t low = 0, high = r->count;

    while (low < high) { /* low: how many ranges start at or below address */
        size_t middle = low + (high - low) / 2;

        if (r->items[middle].lo <= address)
            low = middle + 1;
        else
            high = middle;
    }
    /* Ranges nest, so the first one around address is the innermost. Nothing before reaches past highest_hi. */
    while (low-- > 0 && r->items[low].highest_hi > address) {
        if (r->items[low].hi > address) {
            *value = r->items[low].value;
            return true;
        }
    }
    return false;
}

void stile__ranges_free(struct stile__ranges *r)
{
    free(r->items);
    memset(r, 0, sizeof(*r));
}
