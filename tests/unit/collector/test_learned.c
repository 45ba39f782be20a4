/* collector/learned.c: blocks of rows say what the CFI says, once it was asked. */
#include "tests/unit/support.h"

#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <unistd.h>

#include "profiler/collector/cfi.h"
#include "profiler/collector/learned.h"
#include "profiler/region/rules.h"

#define BLOCK (1ull << STILE__RULES_BLOCK_BITS)

/* A block in which each byte has a rule of its own, and one in which the last two share theirs. */
__asm__(".pushsection .text\n .balign 256\n .globl all_differ\n .type all_differ, @function\n all_differ:\n"
        ".cfi_startproc\n .rept 256\n .cfi_adjust_cfa_offset 8\n nop\n .endr\n"
        ".rept 254\n .cfi_adjust_cfa_offset 8\n nop\n .endr\n .cfi_adjust_cfa_offset 8\n nop\n nop\n"
        ".cfi_endproc\n .size all_differ, 512\n .popsection");
extern const char all_differ[] __attribute__((visibility("hidden")));

static struct elf_file elf;
static struct cfi *cfi;
static struct learned *learned;

static int set_up(void **state)
{
    (void)state;
    elf_file_open(&elf, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), NULL, 0);
    cfi = cfi_open(&elf);
    learned = learned_new(&elf);
    return cfi == NULL || learned == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    learned_free(learned);
    cfi_close(cfi);
    elf_file_close(&elf);
    return 0;
}

static uint64_t vaddr_of(const void *at)
{
    return (uintptr_t)at - _r_debug.r_map->l_addr;
}

/* A block's rows begin with its first byte, ascend, and differ; each byte has the rule of the CFI. */
static void block_check(const struct learned_block *b)
{
    const struct learned_row *rows = learned_rows(learned, b);
    uint64_t at = b->number * BLOCK;
    uint32_t k = 0;

    assert_true(b->n >= 1 && b->n <= STILE__RULES_ROWS_MAX);
    assert_int_equal(rows[0].byte, 0);
    for (uint32_t i = 1; i < b->n; i++) {
        assert_true(rows[i].byte > rows[i - 1].byte && rows[i].byte < BLOCK);
        assert_int_not_equal(rows[i].rule, rows[i - 1].rule);
    }
    for (uint32_t byte = 0; byte < BLOCK; byte++) {
        k += k + 1 < b->n && rows[k + 1].byte == byte;
        assert_int_equal(rows[k].rule, cfi_row_at(cfi, &elf, at + byte, at + BLOCK).rule);
    }
}

/* All code of the program, and what lies before, between and behind it. */
static void test_every_byte(void **state)
{
    size_t n = 0, known;
    (void)state;
    for (unsigned i = 0; i < elf.n_segments; i++) {
        const struct elf_segment *s = &elf.segments[i];
        for (uint64_t at = s->vaddr; s->exec && at < s->vaddr + s->memsz; at += BLOCK) {
            if (at / BLOCK == vaddr_of(all_differ) / BLOCK)
                continue;
            const struct learned_block *b = learned_get(learned, at + at % 251);
            assert_non_null(b);
            assert_int_equal(b->number, (at + at % 251) / BLOCK);
            block_check(b);
            n++;
        }
    }
    const struct learned_block *all = learned_all(learned, &known);
    assert_true(n > 100);
    assert_true(known <= n && known + 8 > n); /* segments meet in a block */
    for (size_t i = 0; i < known; i++)
        block_check(&all[i]);
}

static void test_once(void **state)
{
    uint64_t at = vaddr_of((void *)(uintptr_t)&test_once);
    size_t n;
    (void)state;
    learned_all(learned, &n);
    assert_int_equal(n, 0);
    const struct learned_block *b = learned_get(learned, at);
    uint32_t first = b->first, rows = b->n;
    for (uint64_t k = at & ~(BLOCK - 1); k < (at & ~(BLOCK - 1)) + BLOCK; k++) {
        b = learned_get(learned, k);
        assert_int_equal(b->first, first);
        assert_int_equal(b->n, rows);
    }
    learned_all(learned, &n);
    assert_int_equal(n, 1);
    learned_get(learned, at + BLOCK);
    learned_all(learned, &n);
    assert_int_equal(n, 2);
}

static void test_too_many_rows(void **state)
{
    uint64_t at = vaddr_of(all_differ);
    (void)state;
    assert_int_equal(at % BLOCK, 0);
    const struct learned_block *b = learned_get(learned, at + 7);
    assert_int_equal(b->n, 1);
    assert_int_equal(learned_rows(learned, b)->byte, 0);
    assert_int_equal(learned_rows(learned, b)->rule, STILE__RULE_OTHER);
    b = learned_get(learned, at + BLOCK);
    assert_int_equal(b->n, STILE__RULES_ROWS_MAX);
    block_check(b);
    /* What was read in vain does not stay in the way. */
    b = learned_get(learned, at);
    assert_int_equal(b->n, 1);
    assert_int_equal(learned_rows(learned, b)->rule, STILE__RULE_OTHER);
}

/* Whether a function reads its own return address is not asked where there will be no barrier. */
static void test_a_file_without_barriers(void **state)
{
    uint64_t at = vaddr_of(test_once);
    unsigned marked = 0;
    (void)state;
    learned_barriers_forbid(learned);
    const struct learned_block *b = learned_get(learned, at);
    assert_non_null(b);
    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t rule = learned_rows(learned, b)[i].rule;
        struct cfi_row row =
            cfi_row_at(cfi, &elf, b->number * BLOCK + learned_rows(learned, b)[i].byte, UINT64_MAX);
        assert_int_equal(rule & ~(uint64_t)STILE__RULE_READS_RA, row.rule & ~(uint64_t)STILE__RULE_READS_RA);
        unsigned op = stile__rule_op(rule);
        if (op != STILE__RULE_RSP && op != STILE__RULE_RBP) /* the others have no barrier anyway */
            continue;
        assert_true((rule & STILE__RULE_READS_RA) != 0);
        marked++;
    }
    assert_true(marked > 0);
}

static void test_a_file_without_cfi(void **state)
{
    struct elf_file none;
    (void)state;
    elf_file_open(&none, open("/dev/null", O_RDONLY | O_CLOEXEC), NULL, 0);
    struct learned *l = learned_new(&none);
    assert_non_null(l);
    static const uint64_t places[] = {0, 4096, 1ull << 40, UINT64_MAX - 4096};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const struct learned_block *b = learned_get(l, places[i]);
        assert_int_equal(b->n, 1);
        assert_int_equal(learned_rows(l, b)->rule, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0));
    }
    assert_non_null(learned_get(l, UINT64_MAX)); /* whatever it says */
    learned_free(l);
    learned_free(NULL);
    elf_file_close(&none);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_byte),         TEST(test_once),
        TEST(test_too_many_rows),      TEST(test_a_file_without_barriers),
        TEST(test_a_file_without_cfi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
