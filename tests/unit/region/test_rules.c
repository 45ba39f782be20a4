/* region/rules.h: rules in a word, and what is found in a table, right or scribbled. The table lies between pages that
 * cannot be read, so that a read beside it ends the test. */
#include "tests/unit/support.h"

#include <string.h>
#include <sys/mman.h>

#include "profiler/region/layout.h"

#define PAGES 8u
#define BLOCK (1ull << STILE__RULES_BLOCK_BITS)
#define CHUNK (1ull << STILE__RULES_CHUNK_BITS)
#define BASE  0x7f1234500000ull /* the start of a chunk */

static struct stile__rules *table;
static uint64_t numbers;

static int set_up(void **state)
{
    uint64_t bytes = stile__rules_bytes(PAGES);
    (void)state;
    char *at = mmap(NULL, bytes + 2 * (size_t)STILE__PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at + STILE__PAGE, bytes, PROT_READ | PROT_WRITE) != 0)
        return -1;
    table = (struct stile__rules *)(void *)(at + STILE__PAGE);
    numbers = 11;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap((char *)table - STILE__PAGE, stile__rules_bytes(PAGES) + 2 * (size_t)STILE__PAGE);
}

static void chunk_put(uint32_t slot, uint64_t address, uint32_t page)
{
    atomic_store(&table->chunks[slot % STILE__RULES_CHUNKS], address >> STILE__RULES_CHUNK_BITS << 16 | page);
}

/* The word for a block of the chunk that has a page. */
static void block_put(uint32_t page, uint32_t block, uint32_t first, uint32_t n)
{
    atomic_store(&table->arena[page][block], first << 8 | n);
}

static void row_put(uint32_t row, uint32_t byte, uint32_t number)
{
    atomic_store(&table->arena[row / STILE__RULES_PAGE_WORDS][row % STILE__RULES_PAGE_WORDS],
                 byte << 24 | number);
}

static uint64_t find(uint64_t address)
{
    return stile__rules_find(table, PAGES, address);
}

static void test_a_rule_in_a_word(void **state)
{
    static const int32_t offsets[] = {0, 8, -8, 16, INT32_MAX, INT32_MIN, -1, 1};
    static const int16_t saved[] = {0, -2, 1, INT16_MAX, STILE__RULE_LOST, -1};
    static const int8_t extras[] = {0, 1, -1, INT8_MAX, INT8_MIN, 16};
    (void)state;
    for (int op = 0; op < STILE__RULE_OPS; op++)
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++)
            for (size_t k = 0; k < sizeof saved / sizeof *saved; k++)
                for (size_t m = 0; m < sizeof extras / sizeof *extras; m++) {
                    uint64_t rule =
                        stile__rule_make((enum stile__rule_op)op, offsets[i], saved[k], extras[m]);
                    for (unsigned base = 0; base < 2; base++) {
                        assert_int_equal(stile__rule_op(rule), op);
                        assert_int_equal(stile__rule_offset(rule), offsets[i]);
                        assert_int_equal(stile__rule_saved(rule), saved[k]);
                        assert_int_equal(stile__rule_extra(rule), extras[m]);
                        assert_int_equal(rule & STILE__RULE_AT_BASE, base * STILE__RULE_AT_BASE);
                        rule |= STILE__RULE_AT_BASE; /* touches nothing else */
                    }
                }
    assert_true(STILE__RULE_OPS <= 16);
    assert_int_equal(stile__rule_make(STILE__RULE_NONE, 0, 0, 0), 0);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(stile__rules_bytes(0), 0);
    assert_int_equal(stile__rules_bytes(1), sizeof(struct stile__rules) + STILE__PAGE);
    assert_int_equal(sizeof(struct stile__rules) % STILE__PAGE, 0);
    assert_int_equal(STILE__RULES_PAGE_WORDS * BLOCK, CHUNK);
    assert_true(STILE__RULES_PAGES_MAX <= UINT16_MAX);
    /* Every row of the largest arena has a number. */
    assert_true((uint64_t)STILE__RULES_PAGES_MAX * STILE__RULES_PAGE_WORDS <= 1u << 24);
}

