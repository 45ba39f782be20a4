/* A profile summed up per function or per line, as pprof's `top` does. Context: the command line; single-threaded. */
#ifndef STILE_PROTO_NODE_TABLE_H
#define STILE_PROTO_NODE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/reader.h"

struct stile__node {
    const char *label;
    int64_t flat,
        cum; /* in the unit of the value; cum counts a sample once, however often the node recurs in it */
    int64_t flat_count; /* flat, of the count value */
    size_t last_sample; /* while summing: 1 + the last sample that was added to cum */
};

struct stile__node_table {
    struct stile__node *nodes;
    size_t count, capacity;
    uint64_t total; /* of the values' magnitudes */
    struct stile__arena arena;
    struct stile__id_table labels;
};

struct stile__node_options {
    size_t value; /* which value of a sample */
    size_t count; /* which one counts samples; SIZE_MAX: none */
    bool lines;   /* a node per function and line, not per function */
    bool by_cum;  /* sort by cum, not by flat */
};

/* Sums up p and sorts, largest first, equal ones by label. t is to be freed also on failure. 0 or -ENOMEM. Each line
 * of a location is a node of its own, so an inlined function has its time like any other. */
int stile__node_table_make(struct stile__node_table *t, const struct stile__profile *p,
                           const struct stile__node_options *options);
void stile__node_table_free(struct stile__node_table *t);

#endif
