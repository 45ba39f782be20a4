/* collector/rule_table.c: what the handler finds is what the CFI says, and is gone before the code is. */
#include "tests/unit/support.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "profiler/collector/cfi.h"
#include "profiler/collector/learned.h"
#include "profiler/collector/rule_table.h"

#define PAGES  4096u
#define BEHIND (1u << 20) /* bytes after a region, that are not touched */
#define BLOCK  (1ull << STILE__RULES_BLOCK_BITS)
#define CHUNK  (1ull << STILE__RULES_CHUNK_BITS)

#define BY_FRAME_POINTER stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0)

static struct mapping_table mappings;

/* A region, and the table in it. */
static struct made {
    struct stile__region_size size;
    struct stile__region *region;
    struct rule_table table;
} one, two;

static void made_map(struct made *m, uint32_t pages)
{
    m->size = (struct stile__region_size){16, 64, STILE__RING_CELLS_MIN, pages, 0, 0};
    m->region = mmap(NULL, stile__region_layout(m->size).size + BEHIND, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(m->region != MAP_FAILED);
    m->region->size = m->size;
    atomic_store(&m->region->rules_unloads, STILE__RULES_NONE);
}

static void made_open(struct made *m, uint32_t pages)
{
    made_map(m, pages);
    rule_table_open(&m->table, m->region, m->size, &mappings, atomic_load(&m->region->unloads));
    m->table.function_ns = UINT64_MAX; /* however long it takes here */
}

static void made_close(struct made *m)
{
    if (m->region == NULL)
        return;
    rule_table_close(&m->table);
    uint64_t size = stile__region_layout(m->size).size;
    for (uint64_t i = 0; i < BEHIND; i += 8)
        assert_int_equal(*(uint64_t *)(void *)((char *)m->region + size + i), 0);
    munmap(m->region, size + BEHIND);
    m->region = NULL;
}

static uint64_t find(struct made *m, uint64_t address)
{
    return stile__rules_find(stile__region_rules(m->region, m->size), m->size.rule_pages, address);
}

static bool learn(struct made *m, uint64_t address)
{
    return rule_table_learn(&m->table, &mappings, address);
}

static void maps_set(const char *text)
{
    assert_int_equal(mappings_update(&mappings, text, strlen(text), 0), 0);
}

/* As process_maps_refresh does it; unloads is what the word was before the look. */
static void follow(struct made *m, const char *text, uint32_t unloads)
{
    uint32_t before[64], n = mappings.now.n_live;
    memcpy(before, mappings.now.live, n * sizeof *before);
    maps_set(text);
    rule_table_follow(&m->table, &mappings, before, n, unloads);
}

static uint32_t unloads_of(struct made *m)
{
    return atomic_load(&m->region->unloads);
}

static bool fresh(struct made *m)
{
    return stile__rules_fresh(unloads_of(m), atomic_load(&m->region->rules_unloads));
}

static int set_up(void **state)
{
    (void)state;
    mappings_init(&mappings, getpid());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    made_close(&one);
    made_close(&two);
    mappings_free(&mappings);
    return 0;
}

static const struct mapping *mapping_of(const void *code)
{
    if (mappings.now.n_live == 0) {
        char *maps = file_text("/proc/self/maps");
        maps_set(maps);
        free(maps);
    }
    uint32_t i = mappings_find(&mappings, (uintptr_t)code);
    assert_true(i != MAPPING_NONE);
    return &mappings.all[i];
}

/* A file's line in the maps, as all there is. */
static void file_maps(const char *path, uint64_t start, uint64_t size, uint64_t offset)
{
    char line[4400];
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    snprintf(line, sizeof line, "%llx-%llx r-xp %llx %x:%x %llu %s\n", (unsigned long long)start,
             (unsigned long long)(start + size), (unsigned long long)offset, major(st.st_dev),
             minor(st.st_dev), (unsigned long long)st.st_ino, path);
    maps_set(line);
}

/* A copy of libc of which nothing is known yet, in the scratch directory, as the only mapping. */
static const struct mapping *copy_of_libc(void)
{
    char command[8300];
    const struct mapping *m = mapping_of((void *)(uintptr_t)&printf);
    snprintf(command, sizeof command, "cp '%s' '%s'", m->path, scratch_path("libc-copy.so"));
    assert_int_equal(system(command), 0);
    file_maps(scratch_path("libc-copy.so"), 0x7000000000, m->end - m->start, m->offset);
    m = &mappings.all[mappings.now.live[0]];
    assert_true(mappings.now.n_live == 1 && m->module != NULL);
    return m;
}

/* What is found for a mapping is what the CFI says, or nothing. Returns how many rows were found. */
static uint64_t found_check(struct made *made, const struct mapping *m)
{
    struct cfi *cfi = cfi_open(&m->module->elf);
    uint64_t found = 0;
    for (uint64_t at = m->start; at < m->end;) {
        uint64_t block_end = (at & ~(BLOCK - 1)) + BLOCK;
        struct cfi_row row = cfi_row_at(cfi, &m->module->elf, at - m->bias, block_end - m->bias);
        uint64_t rule = find(made, at), next = row.end + m->bias;
        assert_true(rule == 0 || rule == row.rule);
        assert_int_equal(find(made, next - 1), rule);
        found += rule != 0;
        at = next;
    }
    cfi_close(cfi);
    return found;
}

static uint64_t rows_of(const struct mapping *m)
{
    struct cfi *cfi = cfi_open(&m->module->elf);
    uint64_t rows = 0;
    for (uint64_t at = m->start; at < m->end; rows++)
        at = cfi_row_at(cfi, &m->module->elf, at - m->bias, (at & ~(BLOCK - 1)) + BLOCK - m->bias).end +
             m->bias;
    cfi_close(cfi);
    return rows;
}

/* Learns all code of a mapping. */
static void mapping_learn(struct made *made, const struct mapping *m)
{
    for (uint64_t at = m->start; at < m->end; at += BLOCK)
        learn(made, at);
}

static void test_a_whole_library(void **state)
{
    const struct mapping *m = mapping_of((void *)(uintptr_t)&printf);
    (void)state;
    made_open(&one, PAGES);
    assert_true(fresh(&one));
    assert_int_equal(found_check(&one, m), 0);
    mapping_learn(&one, m);
    uint64_t rows = rows_of(m);
    assert_true(rows > 10000);
    assert_int_equal(found_check(&one, m), rows);
    assert_int_equal(find(&one, m->start - 1), 0);
    assert_int_equal(find(&one, m->end), 0);
    for (uint64_t at = m->start; at < m->end; at += BLOCK)
        assert_false(learn(&one, at));
    uint64_t bytes = rule_table_bytes(&one.table);
    assert_true(bytes > rows * 4 / 2 && bytes < 4u << 20);
    /* Another process that maps it has the rules from the start. */
    made_open(&two, PAGES);
    assert_int_equal(found_check(&two, m), rows);
    assert_false(learn(&two, m->start));
    assert_true(rule_table_bytes(&two.table) <= bytes);
    /* What the one learns later, the other learns without the file. */
    const struct mapping *own = mapping_of((void *)(uintptr_t)&test_a_whole_library);
    assert_true(learn(&one, (uintptr_t)&test_a_whole_library));
    assert_true(learn(&two, (uintptr_t)&test_a_whole_library));
    found_check(&one, own);
    found_check(&two, own);
    assert_int_not_equal(find(&two, (uintptr_t)&test_a_whole_library), 0);
}

/* The first function of a file that has more than, and less than, so many bytes. */
static void function_find(const struct mapping *m, uint64_t more_than, uint64_t less_than, uint64_t *start,
                          uint64_t *end)
{
    for (*start = m->start - m->bias; *start < m->end - m->bias; *start = *end)
        if (elf_file_entry(&m->module->elf, *start, start, end) && *end - *start > more_than &&
            *end - *start < less_than)
            break;
    assert_true(*start < m->end - m->bias);
}

/* A function is learned whole, from any of its addresses; what is around it comes later, and what is far does not. */
static void test_a_function(void **state)
{
    uint64_t start, end, bias = mapping_of((void *)(uintptr_t)&vfprintf)->bias;
    (void)state;
    scratch_make();
    const struct mapping *m = copy_of_libc();
    uint64_t at = (uintptr_t)&vfprintf - bias + m->bias;
    made_open(&one, PAGES);
    assert_true(learn(&one, at + 50));
    assert_true(elf_file_entry(&m->module->elf, at - m->bias, &start, &end));
    for (uint64_t k = start; k < end && k < start + 4096; k++)
        assert_int_not_equal(find(&one, k + m->bias), 0);
    assert_int_equal(find(&one, end + m->bias + 2 * BLOCK), 0);
    assert_int_equal(find(&one, start + m->bias - 2 * BLOCK), 0);
    unsigned steps = 0;
    while (rule_table_widen(&one.table, &mappings))
        steps++;
    assert_true(steps > 2 && steps < 1000);
    for (uint64_t by = 0; by <= 16384 - BLOCK; by += BLOCK) {
        assert_int_not_equal(find(&one, at + by), 0);
        assert_int_not_equal(find(&one, at - by), 0);
    }
    assert_int_equal(find(&one, at + 16384 + 4096 + 2 * BLOCK), 0);
    assert_int_equal(find(&one, at - 16384 - 2 * BLOCK), 0);
    assert_false(learn(&one, at));
    /* A large one, from its middle: as far as is near. */
    function_find(m, 12000, UINT64_MAX, &start, &end);
    uint64_t middle = (start + (end - start) / 2) + m->bias;
    learn(&one, middle);
    for (uint64_t k = middle - 4096; k < middle + 4096; k += BLOCK)
        assert_int_not_equal(find(&one, k), 0);
    assert_int_equal(find(&one, start + m->bias + BLOCK), 0);
    assert_int_equal(find(&one, end + m->bias - BLOCK), 0);
    found_check(&one, m);
    scratch_remove();
}

/* When time is up, the rest of a function comes later. */
static void test_a_function_that_takes_long(void **state)
{
    uint64_t start, end;
    (void)state;
    scratch_make();
    const struct mapping *m = copy_of_libc();
    made_open(&one, PAGES);
    one.table.function_ns = 0;
    function_find(m, 4 * BLOCK, 4096, &start, &end);
    assert_true(learn(&one, start + m->bias));
    assert_int_not_equal(find(&one, start + m->bias), 0);
    assert_int_equal(find(&one, start + m->bias + 2 * BLOCK), 0);
    while (rule_table_widen(&one.table, &mappings))
        ;
    for (uint64_t k = start; k < end; k++)
        assert_int_not_equal(find(&one, k + m->bias), 0);
    found_check(&one, m);
    scratch_remove();
}

static const char made_up[] = "10000000-10100000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
                              "20000000-20100000 r-xp 00000000 08:01 6 /nonexistent/b.so\n"
                              "30000000-30100000 rwxp 00000000 00:00 0 \n";

static void test_code_without_a_file(void **state)
{
    (void)state;
    maps_set(made_up);
    made_open(&one, PAGES);
    static const uint64_t places[] = {0x30000000, 0x30000280, 0x300fffff, 0x20012345, 0x10000000};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        assert_int_equal(find(&one, places[i]), 0);
        learn(&one, places[i]);
        for (uint64_t at = places[i] & ~(BLOCK - 1), k = 0; k < BLOCK; k++)
            assert_int_equal(find(&one, at + k), BY_FRAME_POINTER);
        assert_false(learn(&one, places[i]));
    }
    assert_int_equal(find(&one, 0x30000000 + BLOCK), 0);
    /* Nothing is there: asked for in vain, again and again. */
    static const uint64_t nowhere[] = {0, 0x0fffffff, 0x10100000, 0x30100000, UINT64_MAX};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        assert_true(learn(&one, nowhere[i]));
        assert_true(learn(&one, nowhere[i]));
        assert_int_equal(find(&one, nowhere[i]), 0);
    }
}

