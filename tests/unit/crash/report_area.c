#include "tests/unit/crash/report_area.h"

#include <string.h>

#include "profiler/agent/crash/area.h"

static char text[1u << 20];
static size_t used;

struct stile__region *area_region(void)
{
    static struct stile__region region; /* of which only the count of what is in the output is written */
    return &region;
}

const char *area_text(void)
{
    return text;
}

size_t area_size(void)
{
    return used;
}

void area_clear(void)
{
    used = 0;
}

bool stile__report_area_add(struct stile__region *r, const char *bytes, size_t n)
{
    if (r != area_region() || sizeof text - used < n)
        return false;
    memcpy(text + used, bytes, n);
    used += n;
    return true;
}