static void test_rows_of_a_block(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < 5; i++)
        table->kinds[i] = stile__rule_make(STILE__RULE_RSP, 8 * (int32_t)i, 0, 0);
    chunk_put(stile__rules_hash(BASE >> STILE__RULES_CHUNK_BITS), BASE, 1);
    /* The first, the last and one in between; the last one's rows end with the arena. */
    row_put(2048, 0, 1);
    row_put(2049, 100, 2);
    row_put(2050, 101, 3);
    row_put(2051, 255, 4);
    row_put(PAGES * STILE__RULES_PAGE_WORDS - 2, 0, 4);
    row_put(PAGES * STILE__RULES_PAGE_WORDS - 1, 128, 3);
    block_put(1, 0, 2048, 4);
    block_put(1, 7, 2048, 1);
    block_put(1, STILE__RULES_PAGE_WORDS - 1, PAGES * STILE__RULES_PAGE_WORDS - 2, 2);
    for (uint32_t byte = 0; byte < BLOCK; byte++) {
        assert_int_equal(find(BASE + byte), table->kinds[byte < 100   ? 1
                                                         : byte < 101 ? 2
                                                         : byte < 255 ? 3
                                                                      : 4]);
        assert_int_equal(find(BASE + BLOCK + byte), 0);
        assert_int_equal(find(BASE + 7 * BLOCK + byte), table->kinds[1]);
        assert_int_equal(find(BASE + CHUNK - BLOCK + byte), table->kinds[byte < 128 ? 4 : 3]);
    }
    assert_int_equal(find(BASE - 1), 0);
    assert_int_equal(find(BASE + CHUNK), 0);
    assert_int_equal(find(BASE ^ 1ull << 46), 0); /* the same place in the hash or not, another chunk */
    assert_int_equal(find(0), 0);
    assert_int_equal(find(UINT64_MAX), 0);
}

/* Chunks whose place is taken lie after it, round the end, as far as is looked. */
static void test_chunks_that_collide(void **state)
{
    static const uint64_t homes[] = {5, STILE__RULES_CHUNKS - 3};
    (void)state;
    table->kinds[1] = STILE__RULE_END;
    row_put(2048, 0, 1);
    for (size_t h = 0; h < 2; h++) {
        uint64_t chunk[STILE__RULES_PROBES + 1];
        uint32_t n = 0;
        for (uint64_t c = 1; n <= STILE__RULES_PROBES; c++)
            if (stile__rules_hash(c) == homes[h])
                chunk[n++] = c;
        memset((void *)table->chunks, 0, sizeof table->chunks);
        for (uint32_t i = 0; i <= STILE__RULES_PROBES; i++)
            chunk_put((uint32_t)homes[h] + i, chunk[i] << STILE__RULES_CHUNK_BITS, 1);
        block_put(1, 3, 2048, 1);
        for (uint32_t i = 0; i < STILE__RULES_PROBES; i++)
            assert_int_equal(find((chunk[i] << STILE__RULES_CHUNK_BITS) + 3 * BLOCK), STILE__RULE_END);
        assert_int_equal(find((chunk[STILE__RULES_PROBES] << STILE__RULES_CHUNK_BITS) + 3 * BLOCK), 0);
        /* A free place ends the search. */
        atomic_store(&table->chunks[(homes[h] + 4) % STILE__RULES_CHUNKS], 0);
        assert_int_equal(find((chunk[3] << STILE__RULES_CHUNK_BITS) + 3 * BLOCK), STILE__RULE_END);
        assert_int_equal(find((chunk[5] << STILE__RULES_CHUNK_BITS) + 3 * BLOCK), 0);
    }
}

