/* Two walks of one stack. Collector, normal context. */
#include "profiler/collector/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_AROUND 6u /* of each stack, shown around the first difference */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void frame_show(FILE *out, const struct mapping_table *mappings, uint64_t address)
{
    uint32_t i = mappings_find_ever(mappings, address);
    if (i == MAPPING_NONE)
        fprintf(out, " 0x%" PRIx64, address);
    else
        fprintf(out, " %s+0x%" PRIx64, base_name(mappings->all[i].path), address - mappings->all[i].bias);
}

/* A line for each stack: where they part, and the frames around it. */
static char *difference_show(const struct mapping_table *mappings, const uint64_t *walked, size_t n,
                             const uint64_t *reference, size_t n_reference)
{
    const struct {
        const char *name;
        const uint64_t *frames;
        size_t n;
    } stacks[] = {{"by rules", walked, n}, {"libunwind", reference, n_reference}};
    char *text = NULL;
    size_t size, same = 0;

    while (same < n && same < n_reference && walked[same] == reference[same])
        same++;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    size_t from = same > FRAMES_AROUND ? same - FRAMES_AROUND : 0;
    for (size_t k = 0; k < 2; k++) {
        fprintf(out, "%sunwind differs: after %zu frames, %s, %zu frames, from %zu:", k != 0 ? "\n" : "",
                same, stacks[k].name, stacks[k].n, from);
        for (size_t i = from; i < stacks[k].n && i < same + FRAMES_AROUND; i++)
            frame_show(out, mappings, stacks[k].frames[i]);
    }
    return fclose(out) == 0 ? text : NULL;
}

bool verify_same(const uint64_t *walked, size_t n, const uint64_t *reference, size_t n_reference)
{
    return n == n_reference && memcmp(walked, reference, n * sizeof *walked) == 0;
}

bool verify_compare(struct verify *v, const struct mapping_table *mappings, const uint64_t *walked, size_t n,
                    const uint64_t *reference, size_t n_reference)
{
    v->samples++;
    v->frames += n;
    if (verify_same(walked, n, reference, n_reference))
        return true;
    v->differ++;
    if (v->n_shown < VERIFY_SHOWN &&
        (v->shown[v->n_shown] = difference_show(mappings, walked, n, reference, n_reference)) != NULL)
        v->n_shown++;
    return false;
}

void verify_free(struct verify *v)
{
    for (unsigned i = 0; i < v->n_shown; i++)
        free(v->shown[i]);
    memset(v, 0, sizeof *v);
}
