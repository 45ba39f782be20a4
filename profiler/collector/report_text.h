/* Text of reports and dumps that the collector writes itself, in the format of profiler/region/report.h. Collector, normal
 * context. */
#ifndef STILE_COLLECTOR_REPORT_TEXT_H
#define STILE_COLLECTOR_REPORT_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/process.h"

/* All zero: empty. What there is no memory for, or too much of, is left out. */
struct report_text {
    char *bytes; /* owned */
    size_t n, cap;
};

void report_text_free(struct report_text *t);
void report_text_bytes(struct report_text *t, const char *bytes, size_t n);
void report_text_add(struct report_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `thread TID "NAME" `: what follows is its state. */
void report_text_thread(struct report_text *t, uint32_t tid, const char *name);

/* Frames, leaf first, of a process; the middle of very many is left out. reason: why they are not whole. */
void report_text_frames(struct report_text *t, const struct process *p, const uint64_t *frames, size_t n,
                        enum stile__reason reason);

/* The table of modules: what is mapped now. */
void report_text_modules(struct report_text *t, const struct process *p);

/* A string of the program's, for one line. */
void report_text_clean(char *to, size_t size, const char *from);

#endif