static void test_no_table(void **state)
{
    const struct mapping *m = mapping_of((void *)(uintptr_t)&printf);
    (void)state;
    made_open(&one, 0);
    assert_true(learn(&one, m->start));
    assert_true(learn(&one, m->start));
    rule_table_follow(&one.table, &mappings, mappings.now.live, mappings.now.n_live, 0);
    assert_int_equal(atomic_load(&one.region->rules_unloads), STILE__RULES_NONE);
    assert_int_equal(rule_table_bytes(&one.table), 0);
}

/* However little room there is: rules that are right, or none. */
static void test_small_arenas(void **state)
{
    scratch_make();
    const struct mapping *m = copy_of_libc();
    uint64_t before = 0;
    (void)state;
    for (uint32_t pages = 1; pages < 40; pages += pages < 8 ? 1 : 7) {
        made_open(&one, pages);
        mapping_learn(&one, m);
        uint64_t found = found_check(&one, m);
        assert_true(found >= before);
        assert_true(pages > 2 || found == 0); /* one for the chunk, and one for its rows */
        assert_true(pages < 3 || found > 0);
        before = found;
        made_close(&one);
    }
    scratch_remove();
}

static void test_all_kinds_are_used(void **state)
{
    scratch_make();
    const struct mapping *m = copy_of_libc();
    (void)state;
    made_open(&one, PAGES);
    const struct stile__rules *rules = stile__region_rules(one.region, one.size);
    one.table.n_kinds = STILE__RULES_KINDS - 3;
    /* Where the next page of them begins is not there yet. */
    assert_int_equal(madvise((char *)((uintptr_t)&rules->kinds[one.table.n_kinds] & ~4095ul), STILE__PAGE,
                             MADV_POPULATE_WRITE),
                     0);
    const uint32_t behind = atomic_load(&rules->arena[0][0]);
    mapping_learn(&one, m);
    assert_int_equal(one.table.n_kinds, STILE__RULES_KINDS);
    uint64_t found = found_check(&one, m);
    assert_true(found > 0 && found < rows_of(m));
    assert_int_equal(atomic_load(&rules->arena[0][0]), behind);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_not_equal(rules->kinds[STILE__RULES_KINDS - 3 + i], 0);
    scratch_remove();
}

