/* Publishes rules for a process's handler. Collector, normal context. */
#include "profiler/collector/rule_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "profiler/collector/learned.h"
#include "profiler/collector/process.h"

#define FUNCTION_BYTES 4096u /* of a function, what lies so near the sampled address is learned with it, */
#define FUNCTION_NS    2000000u
#define AROUND_BYTES                                                                                         \
    16384u /* and so much of what is around it later: code that belongs together lies together */
#define BLOCK         (1ull << STILE__RULES_BLOCK_BITS)
#define AROUND_BLOCKS (2 * AROUND_BYTES / BLOCK) /* on both sides */
#define PAGE_BYTES    (STILE__RULES_PAGE_WORDS * sizeof(uint32_t))
_Static_assert(PAGE_BYTES == STILE__PAGE, "a page of the arena is a page of memory");

/* The pages are there before anything points to them: a read in the handler must not fail. */
static bool populate(void *at, size_t bytes)
{
    uintptr_t from = (uintptr_t)at & ~(uintptr_t)(STILE__PAGE - 1);
    return madvise((void *)from, (uintptr_t)at + bytes - from, MADV_POPULATE_WRITE) == 0;
}

static uint32_t *word_at(const struct rule_table *t, uint32_t i)
{
    return (uint32_t *)(uintptr_t)&t->rules->arena[0][0] + i;
}

static uint32_t page_new(struct rule_table *t)
{
    if (t->pages_used == t->pages ||
        !populate(word_at(t, t->pages_used * STILE__RULES_PAGE_WORDS), PAGE_BYTES))
        return 0;
    return t->pages_used++;
}

static bool kind_is(const void *context, uint64_t id)
{
    const struct rule_table *t = context;
    return t->kinds[id] == t->kinds[t->n_kinds];
}

/* The number of a rule; 0 if there is no room for another. */
static uint32_t kind_number(struct rule_table *t, uint64_t rule)
{
    uint64_t hash = stile__hash_add(0, rule), id;
    t->kinds[t->n_kinds] = rule; /* one more than there can be */
    if (stile__id_table_find(&t->by_rule, hash, kind_is, t, &id))
        return (uint32_t)id;
    if (t->n_kinds == STILE__RULES_KINDS || stile__id_table_reserve(&t->by_rule) != 0)
        return 0;
    if (t->n_kinds % (STILE__PAGE / sizeof rule) == 0 && !populate(&t->rules->kinds[t->n_kinds], STILE__PAGE))
        return 0;
    t->rules->kinds[t->n_kinds] = rule;
    stile__id_table_add(&t->by_rule, hash, t->n_kinds);
    return t->n_kinds++;
}

/* The word of a block, its chunk added if it is new; NULL without room. */
static _Atomic uint32_t *block_word(struct rule_table *t, uint64_t address)
{
    _Atomic uint32_t *found = stile__rules_block(t->rules, t->pages, address);
    uint64_t chunk = address >> STILE__RULES_CHUNK_BITS;
    uint32_t h = stile__rules_hash(chunk);

    for (uint32_t k = 0; found == NULL && k < STILE__RULES_PROBES; k++) {
        _Atomic uint64_t *at = &t->rules->chunks[(h + k) % STILE__RULES_CHUNKS];
        if (atomic_load_explicit(at, memory_order_relaxed) != 0)
            continue;
        uint32_t page = page_new(t);
        if (page == 0)
            return NULL;
        /* Release pairs with stile__rules_block's acquire: the page is zero. */
        atomic_store_explicit(at, chunk << 16 | page, memory_order_release);
        found = &t->rules->arena[page][address >> STILE__RULES_BLOCK_BITS & (STILE__RULES_PAGE_WORDS - 1)];
    }
    return found;
}

/* Room for n rows, side by side in one page; 0 if there is none. */
static uint32_t rows_room(struct rule_table *t, uint32_t n)
{
    if (t->row_end - t->row_at < n) {
        uint32_t page = page_new(t);
        if (page == 0)
            return 0;
        t->row_at = page * STILE__RULES_PAGE_WORDS;
        t->row_end = t->row_at + STILE__RULES_PAGE_WORDS;
    }
    t->row_at += n;
    return t->row_at - n;
}

