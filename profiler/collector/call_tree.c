/* The call tree: two growing arrays with a hash index each. Collector, normal context. */
#include "profiler/collector/call_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CELLS 1024u

/* Finalizer of MurmurHash3 (public domain, Appleby): spreads every input bit. */
static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdull;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53ull;
    return h ^ h >> 33;
}

static uint64_t node_hash(const struct call_node *n)
{
    return mix(n->address ^ mix((uint64_t)n->mapping << 32 | n->parent));
}

static uint64_t sample_hash(const struct call_sample *s)
{
    return mix(((uint64_t)s->thread << 32 | s->node) ^ (uint64_t)s->label << 20);
}

int call_tree_init(struct call_tree *t)
{
    memset(t, 0, sizeof *t);
    t->node_index.cells = calloc(FIRST_CELLS, sizeof(uint32_t));
    t->sample_index.cells = calloc(FIRST_CELLS, sizeof(uint32_t));
    t->node_index.mask = t->sample_index.mask = FIRST_CELLS - 1;
    t->cap_nodes = t->cap_samples = FIRST_CELLS / 2;
    t->nodes = malloc(t->cap_nodes * sizeof *t->nodes);
    t->samples = malloc(t->cap_samples * sizeof *t->samples);
    if (t->node_index.cells == NULL || t->sample_index.cells == NULL || t->nodes == NULL ||
        t->samples == NULL) {
        call_tree_free(t);
        return -ENOMEM;
    }
    t->nodes[t->n_nodes++] = (struct call_node){0, UINT32_MAX, 0};
    return 0;
}

void call_tree_free(struct call_tree *t)
{
    free(t->node_index.cells);
    free(t->sample_index.cells);
    free(t->nodes);
    free(t->samples);
    memset(t, 0, sizeof *t);
}

/* Doubles an array and its index, of which `hash_at` gives the hash of entry i. */
static int grow(void **array, size_t size, uint32_t n, uint32_t *cap, struct call_index *index,
                uint64_t (*hash_at)(const void *entry))
{
    uint32_t cells = (index->mask + 1) * 2;
    void *bigger = realloc(*array, (size_t)*cap * 2 * size);
    if (bigger == NULL)
        return -ENOMEM;
    *array = bigger;
    uint32_t *fresh = calloc(cells, sizeof *fresh);
    if (fresh == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)hash_at((const char *)bigger + i * size) & (cells - 1);
        while (fresh[at] != 0)
            at = (at + 1) & (cells - 1);
        fresh[at] = i + 1;
    }
    free(index->cells);
    index->cells = fresh;
    index->mask = cells - 1;
    *cap *= 2;
    return 0;
}

static uint64_t node_hash_at(const void *entry)
{
    return node_hash(entry);
}

static uint64_t sample_hash_at(const void *entry)
{
    return sample_hash(entry);
}

uint32_t call_tree_child(struct call_tree *t, uint32_t parent, uint32_t mapping, uint64_t address)
{
    struct call_node want = {address, mapping, parent};
    /* Most nodes have one child, which was added right after them: to look there needs no index, and no other cache line. */
    if (parent + 1 < t->n_nodes && t->nodes[parent + 1].parent == parent &&
        t->nodes[parent + 1].address == address && t->nodes[parent + 1].mapping == mapping)
        return parent + 1;
    if (t->n_nodes == t->cap_nodes && grow((void **)&t->nodes, sizeof *t->nodes, t->n_nodes, &t->cap_nodes,
                                           &t->node_index, node_hash_at) != 0)
        return CALL_TREE_ROOT;
    uint32_t at = (uint32_t)node_hash(&want) & t->node_index.mask;
    for (; t->node_index.cells[at] != 0; at = (at + 1) & t->node_index.mask) {
        const struct call_node *n = &t->nodes[t->node_index.cells[at] - 1];
        if (n->address == address && n->mapping == mapping && n->parent == parent)
            return t->node_index.cells[at] - 1;
    }
    t->nodes[t->n_nodes] = want;
    t->node_index.cells[at] = ++t->n_nodes;
    return t->n_nodes - 1;
}

int call_tree_add(struct call_tree *t, uint32_t node, uint32_t thread, uint32_t label, uint64_t ticks,
                  uint64_t ns)
{
    struct call_sample want = {node, thread, label, ticks, ns};
    if (t->n_samples == t->cap_samples && grow((void **)&t->samples, sizeof *t->samples, t->n_samples,
                                               &t->cap_samples, &t->sample_index, sample_hash_at) != 0)
        return -ENOMEM;
    uint32_t at = (uint32_t)sample_hash(&want) & t->sample_index.mask;
    for (; t->sample_index.cells[at] != 0; at = (at + 1) & t->sample_index.mask) {
        struct call_sample *s = &t->samples[t->sample_index.cells[at] - 1];
        if (s->node == node && s->thread == thread && s->label == label) {
            s->ticks += ticks;
            s->ns += ns;
            return 0;
        }
    }
    t->samples[t->n_samples] = want;
    t->sample_index.cells[at] = ++t->n_samples;
    return 0;
}
