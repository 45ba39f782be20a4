/* A thread's last stack: an array and its nodes. Collector, normal context. */
#include "profiler/collector/mirror.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_FRAMES 64u

void mirror_free(struct mirror *m)
{
    free(m->frames);
    memset(m, 0, sizeof *m);
}

bool mirror_cut(struct mirror *m, size_t kept, size_t more)
{
    size_t cap = m->cap != 0 ? m->cap : FIRST_FRAMES;
    while (cap - kept < more)
        cap *= 2;
    if (cap != m->cap) {
        struct mirror_frame *frames = realloc(m->frames, cap * sizeof *frames);
        if (frames == NULL)
            return false;
        m->frames = frames;
        m->cap = cap;
    }
    m->n = kept;
    if (m->n_nodes > kept)
        m->n_nodes = kept;
    return true;
}

void mirror_push(struct mirror *m, uint64_t address, uint32_t mapping)
{
    m->frames[m->n++] = (struct mirror_frame){.address = address, .mapping = mapping};
}

uint32_t mirror_node(struct mirror *m, struct call_tree *t, uint32_t tree, size_t n)
{
    if (m->tree != tree)
        m->n_nodes = 0;
    m->tree = tree;
    for (; m->n_nodes < n; m->n_nodes++) {
        struct mirror_frame *f = &m->frames[m->n_nodes];
        f->node = call_tree_child(t, m->n_nodes != 0 ? f[-1].node : CALL_TREE_ROOT, f->mapping, f->address);
    }
    return n != 0 ? m->frames[n - 1].node : CALL_TREE_ROOT;
}

uint32_t mirror_below(const struct mirror *m, struct call_tree *t, uint32_t node, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        node = call_tree_child(t, node, m->frames[i].mapping, m->frames[i].address);
    return node;
}