struct rows_key {
    const struct rule_table *t;
    const uint32_t *rows;
    uint32_t n;
};

/* The table is the program's to write: rows that it spoiled are only not found, and no number leads outside. */
static bool rows_are(const void *context, uint64_t id)
{
    const struct rows_key *k = context;
    return (id & 0xff) == k->n &&
           memcmp(word_at(k->t, (uint32_t)(id >> 8)), k->rows, k->n * sizeof *k->rows) == 0;
}

/* Where these rows stand, as a block's word says it; 0 if there is no room. The same rows stand once: code that comes and
 * goes and comes again takes no more than it took first. */
static uint32_t rows_put(struct rule_table *t, const uint32_t *rows, uint32_t n)
{
    struct rows_key key = {t, rows, n};
    uint64_t hash = stile__hash_bytes(rows, n * sizeof *rows), id;
    if (stile__id_table_find(&t->by_rows, hash, rows_are, &key, &id))
        return (uint32_t)id;
    uint32_t at = stile__id_table_reserve(&t->by_rows) == 0 ? rows_room(t, n) : 0;
    if (at == 0)
        return 0;
    memcpy(word_at(t, at), rows, n * sizeof *rows);
    stile__id_table_add(&t->by_rows, hash, at << 8 | n);
    return at << 8 | n;
}

static void block_publish(struct rule_table *t, uint64_t address, const struct learned_row *rows, uint32_t n)
{
    uint32_t words[STILE__RULES_ROWS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = kind_number(t, rows[i].rule);
        if (number == 0)
            return;
        words[i] = rows[i].byte << 24 | number;
    }
    _Atomic uint32_t *word = block_word(t, address);
    if (word == NULL)
        return;
    uint32_t put = rows_put(t, words, n);
    if (put == 0)
        return;
    /* Release pairs with stile__rules_find's acquire: the rows and their rules are there. */
    atomic_store_explicit(word, put, memory_order_release);
}

static void learned_publish(struct rule_table *t, const struct mapping *m, const struct learned_block *b)
{
    uint64_t address = (b->number << STILE__RULES_BLOCK_BITS) + m->bias;
    if (m->bias % BLOCK == 0 && address >= m->start && address < m->end)
        block_publish(t, address, learned_rows(m->module->learned, b), b->n);
}

void rule_table_open(struct rule_table *t, struct stile__region *region, struct stile__region_size size,
                     const struct mapping_table *mappings, uint32_t unloads)
{
    memset(t, 0, sizeof *t);
    t->region = region;
    t->function_ns = FUNCTION_NS;
    if (size.rule_pages == 0)
        return;
    struct stile__rules *rules = stile__region_rules(region, size);
    t->kinds = calloc(STILE__RULES_KINDS + 1, sizeof *t->kinds);
    if (t->kinds == NULL || !populate(rules->chunks, sizeof rules->chunks + STILE__PAGE)) {
        rule_table_close(t);
        return;
    }
    t->rules = rules;
    t->pages = size.rule_pages;
    t->pages_used = 1; /* none has number 0, */
    t->n_kinds = 1;    /* nor any rule */
    for (uint32_t i = 0; i < mappings->now.n_live; i++) {
        const struct mapping *m = &mappings->all[mappings->now.live[i]];
        size_t n = 0;
        const struct learned_block *b =
            m->module != NULL && m->module->learned != NULL ? learned_all(m->module->learned, &n) : NULL;
        for (size_t k = 0; k < n; k++)
            learned_publish(t, m, &b[k]);
    }
    atomic_store_explicit(&region->rules_unloads, unloads / STILE__UNLOADS_ONE, memory_order_release);
}

void rule_table_close(struct rule_table *t)
{
    free(t->kinds);
    stile__id_table_free(&t->by_rule);
    stile__id_table_free(&t->by_rows);
    memset(t, 0, sizeof *t);
}