/* More code than there are chunks: none has another's rules. */
static void test_all_chunks_are_used(void **state)
{
    const uint32_t n = 3000;
    char *text = malloc(n * (size_t)64), *at = text;
    uint32_t found = 0;
    (void)state;
    assert_non_null(text);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = 0x100000000 + i * 5 * CHUNK; /* every other code is the next one's neighbour */
        at += sprintf(at, "%llx-%llx rwxp 00000000 00:00 0 \n", (unsigned long long)start,
                      (unsigned long long)start + 0x1000);
    }
    maps_set(text);
    free(text);
    made_open(&one, PAGES);
    for (uint64_t i = 0; i < n; i++)
        learn(&one, 0x100000000 + i * 5 * CHUNK + 256);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = 0x100000000 + i * 5 * CHUNK, rule = find(&one, start + 256);
        assert_true(rule == 0 || rule == BY_FRAME_POINTER);
        found += rule != 0;
        for (uint64_t k = 0; k < 5; k++)
            assert_int_equal(find(&one, start + k * CHUNK), 0);
    }
    assert_true(found > STILE__RULES_CHUNKS * 3 / 4 && found <= STILE__RULES_CHUNKS);
    /* A scribble that says that all are taken. */
    made_close(&one);
    made_open(&one, PAGES);
    for (uint32_t i = 0; i < STILE__RULES_CHUNKS; i++)
        atomic_store(&stile__region_rules(one.region, one.size)->chunks[i], UINT64_MAX);
    assert_true(learn(&one, 0x100000000));
    assert_int_equal(find(&one, 0x100000000), 0);
}

