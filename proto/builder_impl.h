/* What the builder's own files share; nobody else includes it. */
#ifndef STILE_PROTO_BUILDER_IMPL_H
#define STILE_PROTO_BUILDER_IMPL_H

#include "proto/buffer.h"
#include "proto/builder.h"
#include "proto/id_table.h"
#include "proto/profile.pb-c.h"
#include "proto/strings.h"

/* What makes a function or a location one and the same; entry i has id i + 1. */
struct stile__function_key {
    int64_t name, system_name, filename; /* string numbers */
    int64_t start_line;
};
struct stile__location_key {
    uint64_t mapping_id, address;
    int64_t name; /* string number of the first line's name, only for address 0 */
};

/* Repeated messages that never change again (samples, locations, functions, strings) are encoded when they are
 * added: they take their size on file and no more, and writing is copying. The rest is small and stays a message
 * until the end. All of it may be concatenated: that is how protobuf merges. */
struct stile__builder {
    struct stile__strings strings;
    struct stile__buffer samples, locations, functions; /* wire form */

    struct stile__function_key *function_keys;
    size_t n_functions, functions_capacity;
    struct stile__id_table function_table;
    struct stile__location_key *location_keys;
    size_t n_locations, locations_capacity;
    struct stile__id_table location_table;

    Perftools__Profiles__Mapping *mappings;
    size_t n_mappings, mappings_capacity;
    Perftools__Profiles__ValueType *sample_types;
    size_t n_sample_types, sample_types_capacity;
    int64_t *comments;
    size_t n_comments, comments_capacity;
    int64_t default_sample_type;
    Perftools__Profiles__ValueType period_type;
    int64_t period, time_nanos, duration_nanos;
    bool has_samples, has_period;
};

/* Appends message as field `field` of its parent. 0 or -ENOMEM, then out is as before. */
int stile__message_append(struct stile__buffer *out, unsigned field, const ProtobufCMessage *message);

#endif
