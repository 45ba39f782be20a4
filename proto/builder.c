/* Collects a profile and writes it: the last stage of the collector, fed by its call tree and the symbolizer.
 * Context: the collector's writer process and the command line; single-threaded. */
#include "proto/builder_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "proto/gzip.h"

enum {
    FIELD_SAMPLE = 2,
    WIRE_LENGTH_DELIMITED = 2,
    LABELS_ON_STACK = 8,
};

int stile__message_append(struct stile__buffer *out, unsigned field, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    int err = stile__buffer_reserve(out, size + 20);

    if (err)
        return err;
    stile__buffer_varint_append(out, field << 3 | WIRE_LENGTH_DELIMITED);
    stile__buffer_varint_append(out, size);
    out->size += protobuf_c_message_pack(message, out->data + out->size);
    return 0;
}

struct stile__builder *stile__builder_new(void)
{
    struct stile__builder *b = calloc(1, sizeof(*b));

    if (b && stile__strings_init(&b->strings)) {
        stile__builder_free(b);
        return NULL;
    }
    return b;
}

void stile__builder_free(struct stile__builder *b)
{
    if (!b)
        return;
    stile__strings_free(&b->strings);
    stile__buffer_free(&b->samples);
    stile__buffer_free(&b->locations);
    stile__buffer_free(&b->functions);
    stile__id_table_free(&b->function_table);
    stile__id_table_free(&b->location_table);
    free(b->function_keys);
    free(b->location_keys);
    free(b->mappings);
    free(b->sample_types);
    free(b->comments);
    free(b);
}

static int value_type_set(struct stile__builder *b, Perftools__Profiles__ValueType *v, const char *type,
                          const char *unit)
{
    perftools__profiles__value_type__init(v);
    if (!type || !*type)
        return -EINVAL;
    if (stile__strings_intern(&b->strings, type, &v->type) ||
        stile__strings_intern(&b->strings, unit, &v->unit))
        return -ENOMEM;
    return 0;
}

int stile__builder_sample_type_add(struct stile__builder *b, const char *type, const char *unit)
{
    int err;

    if (b->has_samples) /* they would have a value too few */
        return -EINVAL;
    err = stile__array_grow(&b->sample_types, &b->sample_types_capacity, b->n_sample_types,
                            sizeof(*b->sample_types));
    if (err)
        return err;
    err = value_type_set(b, &b->sample_types[b->n_sample_types], type, unit);
    if (!err)
        b->n_sample_types++;
    return err;
}

int stile__builder_default_sample_type_set(struct stile__builder *b, const char *type)
{
    return stile__strings_intern(&b->strings, type, &b->default_sample_type);
}

int stile__builder_period_set(struct stile__builder *b, const char *type, const char *unit, int64_t period)
{
    int err = value_type_set(b, &b->period_type, type, unit);

    if (err)
        return err;
    b->period = period;
    b->has_period = true;
    return 0;
}

int stile__builder_time_set(struct stile__builder *b, int64_t time_nanos, int64_t duration_nanos)
{
    b->time_nanos = time_nanos;
    b->duration_nanos = duration_nanos;
    return 0;
}

int stile__builder_comment_add(struct stile__builder *b, const char *text)
{
    int err = stile__array_grow(&b->comments, &b->comments_capacity, b->n_comments, sizeof(*b->comments));

    if (!err)
        err = stile__strings_intern(&b->strings, text, &b->comments[b->n_comments]);
    if (!err)
        b->n_comments++;
    return err;
}

int stile__builder_mapping_add(struct stile__builder *b, const struct stile__builder_mapping *m, uint64_t *id)
{
    Perftools__Profiles__Mapping *pb;
    int err = stile__array_grow(&b->mappings, &b->mappings_capacity, b->n_mappings, sizeof(*b->mappings));

    if (err)
        return err;
    pb = &b->mappings[b->n_mappings];
    perftools__profiles__mapping__init(pb);
    pb->id = b->n_mappings + 1;
    pb->memory_start = m->start;
    pb->memory_limit = m->limit;
    pb->file_offset = m->file_offset;
    if (stile__strings_intern(&b->strings, m->filename, &pb->filename) ||
        stile__strings_intern(&b->strings, m->build_id, &pb->build_id))
        return -ENOMEM;
    b->n_mappings++;
    *id = pb->id;
    return stile__builder_mapping_flags_set(b, pb->id, m->has_functions, m->has_filenames,
                                            m->has_line_numbers, m->has_inline_frames);
}

int stile__builder_mapping_flags_set(struct stile__builder *b, uint64_t id, bool has_functions,
                                     bool has_filenames, bool has_line_numbers, bool has_inline_frames)
{
    Perftools__Profiles__Mapping *pb;

    if (id == 0 || id > b->n_mappings)
        return -EINVAL;
    pb = &b->mappings[id - 1];
    pb->has_functions = has_functions;
    pb->has_filenames = has_filenames;
    pb->has_line_numbers = has_line_numbers;
    pb->has_inline_frames = has_inline_frames;
    return 0;
}