static void test_numbers_out_of_range(void **state)
{
    const uint32_t slot = stile__rules_hash(BASE >> STILE__RULES_CHUNK_BITS);
    const uint32_t rows = PAGES * STILE__RULES_PAGE_WORDS;
    (void)state;
    table->kinds[1] = table->kinds[STILE__RULES_KINDS - 1] = STILE__RULE_END;
    for (uint32_t i = 0; i < 4; i++) /* what lies behind the rules is not one */
        row_put(i, 0, STILE__RULE_END);
    row_put(rows - 1, 0, 1);
    row_put(2048, 0, STILE__RULES_KINDS - 1);
    row_put(2049, 0, STILE__RULES_KINDS);
    row_put(2050, 0, 0xffffff);
    row_put(2051, 1, 1); /* that starts late */
    chunk_put(slot, BASE, 1);
    static const struct {
        uint32_t first, n;
        uint64_t rule;
    } words[] = {{PAGES * STILE__RULES_PAGE_WORDS - 1, 1, STILE__RULE_END},
                 {PAGES * STILE__RULES_PAGE_WORDS - 1, 2, 0},
                 {PAGES * STILE__RULES_PAGE_WORDS, 1, 0},
                 {PAGES * STILE__RULES_PAGE_WORDS - 1, 255, 0},
                 {0xffffff, 255, 0},
                 {2048, 0, 0},
                 {2048, 1, STILE__RULE_END},
                 {2049, 1, 0},
                 {2050, 1, 0},
                 {2051, 1, 0}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        block_put(1, 0, words[i].first, words[i].n);
        assert_int_equal(find(BASE), words[i].rule);
    }
    block_put(1, 0, rows - 1, 1);
    chunk_put(slot, BASE, PAGES);
    assert_int_equal(find(BASE), 0);
    chunk_put(slot, BASE, 0xffff);
    assert_int_equal(find(BASE), 0);
    chunk_put(slot, BASE, 1);
    assert_int_equal(find(BASE), STILE__RULE_END);
    assert_int_equal(stile__rules_find(table, 1, BASE), 0); /* a smaller table */
}

/* Whatever lies in the table, reads stay in it. */
static void test_scribbled_tables(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        uint64_t bytes = stile__rules_bytes(PAGES), *words = (uint64_t *)(void *)table;
        for (uint64_t i = 0; i < bytes / 8; i++)
            words[i] = next_number(&numbers);
        for (unsigned i = 0; i < STILE__RULES_CHUNKS; i++) { /* many that are found */
            uint64_t chunk = BASE / CHUNK + i, page = next_number(&numbers) % (2 * PAGES);
            atomic_store(&table->chunks[stile__rules_hash(chunk)], chunk << 16 | page);
        }
        for (unsigned i = 0; i < 20000; i++) {
            uint64_t address = BASE + next_number(&numbers) % (STILE__RULES_CHUNKS * CHUNK);
            find(address);
            find(next_number(&numbers));
        }
    }
}

static void test_fresh(void **state)
{
    (void)state;
    assert_true(stile__rules_fresh(0, 0));
    assert_true(stile__rules_fresh(7 * STILE__UNLOADS_ONE, 7));
    assert_false(stile__rules_fresh(7 * STILE__UNLOADS_ONE, 6));
    assert_false(stile__rules_fresh(7 * STILE__UNLOADS_ONE, 8));
    assert_false(stile__rules_fresh(7 * STILE__UNLOADS_ONE + 1, 7)); /* somebody is in dlclose */
    assert_false(stile__rules_fresh(7 * STILE__UNLOADS_ONE + 255, 7));
    for (uint32_t n = 0; n < 32; n++)
        assert_false(stile__rules_fresh(1u << n, STILE__RULES_NONE));
    assert_false(stile__rules_fresh(0, STILE__RULES_NONE));
    assert_false(stile__rules_fresh(UINT32_MAX, STILE__RULES_NONE));
    assert_false(stile__rules_fresh(UINT32_MAX & ~(STILE__UNLOADS_ONE - 1), STILE__RULES_NONE));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_rule_in_a_word),
        TEST(test_sizes),
        TEST(test_rows_of_a_block),
        TEST(test_chunks_that_collide),
        TEST(test_numbers_out_of_range),
        TEST(test_scribbled_tables),
        TEST(test_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
