/* Reads pprof profiles, ours and others'. Context: the command line and tests; single-threaded. */
#ifndef STILE_PROTO_READER_H
#define STILE_PROTO_READER_H

#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/id_table.h"
#include "proto/profile.pb-c.h"

/* A profile that was checked: ids are unique and nonzero, string numbers are in range and entry 0 is "", each sample
 * has as many values as there are sample types (one at least), and whatever an id refers to exists; only
 * Location.mapping_id and Line.function_id may be 0, for none. */
struct stile__profile {
    const Perftools__Profiles__Profile *pb;
    /* Of the reader. The tables map ids to indices, for files whose ids are not simply 1, 2, 3... */
    struct stile__arena arena;
    struct stile__id_table mappings, locations, functions;
};

/* Reads the file at path, gzipped or not. On success *out is to be freed with stile__profile_free. Otherwise returns
 * -errno (-EINVAL: no pprof profile, -EFBIG: unreasonably large) and puts one line without a newline, that starts with
 * path, into err. */
int stile__profile_read(const char *path, struct stile__profile **out, char *err, size_t errlen);
/* The same from memory; name is what error texts start with. */
int stile__profile_parse(const char *name, const void *bytes, size_t size, struct stile__profile **out,
                         char *err, size_t errlen);
void stile__profile_free(struct stile__profile *p);

/* index must come from the profile. Never NULL. */
const char *stile__profile_string(const struct stile__profile *p, int64_t index);
/* NULL if there is none of this id. */
const Perftools__Profiles__Mapping *stile__profile_mapping(const struct stile__profile *p, uint64_t id);
const Perftools__Profiles__Function *stile__profile_function(const struct stile__profile *p, uint64_t id);
/* The index into pb->location, SIZE_MAX if there is none of this id. */
size_t stile__profile_location_index(const struct stile__profile *p, uint64_t id);

/* Checks what struct stile__profile promises and fills its tables. 0, -ENOMEM, or -EINVAL with the reason in why. */
int stile__profile_check(struct stile__profile *p, char *why, size_t why_size);

#endif
