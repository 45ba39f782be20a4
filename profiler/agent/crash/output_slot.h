/* The slot that holds the crash output: one word, which swaps exchange and the crash reads. Async-signal-safe. */
#ifndef STILE_AGENT_CRASH_OUTPUT_SLOT_H
#define STILE_AGENT_CRASH_OUTPUT_SLOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* A descriptor and what file it was when it was ours: programs close and dup2 over what they did not open. */
struct stile__output_file {
    int fd; /* -1: none */
    uint32_t mark;
};

/* What a descriptor is now; false: closed. st: more of it, or NULL. */
bool stile__output_file_of(int fd, struct stile__output_file *f, struct stat *st);

/* Whether the descriptor is still that file. */
bool stile__output_file_same(const struct stile__output_file *f);

/* The crash's: says that it has begun, and gives the output. Nobody closes it from then on until stile__output_slot_leave. */
struct stile__output_file stile__output_slot_take(void);
void stile__output_slot_leave(void);

#endif