bool rule_table_has(const struct rule_table *t, uint64_t address)
{
    const _Atomic uint32_t *word = t->rules != NULL ? stile__rules_block(t->rules, t->pages, address) : NULL;
    return word != NULL && atomic_load_explicit(word, memory_order_relaxed) != 0;
}

/* What is next to what was learned is likely to run next. */
static void later_add(struct rule_table *t, uint64_t address)
{
    if (t->n_later - t->later_done == RULE_TABLE_LATER)
        t->later_done++;
    t->later[t->n_later++ % RULE_TABLE_LATER] = address;
}

/* A block of a file's code. False: there was nothing to do, as it is known, or is none of that file. */
static bool block_learn(struct rule_table *t, const struct mapping *m, uint64_t vaddr)
{
    const uint64_t address = vaddr + m->bias;
    if (address < m->start || address >= m->end || rule_table_has(t, address))
        return false;
    const struct learned_block *b = learned_get(m->module->learned, vaddr);
    if (b != NULL)
        learned_publish(t, m, b);
    return true;
}

/* Code of a file: the function, as far as it is near. */
static void file_learn(struct rule_table *t, const struct mapping *m, uint64_t address)
{
    struct module *mod = m->module;
    uint64_t vaddr = address - m->bias, start, end;

    vet_mapping(t->vetting, m);
    if (mod->learned == NULL && (mod->learned = learned_new(&mod->elf)) == NULL)
        return;
    if (mod->vetted != STILE__BARRIERS_UNVETTED && mod->vetted != STILE__BARRIERS_GO)
        learned_barriers_forbid(mod->learned);
    bool covered = elf_file_entry(&mod->elf, vaddr, &start, &end);
    if (!covered || vaddr - start > FUNCTION_BYTES)
        start = covered ? vaddr - FUNCTION_BYTES : vaddr;
    if (!covered || end - vaddr > FUNCTION_BYTES)
        end = covered ? vaddr + FUNCTION_BYTES : vaddr + 1;
    const uint64_t began = now_mono_ns();
    block_learn(t, m, vaddr & ~(BLOCK - 1));
    /* By numbers of blocks: a file may claim the last addresses there are. What takes long comes later, too. */
    for (uint64_t n = start / BLOCK; n <= (end - 1) / BLOCK && now_mono_ns() - began < t->function_ns; n++)
        block_learn(t, m, n * BLOCK);
    later_add(t, address);
}

bool rule_table_widen(struct rule_table *t, const struct mapping_table *mappings)
{
    if (t->rules == NULL || t->later_done == t->n_later)
        return false;
    const uint64_t address = t->later[t->later_done % RULE_TABLE_LATER];
    const uint32_t i = mappings_find(mappings, address);
    const struct mapping *m = i != MAPPING_NONE ? &mappings->all[i] : NULL;
    const bool has_rules = m != NULL && m->module != NULL && m->module->learned != NULL;
    bool learned = false;
    /* One block on this side, then one on the other, then the next. Most are known by what else was learned. */
    while (has_rules && !learned && t->later_blocks < AROUND_BLOCKS) {
        const uint64_t by = (t->later_blocks / 2 + 1) * BLOCK;
        learned = block_learn(t, m, (t->later_blocks++ % 2 == 0 ? address + by : address - by) - m->bias);
    }
    if (!has_rules || t->later_blocks == AROUND_BLOCKS) {
        t->later_blocks = 0;
        t->later_done++;
    }
    return true;
}

bool rule_table_learn(struct rule_table *t, const struct mapping_table *mappings, uint64_t address)
{
    static const struct learned_row by_frame_pointer = {.rule = (uint64_t)STILE__RULE_FRAME_POINTER |
                                                                (uint64_t)(uint16_t)-2 << 16};
    if (t->rules == NULL)
        return true;
    if (rule_table_has(t, address))
        return false;
    uint32_t i = mappings->view == &mappings->now ? mappings_find(mappings, address) : MAPPING_NONE;
    if (i == MAPPING_NONE) /* or gone: its rules would be in the way of what is there now */
        return true;
    const struct mapping *m = &mappings->all[i];
    if (m->module != NULL && m->bias % BLOCK == 0)
        file_learn(t, m, address);
    else if (m->module == NULL) { /* code made at run time */
        vet_mapping(t->vetting, m);
        block_publish(t, address & ~(BLOCK - 1), &by_frame_pointer, 1);
    }
    return true;
}

