/* Builds a pprof profile in memory and writes it, gzipped, to a file descriptor.
 *
 * Context: the collector's writer process and the command line. Single-threaded; a builder is owned by whoever
 * called stile__builder_new. Every pointer passed in is only read during the call: strings are copied.
 * Bytes that are not UTF-8 become U+FFFD, because strict readers refuse a file that has them.
 * Errors: functions that can fail return 0 or -errno (-ENOMEM, -EINVAL); ids are never zero. */
#ifndef STILE_PROTO_BUILDER_H
#define STILE_PROTO_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__builder;

/* What a location's address belongs to. */
struct stile__builder_mapping {
    uint64_t start, limit; /* runtime addresses, bytes; limit is exclusive */
    uint64_t file_offset;  /* bytes into the file of `start` */
    const char *filename;  /* "" for none */
    const char *build_id;  /* lower-case hex, "" for none */
    bool has_functions, has_filenames, has_line_numbers, has_inline_frames;
};

/* One function activation at an address; an inlined one comes before the function it was inlined into. */
struct stile__builder_line {
    const char *name;        /* demangled */
    const char *system_name; /* as linked */
    const char *filename;    /* "" if unknown */
    int64_t start_line;      /* of the function, 0 if unknown */
    int64_t line;            /* 0 if unknown */
};

/* A label: either str, or num with num_unit (str NULL). Keys may not be empty or start with "pprof::" (-EINVAL). */
struct stile__builder_label {
    const char *key;
    const char *str;
    int64_t num;
    const char *num_unit; /* NULL or "" for none */
};

struct stile__builder *stile__builder_new(void);
void stile__builder_free(struct stile__builder *b);

/* Sample types in the order in which values are given, all before the first sample (-EINVAL later); the default is
 * named by its type. */
int stile__builder_sample_type_add(struct stile__builder *b, const char *type, const char *unit);
int stile__builder_default_sample_type_set(struct stile__builder *b, const char *type);
int stile__builder_period_set(struct stile__builder *b, const char *type, const char *unit, int64_t period);
/* time: ns since the epoch, duration: ns. */
int stile__builder_time_set(struct stile__builder *b, int64_t time_nanos, int64_t duration_nanos);
int stile__builder_comment_add(struct stile__builder *b, const char *text);

/* Adds a mapping and returns its id in *id. The first one added is the main binary. */
int stile__builder_mapping_add(struct stile__builder *b, const struct stile__builder_mapping *m,
                               uint64_t *id);
/* has_* flags may become known only once the locations are symbolized: replaces those of mapping `id`. */
int stile__builder_mapping_flags_set(struct stile__builder *b, uint64_t id, bool has_functions,
                                     bool has_filenames, bool has_line_numbers, bool has_inline_frames);
/* Adds (or finds: key is mapping_id, address and, for address 0, the first line's name) a location.
 * mapping_id 0 means none. lines are innermost first; n_lines may be 0. */
int stile__builder_location_add(struct stile__builder *b, uint64_t mapping_id, uint64_t address,
                                const struct stile__builder_line *lines, size_t n_lines, uint64_t *id);
/* location_ids are leaf first; values has one entry per sample type. */
int stile__builder_sample_add(struct stile__builder *b, const uint64_t *location_ids, size_t n_locations,
                              const int64_t *values, const struct stile__builder_label *labels,
                              size_t n_labels);

/* Serializes, gzips if `gzip`, and writes all to fd. Returns 0 or -errno of the write (-ENOSPC, ...). */
int stile__builder_write(const struct stile__builder *b, int fd, bool gzip);

#endif
