/* Rules by file. Collector, normal context. */
#include "profiler/collector/learned.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "profiler/collector/cfi.h"
#include "profiler/region/rules.h"
#include "proto/id_table.h"

#define BLOCK_NS_MAX 20000000u /* of CPU time: libdw runs a function from its start for each row */
#define UNASKED_NS   500000u   /* of a block, for which it is not asked how much CPU time it took */
#define BLOCK_BYTES  (1ull << STILE__RULES_BLOCK_BITS)

struct learned {
    const struct elf_file *elf;
    struct cfi *cfi; /* NULL: the file has none */
    struct learned_block *blocks;
    size_t n_blocks, cap_blocks;
    struct learned_row *rows;
    size_t n_rows, cap_rows;
    struct stile__id_table by_number;
};

struct learned *learned_new(const struct elf_file *elf)
{
    struct learned *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->elf = elf;
    l->cfi = cfi_open(elf);
    return l;
}

void learned_barriers_forbid(struct learned *l)
{
    cfi_barriers_forbid(l->cfi);
}

void learned_free(struct learned *l)
{
    if (l == NULL)
        return;
    cfi_close(l->cfi);
    free(l->blocks);
    free(l->rows);
    stile__id_table_free(&l->by_number);
    free(l);
}

struct key {
    const struct learned *l;
    uint64_t number;
};

static bool is_block(const void *context, uint64_t id)
{
    const struct key *k = context;
    return k->l->blocks[id].number == k->number;
}

static int row_add(struct learned *l, uint32_t byte, uint64_t rule)
{
    if (l->n_rows == l->cap_rows) {
        size_t cap = l->cap_rows != 0 ? l->cap_rows * 2 : 256;
        struct learned_row *rows = realloc(l->rows, cap * sizeof *rows);
        if (rows == NULL)
            return -ENOMEM;
        l->rows = rows;
        l->cap_rows = cap;
    }
    l->rows[l->n_rows++] = (struct learned_row){byte, rule};
    return 0;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Since when a block is read. */
struct reading {
    uint64_t wall_start;
    uint64_t cpu_start; /* 0: it has not been looked at yet */
};

/* Not by the wall clock: what a file's rules are must not depend on how busy the machine was. But that one takes no system call,
 * and most blocks take microseconds by it, so the thread's own clock is asked of the others only. */
static bool took_long(struct reading *r)
{
    if (clock_ns(CLOCK_MONOTONIC) - r->wall_start <= UNASKED_NS)
        return false;
    const uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (r->cpu_start == 0)
        r->cpu_start = cpu;
    return cpu - r->cpu_start > BLOCK_NS_MAX;
}

/* Reads the rows of a block, equal neighbours joined. */
static int block_read(struct learned *l, struct learned_block *b)
{
    const uint64_t from = b->number << STILE__RULES_BLOCK_BITS, to = from + BLOCK_BYTES;
    struct reading reading = {.wall_start = clock_ns(CLOCK_MONOTONIC)};
    bool much = false; /* more than there can be, or more than the collector has time for */
    b->first = (uint32_t)l->n_rows;
    for (uint64_t at = from; at < to && !much;) {
        struct cfi_row row = cfi_row_at(l->cfi, l->elf, at, to);
        bool same = l->n_rows > b->first && l->rows[l->n_rows - 1].rule == row.rule;
        if (!same && row_add(l, (uint32_t)(at - from), row.rule) != 0)
            return -ENOMEM;
        at = row.end > at ? row.end : at + 1;
        much = l->n_rows - b->first > STILE__RULES_ROWS_MAX || took_long(&reading);
    }
    b->n = (uint32_t)(l->n_rows - b->first);
    if (much) { /* a rule for each byte, or a function of a hundred thousand: no compiler's doing */
        l->n_rows = b->first;
        b->n = 1;
        return row_add(l, 0, STILE__RULE_OTHER);
    }
    return 0;
}

const struct learned_block *learned_get(struct learned *l, uint64_t address)
{
    struct key key = {l, address >> STILE__RULES_BLOCK_BITS};
    uint64_t hash = stile__hash_add(0, key.number), id;

    if (stile__id_table_find(&l->by_number, hash, is_block, &key, &id))
        return &l->blocks[id];
    if (l->n_blocks == l->cap_blocks) {
        size_t cap = l->cap_blocks != 0 ? l->cap_blocks * 2 : 64;
        struct learned_block *blocks = realloc(l->blocks, cap * sizeof *blocks);
        if (blocks == NULL)
            return NULL;
        l->blocks = blocks;
        l->cap_blocks = cap;
    }
    struct learned_block *b = &l->blocks[l->n_blocks];
    b->number = key.number;
    size_t rows = l->n_rows;
    if (stile__id_table_reserve(&l->by_number) != 0 || block_read(l, b) != 0) {
        l->n_rows = rows;
        return NULL;
    }
    stile__id_table_add(&l->by_number, hash, l->n_blocks++);
    return b;
}

const struct learned_block *learned_all(const struct learned *l, size_t *n)
{
    *n = l->n_blocks;
    return l->blocks;
}

const struct learned_row *learned_rows(const struct learned *l, const struct learned_block *b)
{
    return l->rows + b->first;
}
