/* Modules (files) and mappings (where a process had them), with history: a mapping that is gone keeps its number, so
 * that what was sampled in it keeps its name. Collector, normal context. */
#ifndef STILE_COLLECTOR_MODULES_H
#define STILE_COLLECTOR_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "profiler/collector/elf_file.h"

struct learned;

/* One file, shared by all processes of the tree that map it. A few that nobody maps any more are kept for the next. */
struct module {
    dev_t dev;
    ino_t ino;
    struct timespec written, changed; /* mtime, ctime: a file may be rewritten in place */
    off_t size;
    uint32_t users; /* mappings that refer to it */
    char *path;
    struct elf_file elf;
    uint8_t vetted;          /* enum stile__barriers_state; see vet_module */
    struct learned *learned; /* its unwind rules, or NULL: nobody asked yet */
    struct module *next;
};

/* An executable mapping of one process. */
struct mapping {
    uint64_t start, end, offset;
    dev_t dev;
    ino_t ino;
    char *path;                      /* "" when anonymous; owned by the table */
    struct module *module;           /* NULL: no file to read */
    uint64_t bias;                   /* runtime address - virtual address in the module */
    uint64_t image_start, image_end; /* runtime range of the whole module, for reads of its data */
    uint64_t moved;  /* in a tree's profile: how much higher it is here than in its process, */
    uint32_t member; /* the first one that has it */
};

/* What was mapped at a time. Owned by the table. */
struct mapping_state {
    uint32_t *live; /* indices, ascending by start */
    uint32_t n_live;
    uint32_t
        generation; /* differs from that of any state in which something else was mapped where this one has something */
    uint32_t unloads; /* count of unloads that it goes with */
};

#define MAPPING_STATES 16u

struct mapping_table {
    struct mapping *all; /* history, in the order seen; indices never change */
    uint32_t n_all, cap_all;
    struct mapping_state now;
    struct mapping_state
        past[MAPPING_STATES]; /* the last ones of earlier counts, by their number % MAPPING_STATES */
    uint32_t n_past;
    const struct mapping_state *view; /* what is looked at: one of these */
    /* Called when an address is in no current mapping: looks at the maps again, at most once a drain. Leaves the state of
     * the same count of unloads in view. */
    void (*refresh)(void *arg);
    void *refresh_arg;
    pid_t pid; /* as the collector sees it, to open files in the process's own root; 0 if unknown */
};

#define MAPPING_NONE UINT32_MAX

void mappings_init(struct mapping_table *t, pid_t pid);
void mappings_free(struct mapping_table *t);

/* Takes the executable lines of a /proc/PID/maps text as the current state, which goes with this count of unloads; looks
 * at it from here on. Lines that cannot be parsed are skipped. Returns 0 or -ENOMEM. */
int mappings_update(struct mapping_table *t, const char *text, size_t len, uint32_t unloads);

/* Looks at what was mapped when so many unloads were counted. False if that is not known: then at what was there last
 * before, or at the oldest that is known. */
bool mappings_view(struct mapping_table *t, uint32_t unloads);

/* The mapping in view that has an address, as an index into `all`, or MAPPING_NONE. */
uint32_t mappings_find(const struct mapping_table *t, uint64_t address);

/* The same, or the latest one that ever had it (the current ones are looked at again first), since code made at run time
 * comes and goes between looks at the maps. In the past only what is in view, or the only one that ever had it: others may
 * have had it at another time. */
uint32_t mappings_find_ever(const struct mapping_table *t, uint64_t address);

/* Reads the word at a runtime address from the file that is mapped there. A program may map a part of a file a second
 * time elsewhere (node does), and the rest of the file is then not beside it: mapping `first` is asked first. */
bool mappings_read_word(const struct mapping_table *t, uint32_t first, uint64_t address, uint64_t *word);

#endif
