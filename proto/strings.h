/* The string table of a profile: every text once, numbered from 0, entry 0 empty.
 * Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_STRINGS_H
#define STILE_PROTO_STRINGS_H

#include <stdint.h>

#include "proto/buffer.h"
#include "proto/id_table.h"

/* wire holds the entries as they go into the file (field 6 of Profile), so a string is stored once. */
struct stile__strings {
    struct stile__buffer wire;
    struct stile__string_entry *entries;
    size_t count, capacity;
    struct stile__id_table table;
};

/* Must be called first: makes entry 0. 0 or -ENOMEM. */
int stile__strings_init(struct stile__strings *s);
/* Finds or adds text (NULL counts as ""); *index is its number. Bytes that are not UTF-8 become U+FFFD: the format
 * allows nothing else, and strict readers refuse the whole file. 0 or -ENOMEM. */
int stile__strings_intern(struct stile__strings *s, const char *text, int64_t *index);
void stile__strings_free(struct stile__strings *s);

#endif
