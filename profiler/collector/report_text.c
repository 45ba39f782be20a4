/* Text of reports that the collector writes itself. Collector, normal context. */
#include "profiler/collector/report_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX    ((size_t)16 << 20)
#define FRAMES_LEAF 400u /* of a stack that are shown, from the leaf, */
#define FRAMES_ROOT 100u /* and to the root */

void report_text_free(struct report_text *t)
{
    free(t->bytes);
    *t = (struct report_text){0};
}

void report_text_bytes(struct report_text *t, const char *bytes, size_t n)
{
    if (n > TEXT_MAX - t->n)
        return;
    if (t->n + n > t->cap) {
        size_t cap = 2 * t->cap + n + 256;
        char *more = realloc(t->bytes, cap);
        if (more == NULL)
            return;
        t->bytes = more;
        t->cap = cap;
    }
    if (n != 0)
        memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

void report_text_add(struct report_text *t, const char *format, ...)
{
    char text[6000];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0)
        report_text_bytes(t, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void report_text_clean(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; from[n] != '\0' && n + 1 < size; n++)
        to[n] = (unsigned char)from[n] < ' ' || from[n] == '\177' ? '?' : from[n];
    to[n] = '\0';
}

void report_text_thread(struct report_text *t, uint32_t tid, const char *name)
{
    char clean[32];
    report_text_clean(clean, sizeof clean, name);
    report_text_add(t, "thread %u \"%s\" ", tid, clean);
}

static void frame_add(struct report_text *t, const struct process *p, size_t i, uint64_t pc)
{
    char path[4200];
    uint32_t k = mappings_find_ever(&p->mappings, pc);
    const struct mapping *m = k != MAPPING_NONE ? &p->mappings.all[k] : NULL;
    if (m == NULL || m->path[0] == '\0') {
        report_text_add(t, "  #%zu 0x%" PRIx64 "\n", i, pc);
        return;
    }
    report_text_clean(path, sizeof path, m->path);
    report_text_add(t, "  #%zu 0x%" PRIx64 " %s+0x%" PRIx64 "\n", i, pc, path, pc - m->bias);
}

void report_text_frames(struct report_text *t, const struct process *p, const uint64_t *frames, size_t n,
                        enum stile__reason reason)
{
    for (size_t i = 0; i < n; i++) {
        if (n > FRAMES_LEAF + FRAMES_ROOT && i == FRAMES_LEAF) {
            report_text_add(t, "  ... %zu frames are not shown ...\n", n - FRAMES_LEAF - FRAMES_ROOT);
            i = n - FRAMES_ROOT;
        }
        frame_add(t, p, i, frames[i]);
    }
    if (reason != STILE__REASON_NONE)
        report_text_add(t, "  (the stack is not whole: %s)\n", stile__reason_name(reason));
}

void report_text_modules(struct report_text *t, const struct process *p)
{
    char path[4200];
    report_text_add(t, "%s", STILE__REPORT_MODULES);
    for (uint32_t i = 0; i < p->mappings.now.n_live; i++) {
        const struct mapping *m = &p->mappings.all[p->mappings.now.live[i]];
        const char *id = m->module != NULL ? m->module->elf.build_id : "";
        if (m->path[0] == '\0')
            continue;
        report_text_clean(path, sizeof path, m->path);
        report_text_add(t, "  0x%" PRIx64 "-0x%" PRIx64 " 0x%" PRIx64 " %s %s\n", m->start, m->end, m->bias,
                        id[0] != '\0' ? id : "-", path);
    }
}