static void all_learned(struct made *m)
{
    learn(m, 0x10000000);
    learn(m, 0x100fff00);
    learn(m, 0x20000000);
    learn(m, 0x30000000);
}

static void found_are(bool a, bool a_end, bool b, bool code)
{
    assert_int_equal(find(&one, 0x10000000) != 0, a);
    assert_int_equal(find(&one, 0x100fffff) != 0, a_end);
    assert_int_equal(find(&one, 0x20000000) != 0, b);
    assert_int_equal(find(&one, 0x30000000) != 0, code);
}

static void test_files_that_come_and_go(void **state)
{
    (void)state;
    maps_set(made_up);
    made_map(&one, PAGES);
    atomic_store(&one.region->unloads, 5 * STILE__UNLOADS_ONE);
    assert_false(fresh(&one));
    rule_table_open(&one.table, one.region, one.size, &mappings, 5 * STILE__UNLOADS_ONE);
    assert_true(fresh(&one));
    all_learned(&one);
    found_are(true, true, true, true);
    /* All stay. */
    follow(&one, made_up, unloads_of(&one));
    found_are(true, true, true, true);
    assert_int_equal(unloads_of(&one), 5 * STILE__UNLOADS_ONE);
    /* Another comes, where no rules are. */
    follow(&one,
           "10000000-10100000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
           "10100000-10200000 r-xp 00000000 08:01 9 /nonexistent/c.so\n"
           "20000000-20100000 r-xp 00000000 08:01 6 /nonexistent/b.so\n"
           "30000000-30100000 rwxp 00000000 00:00 0 \n",
           unloads_of(&one));
    found_are(true, true, true, true);
    assert_int_equal(unloads_of(&one), 5 * STILE__UNLOADS_ONE);
    /* The first goes. */
    follow(&one, strchr(made_up, '\n') + 1, unloads_of(&one));
    found_are(false, false, true, true);
    assert_int_equal(unloads_of(&one), 6 * STILE__UNLOADS_ONE);
    assert_true(fresh(&one));
    /* It comes back. Code made at run time goes: that is walked alike wherever it is. */
    follow(&one,
           "10000000-10100000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
           "20000000-20100000 r-xp 00000000 08:01 6 /nonexistent/b.so\n",
           unloads_of(&one));
    found_are(false, false, true, true);
    assert_int_equal(unloads_of(&one), 6 * STILE__UNLOADS_ONE);
    all_learned(&one);
    /* A file where it was. */
    follow(&one,
           "10000000-10100000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
           "20000000-20100000 r-xp 00000000 08:01 6 /nonexistent/b.so\n"
           "30000000-30100000 r-xp 00000000 08:01 7 /nonexistent/c.so\n",
           unloads_of(&one));
    found_are(true, true, true, false);
    assert_int_equal(unloads_of(&one), 7 * STILE__UNLOADS_ONE);
    /* One file for another at the same place; one that shrinks. */
    all_learned(&one);
    follow(&one,
           "10000000-10080000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
           "20000000-20100000 r-xp 00000000 08:01 8 /nonexistent/d.so\n"
           "30000000-30100000 r-xp 00000000 08:01 7 /nonexistent/c.so\n",
           unloads_of(&one));
    found_are(false, false, false, true);
    assert_int_equal(unloads_of(&one), 8 * STILE__UNLOADS_ONE); /* a look, not a file */
    assert_true(fresh(&one));
    /* And learned again. */
    all_learned(&one);
    found_are(true, false, true, true);
}

