/* What the unit tests of proto/ share. */
#ifndef STILE_TESTS_PROTO_SUPPORT_H
#define STILE_TESTS_PROTO_SUPPORT_H

/* cmocka wants these four before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/builder.h"

struct bytes {
    uint8_t *data;
    size_t size;
};

/* Whole files; all of these fail the test rather than return an error. bytes.data is to be freed. */
struct bytes file_load(const char *path);
struct bytes fd_load(int fd);
void file_store(const char *path, const void *data, size_t size);
/* A memory file that holds size bytes, positioned at its start. */
int memory_file(const void *data, size_t size);

/* What command prints to stdout. To be freed. */
char *command_output(const char *command);

/* A sequence of numbers that is the same in every run. */
uint32_t next_number(uint64_t *state);

/* The profile that several tests count on:
 *   mapping 1 /bin/app; locations: A main; B two lines: leaf inlined into work; C work alone; D nameless address;
 *   samples (count, ns), leaf first: {B A} 1/10; {C C A} 2/20 (recursion); {B C A} 3/30; {D A} 4/40; {A} 5/50;
 *   {C A} 0/0. */
struct stile__builder *sample_profile(void);
/* Writes b to path, gzipped. */
void profile_store(const struct stile__builder *b, const char *path);

#endif
