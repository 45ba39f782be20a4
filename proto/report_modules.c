/* The table of modules in a crash report. Context: any normal; single-threaded. */
#include "proto/report_modules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

const char *stile__report_hex(const char *at, const char *end, uint64_t *value)
{
    const char *from;

    if (end - at < 3 || at[0] != '0' || at[1] != 'x')
        return NULL;
    *value = 0;
    for (from = at += 2; at < end && digit(*at) >= 0; at++) {
        if (*value >> 60)
            return NULL;
        *value = *value << 4 | (uint64_t)digit(*at);
    }
    return at != from ? at : NULL;
}

/* A build id, or "-". */
static const char *id_parse(const char *at, const char *end, struct stile__report_module *m)
{
    if (at < end && *at == '-')
        return at + 1;
    while (end - at >= 2 && digit(at[0]) >= 0 && digit(at[1]) >= 0) {
        if (m->id_size == STILE__REPORT_ID_MOST)
            return NULL;
        m->id[m->id_size++] = (uint8_t)(digit(at[0]) << 4 | digit(at[1]));
        at += 2;
    }
    return m->id_size != 0 ? at : NULL;
}

static const char *skip(const char *at, const char *end, char c)
{
    return at && at < end && *at == c ? at + 1 : NULL;
}

static bool line_parse(const char *line, size_t n, struct stile__report_module *m)
{
    const char *at = line, *end = line + n;

    at = skip(skip(at, end, ' '), end, ' ');
    at = at ? stile__report_hex(at, end, &m->start) : NULL;
    at = skip(at, end, '-');
    at = at ? stile__report_hex(at, end, &m->end) : NULL;
    at = skip(at, end, ' ');
    at = at ? stile__report_hex(at, end, &m->bias) : NULL;
    at = skip(at, end, ' ');
    at = at ? id_parse(at, end, m) : NULL;
    at = skip(at, end, ' ');
    if (!at || m->start >= m->end || memchr(at, '\0', (size_t)(end - at)))
        return false;
    m->path = strndup(at, (size_t)(end - at));
    return true;
}

int stile__report_modules_add(struct stile__report_modules *t, const char *line, size_t n)
{
    struct stile__report_module m = {.order = t->n};

    if (t->n == STILE__REPORT_MODULES_MOST || !line_parse(line, n, &m))
        return 0;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        struct stile__report_module *more = realloc(t->all, cap * sizeof(*more));
        if (more) {
            t->all = more;
            t->cap = cap;
        }
    }
    if (!m.path || t->n == t->cap) {
        free(m.path);
        return -ENOMEM;
    }
    t->all[t->n++] = m;
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const struct stile__report_module *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void stile__report_modules_sort(struct stile__report_modules *t)
{
    if (t->n)
        qsort(t->all, t->n, sizeof(*t->all), by_start);
}

struct stile__report_module *stile__report_modules_find(struct stile__report_modules *t, uint64_t pc)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (t->all[middle].start <= pc)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo && pc < t->all[lo - 1].end ? &t->all[lo - 1] : NULL;
}

void stile__report_modules_free(struct stile__report_modules *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->all[i].path);
    free(t->all);
    *t = (struct stile__report_modules){0};
}
