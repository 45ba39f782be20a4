/* Functions and locations of a profile under construction, each stored once.
 * Context: as builder.h. */
#include "proto/builder_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIELD_LOCATION = 4,
    FIELD_FUNCTION = 5,
    LINES_ON_STACK = 16,
};

struct function_search {
    const struct stile__builder *builder;
    struct stile__function_key key;
};

struct location_search {
    const struct stile__builder *builder;
    struct stile__location_key key;
};

static bool function_equal(const void *context, uint64_t id)
{
    const struct function_search *s = context;
    const struct stile__function_key *k = &s->builder->function_keys[id - 1];

    return k->name == s->key.name && k->system_name == s->key.system_name && k->filename == s->key.filename &&
           k->start_line == s->key.start_line;
}

static bool location_equal(const void *context, uint64_t id)
{
    const struct location_search *s = context;
    const struct stile__location_key *k = &s->builder->location_keys[id - 1];

    return k->mapping_id == s->key.mapping_id && k->address == s->key.address && k->name == s->key.name;
}

static int function_append(struct stile__builder *b, const struct stile__function_key *key, uint64_t hash)
{
    Perftools__Profiles__Function pb = PERFTOOLS__PROFILES__FUNCTION__INIT;

    pb.id = b->n_functions + 1;
    pb.name = key->name;
    pb.system_name = key->system_name;
    pb.filename = key->filename;
    pb.start_line = key->start_line;
    if (stile__array_grow(&b->function_keys, &b->functions_capacity, b->n_functions,
                          sizeof(*b->function_keys)) ||
        stile__id_table_reserve(&b->function_table) ||
        stile__message_append(&b->functions, FIELD_FUNCTION, &pb.base))
        return -ENOMEM;
    b->function_keys[b->n_functions++] = *key;
    stile__id_table_add(&b->function_table, hash, pb.id);
    return 0;
}

static int function_add(struct stile__builder *b, const struct stile__builder_line *line, uint64_t *id)
{
    struct function_search s = {.builder = b};
    const char *system_name = line->system_name && *line->system_name ? line->system_name : line->name;
    uint64_t hash;
    int err;

    if (stile__strings_intern(&b->strings, line->name, &s.key.name) ||
        stile__strings_intern(&b->strings, system_name, &s.key.system_name) ||
        stile__strings_intern(&b->strings, line->filename, &s.key.filename))
        return -ENOMEM;
    s.key.start_line = line->start_line;
    hash = stile__hash_add((uint64_t)s.key.name, (uint64_t)s.key.system_name);
    hash = stile__hash_add(hash, (uint64_t)s.key.filename);
    hash = stile__hash_add(hash, (uint64_t)s.key.start_line);
    if (stile__id_table_find(&b->function_table, hash, function_equal, &s, id))
        return 0;
    err = function_append(b, &s.key, hash);
    *id = b->n_functions;
    return err;
}

/* pb and pointers have room for n. */
static int lines_set(struct stile__builder *b, const struct stile__builder_line *lines, size_t n,
                     Perftools__Profiles__Line *pb, Perftools__Profiles__Line **pointers)
{
    for (size_t i = 0; i < n; i++) {
        int err;

        perftools__profiles__line__init(&pb[i]);
        err = function_add(b, &lines[i], &pb[i].function_id);
        if (err)
            return err;
        pb[i].line = lines[i].line;
        pointers[i] = &pb[i];
    }
    return 0;
}

static int location_append(struct stile__builder *b, const struct stile__location_key *key, uint64_t hash,
                           const struct stile__builder_line *lines, size_t n)
{
    Perftools__Profiles__Location pb = PERFTOOLS__PROFILES__LOCATION__INIT;
    Perftools__Profiles__Line some[LINES_ON_STACK], *line = some;
    Perftools__Profiles__Line *some_pointers[LINES_ON_STACK], **pointers = some_pointers;
    int err = -ENOMEM;

    pb.id = b->n_locations + 1;
    pb.mapping_id = key->mapping_id;
    pb.address = key->address;
    pb.n_line = n;
    if (n > LINES_ON_STACK) {
        line = calloc(n, sizeof(*line));
        pointers = calloc(n, sizeof(*pointers));
    }
    if (!line || !pointers)
        goto out;
    pb.line = pointers;
    err = lines_set(b, lines, n, line, pointers);
    if (err)
        goto out;
    if (stile__array_grow(&b->location_keys, &b->locations_capacity, b->n_locations,
                          sizeof(*b->location_keys)) ||
        stile__id_table_reserve(&b->location_table) ||
        stile__message_append(&b->locations, FIELD_LOCATION, &pb.base)) {
        err = -ENOMEM;
        goto out;
    }
    b->location_keys[b->n_locations++] = *key;
    stile__id_table_add(&b->location_table, hash, pb.id);
out:
    if (line != some)
        free(line);
    if (pointers != some_pointers)
        free(pointers);
    return err;
}

int stile__builder_location_add(struct stile__builder *b, uint64_t mapping_id, uint64_t address,
                                const struct stile__builder_line *lines, size_t n_lines, uint64_t *id)
{
    struct location_search s = {.builder = b, .key = {.mapping_id = mapping_id, .address = address}};
    uint64_t hash;
    int err;

    if (mapping_id > b->n_mappings)
        return -EINVAL;
    if (address == 0 && n_lines) {
        err = stile__strings_intern(&b->strings, lines[0].name, &s.key.name);
        if (err)
            return err;
    }
    hash = stile__hash_add(stile__hash_add(mapping_id, address), (uint64_t)s.key.name);
    if (stile__id_table_find(&b->location_table, hash, location_equal, &s, id))
        return 0;
    err = location_append(b, &s.key, hash, lines, n_lines);
    *id = b->n_locations;
    return err;
}
