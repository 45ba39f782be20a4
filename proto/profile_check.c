/* What makes unpacked bytes a profile, and the way from an id to what it names.
 * Context: the reader's; any normal context; single-threaded. */
#include "proto/reader.h"

#include <errno.h>
#include <stdio.h>

/* An id table's entries are indices; whose ids to compare with depends on the table. */
struct id_search {
    const Perftools__Profiles__Profile *pb;
    uint64_t id;
};

static bool mapping_equal(const void *context, uint64_t index)
{
    const struct id_search *s = context;

    return s->pb->mapping[index]->id == s->id;
}

static bool location_equal(const void *context, uint64_t index)
{
    const struct id_search *s = context;

    return s->pb->location[index]->id == s->id;
}

static bool function_equal(const void *context, uint64_t index)
{
    const struct id_search *s = context;

    return s->pb->function[index]->id == s->id;
}

static int id_add(const Perftools__Profiles__Profile *pb, struct stile__id_table *t, stile__id_equal *equal,
                  uint64_t id, size_t index)
{
    struct id_search search = {pb, id};
    uint64_t hash = stile__hash_add(1, id), found;

    if (id == 0 || stile__id_table_find(t, hash, equal, &search, &found))
        return -EINVAL;
    if (stile__id_table_reserve(t))
        return -ENOMEM;
    stile__id_table_add(t, hash, index);
    return 0;
}

static size_t index_of(const struct stile__profile *p, const struct stile__id_table *t,
                       stile__id_equal *equal, size_t count, uint64_t id)
{
    struct id_search search = {p->pb, id};
    uint64_t index;

    if (id == 0)
        return SIZE_MAX;
    if (id <= count && equal(&search, id - 1)) /* most writers number from 1 */
        return id - 1;
    return stile__id_table_find(t, stile__hash_add(1, id), equal, &search, &index) ? index : SIZE_MAX;
}

const char *stile__profile_string(const struct stile__profile *p, int64_t index)
{
    return p->pb->string_table[index];
}

const Perftools__Profiles__Mapping *stile__profile_mapping(const struct stile__profile *p, uint64_t id)
{
    size_t i = index_of(p, &p->mappings, mapping_equal, p->pb->n_mapping, id);

    return i == SIZE_MAX ? NULL : p->pb->mapping[i];
}

const Perftools__Profiles__Function *stile__profile_function(const struct stile__profile *p, uint64_t id)
{
    size_t i = index_of(p, &p->functions, function_equal, p->pb->n_function, id);

    return i == SIZE_MAX ? NULL : p->pb->function[i];
}

size_t stile__profile_location_index(const struct stile__profile *p, uint64_t id)
{
    return index_of(p, &p->locations, location_equal, p->pb->n_location, id);
}

static bool is_string(const Perftools__Profiles__Profile *pb, int64_t index)
{
    return index >= 0 && (uint64_t)index < pb->n_string_table;
}

static bool is_value_type(const Perftools__Profiles__Profile *pb, const Perftools__Profiles__ValueType *v)
{
    return is_string(pb, v->type) && is_string(pb, v->unit);
}

static const char *header_check(const Perftools__Profiles__Profile *pb)
{
    if (pb->n_string_table == 0 || pb->string_table[0][0])
        return "its string table does not start with \"\"";
    if (pb->n_sample_type == 0)
        return "it has no sample types";
    for (size_t i = 0; i < pb->n_sample_type; i++)
        if (!is_value_type(pb, pb->sample_type[i]))
            return "a sample type's string is out of range";
    if (pb->period_type && !is_value_type(pb, pb->period_type))
        return "the period type's string is out of range";
    for (size_t i = 0; i < pb->n_comment; i++)
        if (!is_string(pb, pb->comment[i]))
            return "a comment's string is out of range";
    if (!is_string(pb, pb->drop_frames) || !is_string(pb, pb->keep_frames) || !is_string(pb, pb->doc_url) ||
        !is_string(pb, pb->default_sample_type))
        return "a string is out of range";
    return NULL;
}

static int mappings_check(struct stile__profile *p, const char **why)
{
    const Perftools__Profiles__Profile *pb = p->pb;
    int err = 0;

    for (size_t i = 0; i < pb->n_mapping && !err; i++) {
        const Perftools__Profiles__Mapping *m = pb->mapping[i];

        *why = "a mapping's id is zero or used twice";
        err = id_add(pb, &p->mappings, mapping_equal, m->id, i);
        if (!err && (!is_string(pb, m->filename) || !is_string(pb, m->build_id))) {
            *why = "a mapping's string is out of range";
            err = -EINVAL;
        }
    }
    return err;
}

static int functions_check(struct stile__profile *p, const char **why)
{
    const Perftools__Profiles__Profile *pb = p->pb;
    int err = 0;

    for (size_t i = 0; i < pb->n_function && !err; i++) {
        const Perftools__Profiles__Function *f = pb->function[i];

        *why = "a function's id is zero or used twice";
        err = id_add(pb, &p->functions, function_equal, f->id, i);
        if (!err &&
            (!is_string(pb, f->name) || !is_string(pb, f->system_name) || !is_string(pb, f->filename))) {
            *why = "a function's string is out of range";
            err = -EINVAL;
        }
    }
    return err;
}

static int locations_check(struct stile__profile *p, const char **why)
{
    const Perftools__Profiles__Profile *pb = p->pb;
    int err = 0;

    for (size_t i = 0; i < pb->n_location && !err; i++) {
        const Perftools__Profiles__Location *l = pb->location[i];

        *why = "a location's id is zero or used twice";
        err = id_add(pb, &p->locations, location_equal, l->id, i);
        if (err)
            return err;
        *why = "a location refers to a mapping or function that is not there";
        if (l->mapping_id && !stile__profile_mapping(p, l->mapping_id))
            err = -EINVAL;
        for (size_t k = 0; k < l->n_line && !err; k++)
            if (l->line[k]->function_id && !stile__profile_function(p, l->line[k]->function_id))
                err = -EINVAL;
    }
    return err;
}

static const char *samples_check(const struct stile__profile *p)
{
    const Perftools__Profiles__Profile *pb = p->pb;

    for (size_t i = 0; i < pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = pb->sample[i];

        if (s->n_value != pb->n_sample_type)
            return "a sample has more or fewer values than there are sample types";
        for (size_t k = 0; k < s->n_location_id; k++)
            if (stile__profile_location_index(p, s->location_id[k]) == SIZE_MAX)
                return "a sample refers to a location that is not there";
        for (size_t k = 0; k < s->n_label; k++) {
            const Perftools__Profiles__Label *l = s->label[k];

            if (!is_string(pb, l->key) || !is_string(pb, l->str) || !is_string(pb, l->num_unit))
                return "a label's string is out of range";
        }
    }
    return NULL;
}

int stile__profile_check(struct stile__profile *p, char *why, size_t why_size)
{
    const char *reason = header_check(p->pb);
    int err = reason ? -EINVAL : 0;

    if (!err)
        err = mappings_check(p, &reason);
    if (!err)
        err = functions_check(p, &reason);
    if (!err)
        err = locations_check(p, &reason);
    if (!err) {
        reason = samples_check(p);
        err = reason ? -EINVAL : 0;
    }
    if (err)
        snprintf(why, why_size, "%s", reason);
    return err;
}
