/* What a thread's last base record had on its stack, for later records that keep frames of it. Collector, normal context.
 *
 * Frames are kept from the root with their nodes in the call tree, so that a record costs what is new in it. Nodes are
 * looked up when they are first needed, and again after a cut, which begins a new tree: a frame is its address and mapping,
 * and a node is only where these two lie in one tree. */
#ifndef STILE_COLLECTOR_MIRROR_H
#define STILE_COLLECTOR_MIRROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/call_tree.h"

struct mirror_frame {
    uint64_t address;
    uint32_t mapping; /* as in a call_node: what had the address when the frame came */
    uint32_t node;
};

/* All zero: empty. */
struct mirror {
    struct mirror_frame *frames; /* from the root */
    size_t n, cap;
    size_t n_nodes; /* frames from the root whose nodes are known, */
    uint32_t tree;  /* in the tree of this number */
};

void mirror_free(struct mirror *m);

/* Leaves `kept` frames, which must be there, and makes room for more. False without memory: then it is as it was. */
bool mirror_cut(struct mirror *m, size_t kept, size_t more);

/* Adds a frame below the others; there must be room. */
void mirror_push(struct mirror *m, uint64_t address, uint32_t mapping);

/* The node of the first n frames, the root's for none. Trees that follow each other have different numbers. */
uint32_t mirror_node(struct mirror *m, struct call_tree *t, uint32_t tree, size_t n);

/* The node of frames [from, to) below a node. */
uint32_t mirror_below(const struct mirror *m, struct call_tree *t, uint32_t node, size_t from, size_t to);

#endif
