/* The call tree of one process and the weight on it. Collector, normal context.
 *
 * A node is a frame under its caller: the path to the root is the stack. Nodes are only ever added, and have indices,
 * so a stack can be kept as the index of its leaf. */
#ifndef STILE_COLLECTOR_CALL_TREE_H
#define STILE_COLLECTOR_CALL_TREE_H

#include <stddef.h>
#include <stdint.h>

#define CALL_TREE_ROOT 0u
#define CALL_TREE_REASON                                                                                     \
    (UINT32_MAX - 1) /* as `mapping`: a bracketed frame, address is the enum stile__reason */

#define CALL_TREE_KERNEL     (UINT32_MAX - 2) /* as `mapping`: time in the kernel, which has no address for us */
#define CALL_TREE_ELSEWHERE  (UINT32_MAX - 3) /* as `mapping`: waits that no hook has seen */
#define CALL_TREE_UNPROFILED (UINT32_MAX - 4) /* as `mapping`: CPU time of children that have no profile */

struct call_node {
    uint64_t address; /* as pprof wants it: callers' return address - 1 */
    uint32_t mapping; /* index into the process's mappings, MAPPING_NONE, or one of the above */
    uint32_t parent;
};

/* The weight of one stack on one thread under a label, which means what the tree's owner says. */
struct call_sample {
    uint32_t node;
    uint32_t thread;
    uint32_t label;
    uint64_t ticks, ns;
};

struct call_index { /* open addressing; 0: empty, else index + 1 */
    uint32_t *cells;
    uint32_t mask;
};

struct call_tree {
    struct call_node *nodes;
    uint32_t n_nodes, cap_nodes;
    struct call_index node_index;
    struct call_sample *samples;
    uint32_t n_samples, cap_samples;
    struct call_index sample_index;
};

/* 0 or -ENOMEM. */
int call_tree_init(struct call_tree *t);
void call_tree_free(struct call_tree *t);

/* The child of a node for a frame, added if new. CALL_TREE_ROOT without memory. */
uint32_t call_tree_child(struct call_tree *t, uint32_t parent, uint32_t mapping, uint64_t address);

/* Adds weight to a stack of a thread under a label (0: none). 0 or -ENOMEM. */
int call_tree_add(struct call_tree *t, uint32_t node, uint32_t thread, uint32_t label, uint64_t ticks,
                  uint64_t ns);

#endif