static int label_set(struct stile__builder *b, Perftools__Profiles__Label *pb,
                     const struct stile__builder_label *label)
{
    int err;

    perftools__profiles__label__init(pb);
    if (!label->key || !*label->key || !strncmp(label->key, "pprof::", strlen("pprof::")))
        return -EINVAL;
    err = stile__strings_intern(&b->strings, label->key, &pb->key);
    if (err)
        return err;
    if (label->str)
        return stile__strings_intern(&b->strings, label->str, &pb->str);
    pb->num = label->num;
    return stile__strings_intern(&b->strings, label->num_unit, &pb->num_unit);
}

/* pb and pointers have room for n. */
static int sample_append(struct stile__builder *b, Perftools__Profiles__Sample *sample,
                         const struct stile__builder_label *labels, Perftools__Profiles__Label *pb,
                         Perftools__Profiles__Label **pointers)
{
    for (size_t i = 0; i < sample->n_label; i++) {
        int err = label_set(b, &pb[i], &labels[i]);

        if (err)
            return err;
        pointers[i] = &pb[i];
    }
    sample->label = pointers;
    return stile__message_append(&b->samples, FIELD_SAMPLE, &sample->base);
}

int stile__builder_sample_add(struct stile__builder *b, const uint64_t *location_ids, size_t n_locations,
                              const int64_t *values, const struct stile__builder_label *labels,
                              size_t n_labels)
{
    Perftools__Profiles__Sample sample = PERFTOOLS__PROFILES__SAMPLE__INIT;
    Perftools__Profiles__Label some[LABELS_ON_STACK], *pb = some;
    Perftools__Profiles__Label *some_pointers[LABELS_ON_STACK], **pointers = some_pointers;
    int err = -ENOMEM;

    if (!b->n_sample_types)
        return -EINVAL;
    for (size_t i = 0; i < n_locations; i++)
        if (location_ids[i] == 0 || location_ids[i] > b->n_locations)
            return -EINVAL;
    /* Packing only reads: the casts drop const for the generated struct's sake. */
    sample.location_id = (uint64_t *)location_ids;
    sample.n_location_id = n_locations;
    sample.value = (int64_t *)values;
    sample.n_value = b->n_sample_types;
    sample.n_label = n_labels;
    if (n_labels > LABELS_ON_STACK) {
        pb = calloc(n_labels, sizeof(*pb));
        pointers = calloc(n_labels, sizeof(*pointers));
    }
    if (pb && pointers)
        err = sample_append(b, &sample, labels, pb, pointers);
    if (!err)
        b->has_samples = true;
    if (pb != some)
        free(pb);
    if (pointers != some_pointers)
        free(pointers);
    return err;
}

/* Everything but what is in wire form already. */
static int header_pack(const struct stile__builder *b, struct stile__buffer *out)
{
    Perftools__Profiles__Profile p = PERFTOOLS__PROFILES__PROFILE__INIT;
    int err = -ENOMEM;

    p.sample_type = calloc(b->n_sample_types + 1, sizeof(*p.sample_type));
    p.mapping = calloc(b->n_mappings + 1, sizeof(*p.mapping));
    if (!p.sample_type || !p.mapping)
        goto out;
    for (; p.n_sample_type < b->n_sample_types; p.n_sample_type++)
        p.sample_type[p.n_sample_type] = &b->sample_types[p.n_sample_type];
    for (; p.n_mapping < b->n_mappings; p.n_mapping++)
        p.mapping[p.n_mapping] = &b->mappings[p.n_mapping];
    p.n_comment = b->n_comments;
    p.comment = b->comments;
    p.default_sample_type = b->default_sample_type;
    if (b->has_period)
        p.period_type = (Perftools__Profiles__ValueType *)&b->period_type;
    p.period = b->period;
    p.time_nanos = b->time_nanos;
    p.duration_nanos = b->duration_nanos;
    err = stile__buffer_reserve(out, perftools__profiles__profile__get_packed_size(&p));
    if (!err)
        out->size += perftools__profiles__profile__pack(&p, out->data + out->size);
out:
    free(p.sample_type);
    free(p.mapping);
    return err;
}

int stile__builder_write(const struct stile__builder *b, int fd, bool gzip)
{
    struct stile__buffer header = {0};
    int err = header_pack(b, &header);

    if (!err) {
        const struct iovec pieces[] = {
            {header.data, header.size},
            {b->samples.data, b->samples.size},
            {b->locations.data, b->locations.size},
            {b->functions.data, b->functions.size},
            {b->strings.wire.data, b->strings.wire.size},
        };

        err = gzip ? stile__gzip_write(fd, pieces, 5) : stile__pieces_write(fd, pieces, 5);
    }
    stile__buffer_free(&header);
    return err;
}
