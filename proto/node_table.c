/* Sums samples per node for `stile top`. Every location's nodes are found once; a sample then costs its depth.
 * Context: the command line; single-threaded. */
#include "proto/node_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/buffer.h"
#include "proto/measure.h"

/* Nodes of location i: items[first[i]] to items[first[i + 1] - 1], innermost first. */
struct location_nodes {
    size_t *first;
    size_t *items;
};

struct label_search {
    const struct stile__node_table *table;
    const char *label;
};

static bool label_equal(const void *context, uint64_t id)
{
    const struct label_search *s = context;

    return !strcmp(s->table->nodes[id].label, s->label);
}

static int node_find(struct stile__node_table *t, const char *label, size_t *node)
{
    struct label_search search = {t, label};
    size_t length = strlen(label);
    uint64_t hash = stile__hash_bytes(label, length), id;

    if (stile__id_table_find(&t->labels, hash, label_equal, &search, &id)) {
        *node = id;
        return 0;
    }
    if (stile__array_grow(&t->nodes, &t->capacity, t->count, sizeof(*t->nodes)) ||
        stile__id_table_reserve(&t->labels))
        return -ENOMEM;
    label = stile__arena_text(&t->arena, label, length);
    if (!label)
        return -ENOMEM;
    t->nodes[t->count] = (struct stile__node){.label = label};
    stile__id_table_add(&t->labels, hash, t->count);
    *node = t->count++;
    return 0;
}

/* The label of what has no function name: the module at least, and with lines the place in it. To be freed. */
static char *address_label(const struct stile__profile *p, const Perftools__Profiles__Location *l, bool lines)
{
    const Perftools__Profiles__Mapping *m = stile__profile_mapping(p, l->mapping_id);
    const char *file = m ? stile__profile_string(p, m->filename) : "";
    const char *slash = strrchr(file, '/');
    char *label = NULL;
    int n;

    if (slash && slash[1])
        file = slash + 1;
    if (m && *file && lines)
        n = asprintf(&label, "%s+0x%llx", file,
                     (unsigned long long)l->address - m->memory_start + m->file_offset);
    else if (*file)
        n = asprintf(&label, "[%s]", file);
    else if (lines && l->address)
        n = asprintf(&label, "0x%llx", (unsigned long long)l->address);
    else
        n = asprintf(&label, "<unknown>");
    return n < 0 ? NULL : label;
}

/* line is NULL for a location without any. To be freed. */
static char *line_label(const struct stile__profile *p, const Perftools__Profiles__Location *l,
                        const Perftools__Profiles__Line *line, bool lines)
{
    const Perftools__Profiles__Function *f = line ? stile__profile_function(p, line->function_id) : NULL;
    const char *name = f ? stile__profile_string(p, f->name) : "";
    const char *file = f ? stile__profile_string(p, f->filename) : "";
    char *label = NULL;
    int n;

    if (!*name)
        return address_label(p, l, lines);
    if (lines && line->line)
        n = asprintf(&label, "%s %s:%lld", name, file, (long long)line->line);
    else if (lines && *file)
        n = asprintf(&label, "%s %s", name, file);
    else
        return strdup(name);
    return n < 0 ? NULL : label;
}

static int locations_resolve(struct stile__node_table *t, const struct stile__profile *p, bool lines,
                             struct location_nodes *out)
{
    size_t n = p->pb->n_location, total = 0;

    for (size_t i = 0; i < n; i++)
        total += p->pb->location[i]->n_line ? p->pb->location[i]->n_line : 1;
    out->first = calloc(n + 1, sizeof(*out->first));
    out->items = calloc(total + 1, sizeof(*out->items));
    if (!out->first || !out->items)
        return -ENOMEM;
    total = 0;
    for (size_t i = 0; i < n; i++) {
        const Perftools__Profiles__Location *l = p->pb->location[i];
        size_t n_nodes = l->n_line ? l->n_line : 1;

        for (size_t k = 0; k < n_nodes; k++) {
            char *label = line_label(p, l, l->n_line ? l->line[k] : NULL, lines);
            int err = label ? node_find(t, label, &out->items[total++]) : -ENOMEM;

            free(label);
            if (err)
                return err;
        }
        out->first[i + 1] = total;
    }
    return 0;
}

/* Values come from a file: sums may wrap, but must not be undefined. */
static void add_to(int64_t *sum, int64_t value)
{
    *sum = (int64_t)((uint64_t)*sum + (uint64_t)value);
}

static void sample_sum(struct stile__node_table *t, const struct stile__profile *p,
                       const struct location_nodes *nodes, size_t sample, const struct stile__node_options *o)
{
    const Perftools__Profiles__Sample *s = p->pb->sample[sample];
    int64_t value = s->value[o->value];
    int64_t count = o->count == SIZE_MAX ? 0 : s->value[o->count];
    bool leaf = true;

    t->total += stile__magnitude(value);
    for (size_t i = 0; i < s->n_location_id; i++) {
        size_t l = stile__profile_location_index(p, s->location_id[i]);

        for (size_t k = nodes->first[l]; k < nodes->first[l + 1]; k++) {
            struct stile__node *n = &t->nodes[nodes->items[k]];

            if (leaf) {
                add_to(&n->flat, value);
                add_to(&n->flat_count, count);
                leaf = false;
            }
            if (n->last_sample == sample + 1)
                continue;
            n->last_sample = sample + 1;
            add_to(&n->cum, value);
        }
    }
}

static int compare_magnitude(int64_t x, int64_t y)
{
    return (stile__magnitude(x) < stile__magnitude(y)) - (stile__magnitude(x) > stile__magnitude(y));
}

static int flat_compare(const void *a, const void *b)
{
    const struct stile__node *x = a, *y = b;
    int order = compare_magnitude(x->flat, y->flat);

    return order ? order : strcmp(x->label, y->label);
}

static int cum_compare(const void *a, const void *b)
{
    const struct stile__node *x = a, *y = b;
    int order = compare_magnitude(x->cum, y->cum);

    return order ? order : strcmp(x->label, y->label);
}

int stile__node_table_make(struct stile__node_table *t, const struct stile__profile *p,
                           const struct stile__node_options *options)
{
    struct location_nodes nodes = {0};
    size_t kept = 0;
    int err;

    memset(t, 0, sizeof(*t));
    err = locations_resolve(t, p, options->lines, &nodes);
    for (size_t i = 0; i < p->pb->n_sample && !err; i++)
        sample_sum(t, p, &nodes, i, options);
    free(nodes.first);
    free(nodes.items);
    for (size_t i = 0; i < t->count; i++) /* no value, no row */
        if (t->nodes[i].flat || t->nodes[i].cum)
            t->nodes[kept++] = t->nodes[i];
    t->count = kept;
    if (t->count)
        qsort(t->nodes, t->count, sizeof(*t->nodes), options->by_cum ? cum_compare : flat_compare);
    return err;
}

void stile__node_table_free(struct stile__node_table *t)
{
    free(t->nodes);
    stile__arena_free(&t->arena);
    stile__id_table_free(&t->labels);
    memset(t, 0, sizeof(*t));
}