/* Counts the blocks with rules in a range; forgets them, too, if wanted. By what the table has: what the maps say may be
 * of any size. */
static uint64_t range_look(struct rule_table *t, uint64_t start, uint64_t end, bool forget)
{
    const uint64_t first = start >> STILE__RULES_BLOCK_BITS, last = (end - 1) >> STILE__RULES_BLOCK_BITS;
    uint64_t n = 0;
    for (uint32_t i = 0; i < STILE__RULES_CHUNKS; i++) {
        uint64_t c = atomic_load_explicit(&t->rules->chunks[i], memory_order_relaxed);
        uint64_t block = (c >> 16) * STILE__RULES_PAGE_WORDS, stop = block + STILE__RULES_PAGE_WORDS;
        if (c == 0 || (c & 0xffff) >= t->pages || block > last || stop <= first)
            continue;
        _Atomic uint32_t *words = t->rules->arena[c & 0xffff];
        for (; block < stop; block++, words++)
            if (block >= first && block <= last && atomic_load_explicit(words, memory_order_relaxed) != 0) {
                n++;
                if (forget)
                    atomic_store_explicit(words, 0, memory_order_relaxed);
            }
    }
    return n;
}

/* Looks at all ranges where a file has come or gone. (Code made at run time comes and goes all the time, and is walked
 * alike wherever it is.) */
static uint64_t changes_look(struct rule_table *t, const struct mapping_table *mappings,
                             const uint32_t *before, uint32_t n, bool forget)
{
    uint64_t found = 0;
    uint32_t i = 0, k = 0;
    while (i < n || k < mappings->now.n_live) {
        const struct mapping *old = i < n ? &mappings->all[before[i]] : NULL;
        const struct mapping *now = k < mappings->now.n_live ? &mappings->all[mappings->now.live[k]] : NULL;
        if (old != NULL && now != NULL && before[i] == mappings->now.live[k]) {
            i++;
            k++;
            continue;
        }
        bool gone = now == NULL || (old != NULL && old->start <= now->start);
        const struct mapping *m = gone ? old : now;
        if (m != NULL && m->path[0] != '\0') /* it is never NULL: for the analyzer */
            found += range_look(t, m->start, m->end, forget);
        i += gone;
        k += !gone;
    }
    return found;
}

void rule_table_follow(struct rule_table *t, const struct mapping_table *mappings,
                       const uint32_t *live_before, uint32_t n, uint32_t unloads)
{
    if (t->rules == NULL)
        return;
    uint32_t as_of = unloads / STILE__UNLOADS_ONE;
    if (changes_look(t, mappings, live_before, n, false) != 0) {
        /* First nobody uses the table, nor what was taken from it, then it changes. Another unload since the look at the
         * maps: they have to be looked at again. */
        uint32_t was =
            atomic_fetch_add_explicit(&t->region->unloads, STILE__UNLOADS_ONE, memory_order_acq_rel);
        changes_look(t, mappings, live_before, n, true);
        if (was / STILE__UNLOADS_ONE != as_of)
            return;
        as_of = (was + STILE__UNLOADS_ONE) / STILE__UNLOADS_ONE;
    }
    atomic_store_explicit(&t->region->rules_unloads, as_of, memory_order_release);
}

uint64_t rule_table_bytes(const struct rule_table *t)
{
    if (t->rules == NULL)
        return 0;
    uint64_t kinds = (t->n_kinds * sizeof(uint64_t) + STILE__PAGE - 1) / STILE__PAGE * STILE__PAGE;
    return sizeof t->rules->chunks + kinds + (uint64_t)(t->pages_used - 1) * PAGE_BYTES;
}