#define LINE_A "10000000-10001000 r-xp 00000000 08:01 5 /nonexistent/a.so\n"
#define LINE_B "10001000-10002000 r-xp 00000000 08:01 6 /nonexistent/b.so\n"
#define LINE_C "10002000-10003000 r-xp 00000000 08:01 7 /nonexistent/c.so\n"

/* Neighbours in one chunk: what goes takes its own rules with it, and no others. */
static void test_neighbours(void **state)
{
    (void)state;
    maps_set(LINE_A LINE_B LINE_C);
    made_open(&one, PAGES);
    for (uint64_t at = 0x10000000; at < 0x10003000; at += BLOCK)
        assert_true(learn(&one, at));
    follow(&one, LINE_A LINE_C, unloads_of(&one));
    for (uint64_t at = 0x10000000; at < 0x10003000; at += BLOCK)
        assert_int_equal(find(&one, at), at / 4096 == 0x10001 ? 0 : BY_FRAME_POINTER);
    assert_int_equal(unloads_of(&one), STILE__UNLOADS_ONE);
}

/* What the agent counts while the collector looks. */
static void test_unloads_in_between(void **state)
{
    const char *without_a = strchr(made_up, '\n') + 1;
    (void)state;
    maps_set(made_up);
    made_open(&one, PAGES);
    all_learned(&one);
    /* Somebody is in dlclose during a look that sees nothing. */
    atomic_fetch_add(&one.region->unloads, 1);
    follow(&one, made_up, unloads_of(&one));
    assert_false(fresh(&one));
    uint32_t word = unloads_of(&one);
    atomic_fetch_add(&one.region->unloads, STILE__UNLOADS_ONE - 1); /* and has come out of it */
    assert_false(fresh(&one));
    follow(&one, made_up, word); /* this look may have been before that */
    assert_false(fresh(&one));
    found_are(true, true, true, true);
    follow(&one, made_up, unloads_of(&one));
    assert_true(fresh(&one));
    /* The same with a look that sees it gone: it says nothing of what has gone since. */
    word = unloads_of(&one);
    atomic_fetch_add(&one.region->unloads, STILE__UNLOADS_ONE);
    follow(&one, without_a, word);
    found_are(false, false, true, true);
    assert_false(fresh(&one));
    assert_int_equal(unloads_of(&one), word + 2 * STILE__UNLOADS_ONE);
    follow(&one, without_a, unloads_of(&one));
    assert_true(fresh(&one));
    /* Who is in dlclose stays in it. */
    follow(&one, made_up, unloads_of(&one));
    all_learned(&one);
    atomic_fetch_add(&one.region->unloads, 3);
    follow(&one, without_a, unloads_of(&one));
    assert_int_equal(unloads_of(&one) % STILE__UNLOADS_ONE, 3);
    assert_false(fresh(&one));
    atomic_fetch_sub(&one.region->unloads, 3);
    assert_true(fresh(&one));
}

