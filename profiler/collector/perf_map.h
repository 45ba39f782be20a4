/* Names of code that was compiled at run time: what the program's compiler left in /tmp/perf-PID.map, the file that perf
 * reads. It belongs to the program, and names code that has no file to ask. Runs in the writer process, normal context.
 *
 * Nothing in it is believed. It is only read, and only once for each file that is written, as it is then: a program that
 * lives adds to it. */
#ifndef STILE_COLLECTOR_PERF_MAP_H
#define STILE_COLLECTOR_PERF_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process;

/* Whose file it is. */
struct perf_map_owner {
    pid_t pid;       /* as the collector sees it */
    int32_t own_pid; /* as the program sees it */
    int pidfd;       /* -1: it is gone */
    uid_t uid;
    bool from_birth;          /* the session is as old as the program, */
    uint64_t session_unix_ns; /* which began then */
};
struct perf_map_owner perf_map_owner(const struct process *p);

/* Bytes of a name, without its NUL; longer ones are cut. */
#define PERF_MAP_NAME_MAX 1023u

/* Code of one name. */
struct perf_map_range {
    uint64_t start, end; /* runtime addresses; end is exclusive */
    uint32_t name;       /* offset into the text; a later line has a greater one */
};

/* Zeroed: without names. */
struct perf_map {
    char *text;                    /* of the file; names in it end with a NUL. Owned */
    struct perf_map_range *ranges; /* ascending, disjoint, none empty. Owned */
    uint32_t n_ranges;
    uint32_t lines, skipped; /* of the file: all, and those that could not be used */
};

/* Takes a text of lines "START SIZE NAME": hexadecimal, with or without 0x, and NAME goes on to the end of the line. Where
 * lines overlap the later one counts, since memory of code that is gone is used again; an earlier one keeps the rest.
 * Lines that say something else are skipped, as is a last one without its newline: it was being written. Control
 * characters in names become '?'; bytes that are not UTF-8 are left to the builder.
 * Owns text (from malloc) from here on, whatever it returns. Returns NULL, or why it cannot be used, a static string;
 * *m is to be freed if NULL was returned, and without names otherwise. */
const char *perf_map_parse(struct perf_map *m, char *text, size_t size);

/* Finds, checks and reads the file of a process, by its own pid and in its own root directory while it
 * lives. Without a file there are no names, and that is no error. Returns as perf_map_parse does. */
const char *perf_map_read(struct perf_map *m, const struct perf_map_owner *p);

void perf_map_free(struct perf_map *m);

/* The name of the code at an address, owned by the map, or NULL. Takes the time of a binary search. */
const char *perf_map_find(const struct perf_map *m, uint64_t address);

#endif
