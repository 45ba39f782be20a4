/* The table of modules in a crash report: what lay where, of which build. Nothing in it is believed but where a frame's file is
 * looked for. Context: any normal; single-threaded. */
#ifndef STILE_PROTO_REPORT_MODULES_H
#define STILE_PROTO_REPORT_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__symbol_module;

#define STILE__REPORT_ID_MOST      64u /* bytes of a build id */
#define STILE__REPORT_MODULES_MOST (1u << 16)

struct stile__report_module {
    uint64_t start, end, bias;
    uint8_t id[STILE__REPORT_ID_MOST];
    size_t id_size; /* 0: it has none */
    char *path;     /* owned */
    size_t order;
    bool tried;
    struct stile__symbol_module *symbols; /* the symbolizer's */
};

/* All zero: none. */
struct stile__report_modules {
    struct stile__report_module *all;
    size_t n, cap;
};

/* Takes a line `  0xSTART-0xEND 0xBIAS BUILD-ID-OR-"-" PATH`; another one is skipped. 0 or -ENOMEM. */
int stile__report_modules_add(struct stile__report_modules *t, const char *line, size_t n);
void stile__report_modules_sort(struct stile__report_modules *t);
/* What an address lies in, once sorted, or NULL. */
struct stile__report_module *stile__report_modules_find(struct stile__report_modules *t, uint64_t pc);
void stile__report_modules_free(struct stile__report_modules *t);

/* The number `0x...` at `at`, which ends before `end`. Returns what follows it, or NULL: there is none, or too great a one. */
const char *stile__report_hex(const char *at, const char *end, uint64_t *value);

#endif