/* Ends the test if it takes too long. */
static void soon(void (*fn)(void))
{
    alarm(60);
    fn();
    alarm(0);
}

static void claims(void)
{
    static const char *const lines[] = {
        "0-ffffffffffffffff r-xp 00000000 08:01 6 /nonexistent/b.so\n",
        "1-ffffffffffffff01 r-xp 00000000 08:01 6 /nonexistent/b.so\n",
        "ffffffffffffff00-ffffffffffffffff r-xp 00000000 08:01 6 /nonexistent/b.so\n",
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
        "30000000-30100000 r-xp 00000000 08:01 6 b\n"
        "10000000-10100000 r-xp 00000000 08:01 6 a\n", /* in no order */
        "0fffffff-30000080 r-xp 00000000 08:01 7 /nonexistent/c.so\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        follow(&one, made_up, unloads_of(&one));
        all_learned(&one);
        follow(&one, lines[i], unloads_of(&one));
        found_are(false, false, false, i == 2 || i == 3);
        static const uint64_t places[] = {0, 1, 0x10000000, UINT64_MAX, UINT64_MAX - 1, 1ull << 63};
        for (size_t k = 0; k < sizeof places / sizeof *places; k++)
            learn(&one, places[k]);
    }
    follow(&one, made_up, unloads_of(&one));
    found_are(false, false, false, false);
}

static void test_maps_that_claim_anything(void **state)
{
    (void)state;
    maps_set(made_up);
    made_open(&one, PAGES);
    soon(claims);
    /* And a table that claims pages that are not there. */
    all_learned(&one);
    for (uint32_t i = 0; i < STILE__RULES_CHUNKS; i++)
        atomic_fetch_or(&stile__region_rules(one.region, one.size)->chunks[i], 0xffff);
    follow(&one, strchr(made_up, '\n') + 1, unloads_of(&one));
    found_are(false, false, false, false);
}

static void elf_write(const char *path, uint64_t vaddr)
{
    struct {
        Elf64_Ehdr eh;
        Elf64_Phdr ph;
        char code[4096];
    } file = {
        .eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
               .e_type = ET_DYN,
               .e_machine = EM_X86_64,
               .e_phoff = sizeof(Elf64_Ehdr),
               .e_phentsize = sizeof(Elf64_Phdr),
               .e_phnum = 1},
        .ph = {
            .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = vaddr, .p_filesz = 4096, .p_memsz = 4096}};
    file_write(path, &file, sizeof file);
}

static void learn_at_the_end(void)
{
    for (uint64_t at = 0; at < 4096; at += 100)
        learn(&one, 0x10000000 + at);
    learn(&one, 0x10000fff);
}

static void test_a_file_that_claims_the_last_addresses(void **state)
{
    (void)state;
    scratch_make();
    elf_write(scratch_path("high.so"), UINT64_MAX - 4095);
    file_maps(scratch_path("high.so"), 0x10000000, 4096, 0);
    made_open(&one, PAGES);
    soon(learn_at_the_end);
    assert_int_equal(find(&one, 0x10000123), BY_FRAME_POINTER);
    scratch_remove();
}

/* Blocks of the file that lie across those of the table are not published, whoever has learned them. */
static void test_a_file_that_lies_askew(void **state)
{
    (void)state;
    scratch_make();
    elf_write(scratch_path("askew.so"), 0x1000);
    file_maps(scratch_path("askew.so"), 0x10000000, 4096, 0);
    made_open(&one, PAGES);
    learn(&one, 0x10000800);
    assert_int_equal(find(&one, 0x10000800), BY_FRAME_POINTER);
    file_maps(scratch_path("askew.so"), 0x20000080, 4096, 0);
    made_open(&two, PAGES);
    for (uint64_t at = 0x20000000; at < 0x20001100; at++)
        assert_int_equal(find(&two, at), 0);
    learn(&two, 0x20000800);
    assert_int_equal(find(&two, 0x20000800), 0);
    scratch_remove();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_whole_library),
        TEST(test_a_function),
        TEST(test_a_function_that_takes_long),
        TEST(test_code_without_a_file),
        TEST(test_no_table),
        TEST(test_small_arenas),
        TEST(test_all_kinds_are_used),
        TEST(test_all_chunks_are_used),
        TEST(test_files_that_come_and_go),
        TEST(test_neighbours),
        TEST(test_unloads_in_between),
        TEST(test_maps_that_claim_anything),
        TEST(test_a_file_that_claims_the_last_addresses),
        TEST(test_a_file_that_lies_askew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
