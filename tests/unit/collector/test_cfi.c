/* collector/cfi.c: rules for real libraries, against what readelf decodes, and for CFI written by hand. */
#include "tests/unit/support.h"

#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/collector/cfi.h"
#include "profiler/region/rules.h"

#define FUNCTIONS (UNDER_SANITIZER ? 2000u : 1000000u) /* of a file, that are looked at */

/* Each of these is a function of sixteen bytes whose CFI is what is said of it. */
#define FUNCTION(name, cfi)                                                                                  \
    __asm__(".pushsection .text\n .balign 16\n .globl " #name "\n .type " #name ", @function\n" #name        \
            ":\n .cfi_startproc\n" cfi "\n .fill 16, 1, 0x90\n .cfi_endproc\n .size " #name ", 16\n"         \
            ".popsection");                                                                                  \
    extern const char name[] __attribute__((visibility("hidden")));

#define CFA_IS(len, ops)      ".cfi_escape 0x0f, " #len ", " ops "\n" /* DW_CFA_def_cfa_expression */
#define REG_AT(reg, len, ops) ".cfi_escape 0x10, " #reg ", " #len ", " ops "\n" /* DW_CFA_expression */
#define REG_IS(reg, len, ops) ".cfi_escape 0x16, " #reg ", " #len ", " ops "\n" /* DW_CFA_val_expression */
#define RBP_MINUS_8           "0x76, 0x78"
#define RBP_0                 "0x76, 0"
#define RSP_160               "0x77, 0xa0, 0x01"
#define DEREF                 "0x06"
#define PLUS                  "0x22"

FUNCTION(as_at_entry, "")
FUNCTION(deep, ".cfi_def_cfa_offset 0x12340")
FUNCTION(below, ".cfi_def_cfa_offset -16")
FUNCTION(too_deep, ".cfi_def_cfa_offset 0x100000000")
FUNCTION(with_frame, ".cfi_def_cfa rbp, 16\n .cfi_offset rbp, -16")
FUNCTION(rbp_low, ".cfi_def_cfa_offset 64\n .cfi_offset rbp, -64")
FUNCTION(rbp_above, ".cfi_offset rbp, 16")
FUNCTION(rbp_beside, REG_AT(6, 2, "0x23, 0x0c"))
FUNCTION(rbp_at_cfa, ".cfi_offset rbp, 0")
FUNCTION(rbp_lowest, ".cfi_offset rbp, -262136")
FUNCTION(rbp_too_low, ".cfi_offset rbp, -262144")
FUNCTION(rbp_highest, ".cfi_offset rbp, 262136")
FUNCTION(rbp_too_high, ".cfi_offset rbp, 262144")
FUNCTION(rbp_undefined, ".cfi_undefined rbp")
FUNCTION(rbp_same, ".cfi_offset rbp, -16\n .cfi_same_value rbp")
FUNCTION(rbp_restored, ".cfi_offset rbp, -16\n .cfi_restore rbp")
FUNCTION(rbp_in_r11, ".cfi_register rbp, r11")
FUNCTION(rbp_is_cfa_minus_16, ".cfi_val_offset rbp, -16")
FUNCTION(rbp_is_cfa, ".cfi_val_offset rbp, 0")
FUNCTION(rbp_is_computed, REG_IS(6, 2, RBP_0))
FUNCTION(rbp_by_rbp_alone, ".cfi_def_cfa rbp, 16\n" REG_AT(6, 2, RBP_0))
FUNCTION(rbp_by_the_cfa, REG_AT(6, 2, "0x23, 0x10")) /* plus_uconst: from the CFA that lies there */
FUNCTION(drap, CFA_IS(3, RBP_MINUS_8 ", " DEREF) REG_AT(6, 2, RBP_0))
FUNCTION(drap_lower, CFA_IS(3, RBP_MINUS_8 ", " DEREF) REG_AT(6, 2, "0x76, 0x70"))
FUNCTION(drap_at_8, CFA_IS(3, RBP_MINUS_8 ", " DEREF) REG_AT(6, 2, "0x76, 0x78"))
FUNCTION(drap_beside, CFA_IS(3, RBP_MINUS_8 ", " DEREF) REG_AT(6, 2, "0x76, 3"))
FUNCTION(drap_by_rbx, CFA_IS(3, RBP_MINUS_8 ", " DEREF) REG_AT(6, 2, "0x73, 0"))
FUNCTION(drap_by_cfa, CFA_IS(3, RBP_MINUS_8 ", " DEREF) ".cfi_offset rbp, -24")
FUNCTION(by_rsp_in_memory, CFA_IS(3, "0x77, 0x10, " DEREF))
FUNCTION(with_more, CFA_IS(5, "0x77, 0x10, " DEREF ", 0x23, 0x10"))
FUNCTION(with_too_much, CFA_IS(6, "0x77, 0x10, " DEREF ", 0x23, 0x80, 0x08"))
FUNCTION(with_odd_more, CFA_IS(5, "0x77, 0x10, " DEREF ", 0x23, 0x0c"))
FUNCTION(by_rbx_in_memory, CFA_IS(3, "0x73, 0x10, " DEREF))
FUNCTION(in_memory_twice, CFA_IS(4, "0x77, 0x10, " DEREF ", " DEREF))
FUNCTION(as_an_expression, CFA_IS(2, "0x77, 0x18"))
FUNCTION(as_a_long_expression, CFA_IS(4, "0x92, 0x07, 0x98, 0x01")) /* bregx rsp 152 */
FUNCTION(a_constant, CFA_IS(2, "0x08, 0x18"))
FUNCTION(by_r10, ".cfi_def_cfa r10, 8")
FUNCTION(by_rbx, ".cfi_def_cfa rbx, -24\n .cfi_offset rbp, -16")
FUNCTION(by_xmm0, ".cfi_def_cfa xmm0, 8")
FUNCTION(plt_11, CFA_IS(11, "0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, " PLUS))
FUNCTION(plt_10, CFA_IS(11, "0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3a, 0x2a, 0x33, 0x24, " PLUS))
FUNCTION(plt_gt, CFA_IS(11, "0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2b, 0x33, 0x24, " PLUS))
FUNCTION(plt_16, CFA_IS(11, "0x77, 16, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, " PLUS))
FUNCTION(plt_by_rax, CFA_IS(11, "0x77, 8, 0x70, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, " PLUS))
FUNCTION(plt_32, CFA_IS(11, "0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x35, 0x24, " PLUS))
FUNCTION(outermost, ".cfi_undefined rip")
FUNCTION(ra_elsewhere, ".cfi_offset rip, -16")
FUNCTION(ra_at_cfa, ".cfi_offset rip, 0")
FUNCTION(a_stub, ".cfi_def_cfa_offset 0\n" REG_AT(
                     16, 13, "0x80, 0x00, 0x09, 0xf0, 0x1a, 0x12, 0x23, 0x09, 0x94, 0x04, 0x22, 0x23, 0x0d"))
FUNCTION(ra_in_rdx, ".cfi_register rip, rdx")
FUNCTION(ra_is_computed, REG_IS(16, 2, RBP_0))
FUNCTION(ra_in_memory, REG_AT(16, 2, "0x77, 0"))
#define KERNEL(rbp, rip) CFA_IS(4, RSP_160 ", " DEREF) REG_AT(6, 3, "0x77, " rbp) REG_AT(16, 3, "0x77, " rip)
FUNCTION(kernels, ".cfi_signal_frame\n" KERNEL("0xf8, 0", "0xa8, 1"))
FUNCTION(kernels_rbp_elsewhere, ".cfi_signal_frame\n" KERNEL("0xf0, 0", "0xa8, 1"))
FUNCTION(kernels_rip_elsewhere, ".cfi_signal_frame\n" KERNEL("0xf8, 0", "0xb0, 1"))
FUNCTION(kernels_unsaid, KERNEL("0xf8, 0", "0xa8, 1"))
FUNCTION(signal_but_usual, ".cfi_signal_frame")
FUNCTION(signal_and_outermost, ".cfi_signal_frame\n .cfi_undefined rip")
FUNCTION(changing, ".nops 4\n .cfi_def_cfa_offset 16\n .nops 1\n .cfi_offset rbp, -16\n .nops 1\n"
                   ".cfi_offset rbx, -24\n .nops 3\n .cfi_remember_state\n .cfi_def_cfa_offset 8\n"
                   ".cfi_restore rbp\n .nops 2\n .cfi_restore_state\n .nops 3\n")
__asm__(".pushsection .text\n .balign 16\n .globl uncovered\n .type uncovered, @function\n uncovered:\n"
        ".fill 600, 1, 0x90\n .size uncovered, 600\n .popsection");
extern const char uncovered[] __attribute__((visibility("hidden")));
FUNCTION(after_uncovered, "")

#define RULE(op, offset, saved, extra) stile__rule_make(STILE__RULE_##op, offset, saved, extra)
#define OTHER                          STILE__RULE_OTHER

static struct elf_file elf;
static struct cfi *cfi;

static void file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    elf_file_open(&elf, fd, NULL, 0);
    cfi = cfi_open(&elf);
    assert_non_null(cfi);
}

static void file_close(void)
{
    cfi_close(cfi);
    elf_file_close(&elf);
}

static uint64_t vaddr_of(const void *at)
{
    return (uintptr_t)at - _r_debug.r_map->l_addr;
}

static void test_by_hand(void **state)
{
    const struct {
        const char *name, *function;
        uint64_t rule;
    } cases[] = {
#define CASE(function, rule) {#function, function, rule}
        CASE(as_at_entry, RULE(RSP, 8, 0, 0)),
        CASE(deep, RULE(RSP, 0x12340, 0, 0)),
        CASE(below, RULE(RSP, -16, 0, 0)),
        CASE(too_deep, OTHER),
        CASE(with_frame, RULE(RBP, 16, -2, 0)),
        CASE(rbp_low, RULE(RSP, 64, -8, 0)),
        CASE(rbp_above, RULE(RSP, 8, 2, 0)),
        CASE(rbp_beside, OTHER),
        CASE(rbp_at_cfa, OTHER),
        CASE(rbp_lowest, RULE(RSP, 8, -32767, 0)),
        CASE(rbp_too_low, OTHER),
        CASE(rbp_highest, RULE(RSP, 8, 32767, 0)),
        CASE(rbp_too_high, OTHER),
        CASE(rbp_undefined, RULE(RSP, 8, STILE__RULE_LOST, 0)),
        CASE(rbp_same, RULE(RSP, 8, 0, 0)),
        CASE(rbp_restored, RULE(RSP, 8, 0, 0)),
        CASE(rbp_in_r11, OTHER),
        CASE(rbp_is_cfa_minus_16, OTHER),
        CASE(rbp_is_cfa, OTHER),
        CASE(rbp_is_computed, OTHER),
        CASE(rbp_by_rbp_alone, OTHER),
        CASE(rbp_by_the_cfa, RULE(RSP, 8, 2, 0)),
        CASE(drap, RULE(DEREF_RBP, -8, 1, 0) | STILE__RULE_AT_BASE),
        CASE(drap_lower, RULE(DEREF_RBP, -8, -1, 0) | STILE__RULE_AT_BASE),
        CASE(drap_at_8, OTHER),
        CASE(drap_beside, OTHER),
        CASE(drap_by_rbx, OTHER),
        CASE(drap_by_cfa, RULE(DEREF_RBP, -8, -3, 0)),
        CASE(by_rsp_in_memory, RULE(DEREF_RSP, 16, 0, 0)),
        CASE(with_more, RULE(DEREF_RSP, 16, 0, 2)),
        CASE(with_too_much, OTHER),
        CASE(with_odd_more, OTHER),
        CASE(by_rbx_in_memory, OTHER),
        CASE(in_memory_twice, OTHER),
        CASE(as_an_expression, RULE(RSP, 24, 0, 0)),
        CASE(as_a_long_expression, RULE(RSP, 152, 0, 0)),
        CASE(a_constant, OTHER),
        CASE(by_r10, RULE(REGISTER, 8, 0, 10)),
        CASE(by_rbx, RULE(REGISTER, -24, -2, 3)),
        CASE(by_xmm0, OTHER),
        CASE(plt_11, RULE(PLT, 0, 0, 11)),
        CASE(plt_10, RULE(PLT, 0, 0, 10)),
        CASE(plt_gt, OTHER),
        CASE(plt_16, OTHER),
        CASE(plt_by_rax, OTHER),
        CASE(plt_32, OTHER),
        CASE(outermost, RULE(END, 0, 0, 0)),
        CASE(ra_elsewhere, OTHER),
        CASE(ra_at_cfa, OTHER),
        CASE(a_stub, OTHER),
        CASE(ra_in_rdx, OTHER),
        CASE(ra_is_computed, OTHER),
        CASE(ra_in_memory, OTHER),
        CASE(kernels, RULE(SIGNAL, 0, 0, 0)),
        CASE(kernels_rbp_elsewhere, OTHER),
        CASE(kernels_rip_elsewhere, OTHER),
        CASE(kernels_unsaid, OTHER),
        CASE(signal_but_usual, OTHER),
        CASE(signal_and_outermost, RULE(END, 0, 0, 0)),
    };
    unsigned wrong = 0;
    (void)state;
    file_open("/proc/self/exe");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t at = vaddr_of(cases[i].function);
        for (uint64_t into = 0; into < 16; into += 5) {
            struct cfi_row row = cfi_row_at(cfi, &elf, at + into, UINT64_MAX);
            if (row.rule != cases[i].rule)
                print_error("%s+%u: 0x%llx, not 0x%llx\n", cases[i].name, (unsigned)into,
                            (unsigned long long)row.rule, (unsigned long long)cases[i].rule);
            wrong += row.rule != cases[i].rule;
            assert_int_equal(row.start, at + into);
            assert_int_equal(row.end, at + 16);
            assert_int_equal(cfi_row_at(cfi, &elf, at + into, at + into + 1).end, at + into + 1);
        }
    }
    assert_int_equal(wrong, 0);
    file_close();
}

static void test_rows(void **state)
{
    const struct {
        uint64_t from, to, rule;
    } rows[] = {{0, 4, RULE(RSP, 8, 0, 0)},   {4, 5, RULE(RSP, 16, 0, 0)},
                {5, 6, RULE(RSP, 16, -2, 0)}, {6, 9, RULE(RSP, 16, -2, 0)}, /* rbx does not matter */
                {9, 11, RULE(RSP, 8, 0, 0)},  {11, 30, RULE(RSP, 16, -2, 0)}};
    uint64_t at = vaddr_of(changing);
    (void)state;
    file_open("/proc/self/exe");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t into = rows[i].from; into < rows[i].to; into++) {
            struct cfi_row row = cfi_row_at(cfi, &elf, at + into, UINT64_MAX);
            assert_int_equal(row.rule, rows[i].rule);
            assert_int_equal(row.start, at + into);
            assert_int_equal(row.end, at + rows[i].to);
        }
    file_close();
}

static void test_code_without_cfi(void **state)
{
    uint64_t at = vaddr_of(uncovered), by_frame_pointer = RULE(FRAME_POINTER, 0, -2, 0);
    (void)state;
    file_open("/proc/self/exe");
    for (uint64_t into = 0; into < 600; into += 7) {
        struct cfi_row row = cfi_row_at(cfi, &elf, at + into, UINT64_MAX);
        assert_int_equal(row.rule, by_frame_pointer);
        assert_int_equal(row.start, at + into);
        assert_int_equal(row.end, vaddr_of(after_uncovered));
        row = cfi_row_at(cfi, &elf, at + into, at + into + 3);
        assert_int_equal(row.end, at + into + 3);
    }
    static const uint64_t nowhere[] = {0, 1, 1ull << 40, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        struct cfi_row row = cfi_row_at(cfi, &elf, nowhere[i], nowhere[i] + 1);
        assert_int_equal(row.rule, by_frame_pointer);
        assert_int_equal(row.end, nowhere[i] + 1);
    }
    struct cfi_row row = cfi_row_at(NULL, &elf, at, at + 5);
    assert_int_equal(row.rule, by_frame_pointer);
    assert_int_equal(row.start, at);
    assert_int_equal(row.end, at + 5);
    file_close();
    /* No ELF file. */
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    elf_file_open(&elf, fd, NULL, 0);
    assert_null(cfi_open(&elf));
    cfi_close(NULL);
    elf_file_close(&elf);
}

/* What readelf says of a row. */
struct row {
    uint64_t at;
    char cfa[16], rbp[16], ra[16];
};

static bool row_parse(const char *line, const char *heads, struct row *row)
{
    char head[16], value[16];
    int n, used;
    unsigned long long at;

    if (sscanf(line, "%llx%n", &at, &used) != 1 || used != 16)
        return false;
    *row = (struct row){.at = at, .rbp = "u"};
    line += used;
    while (sscanf(heads, "%15s%n", head, &n) == 1 && sscanf(line, "%15s%n", value, &used) == 1) {
        if (value[0] == '(') { /* a register's other name */
            line += used;
            continue;
        }
        if (strcmp(head, "CFA") == 0)
            memcpy(row->cfa, value, sizeof value);
        else if (strcmp(head, "rbp") == 0)
            memcpy(row->rbp, value, sizeof value);
        else if (strcmp(head, "ra") == 0)
            memcpy(row->ra, value, sizeof value);
        heads += n;
        line += used;
    }
    return row->cfa[0] != '\0' && row->ra[0] != '\0';
}

/* Whether a rule is the row's. Expressions are compared by hand, above. */
static bool is_rule_of(uint64_t rule, const struct row *row)
{
    enum stile__rule_op op = stile__rule_op(rule);
    int saved = stile__rule_saved(rule), at;
    char reg[16];

    if (strcmp(row->ra, "u") == 0)
        return op == STILE__RULE_END;
    if (strcmp(row->ra, "c-8") != 0)
        return op == STILE__RULE_OTHER || op == STILE__RULE_SIGNAL;
    if (strcmp(row->cfa, "exp") == 0 && op != STILE__RULE_DEREF_RSP && op != STILE__RULE_DEREF_RBP &&
        op != STILE__RULE_PLT)
        return op == STILE__RULE_OTHER;
    if (strcmp(row->cfa, "exp") != 0) {
        if (sscanf(row->cfa, "%15[a-z0-9]%d", reg, &at) != 2)
            return false;
        bool simple = strcmp(reg, "rsp") == 0 || strcmp(reg, "rbp") == 0;
        if (strcmp(row->rbp, "exp") == 0 || row->rbp[0] == 'v' || row->rbp[0] == 'r')
            return op == STILE__RULE_OTHER;
        if (stile__rule_offset(rule) != at || op != (!simple                   ? STILE__RULE_REGISTER
                                                     : strcmp(reg, "rsp") == 0 ? STILE__RULE_RSP
                                                                               : STILE__RULE_RBP))
            return false;
    }
    if (strcmp(row->rbp, "exp") == 0)
        return (rule & STILE__RULE_AT_BASE) != 0;
    if (sscanf(row->rbp, "c%d", &at) == 1)
        return saved * 8 == at && saved != 0 && !(rule & STILE__RULE_AT_BASE);
    return (strcmp(row->rbp, "u") == 0 || strcmp(row->rbp, "s") == 0) && saved == 0;
}

static struct {
    uint64_t functions, rows, others;
} seen;

static void rows_compare(const char *path, const struct row *rows, size_t n, uint64_t end)
{
    seen.functions++;
    for (size_t i = 0; i < n; i++) {
        uint64_t next = i + 1 < n ? rows[i + 1].at : end;
        const uint64_t places[] = {rows[i].at, rows[i].at + (next - rows[i].at) / 2, next - 1};
        for (size_t k = 0; k < 3 && next > rows[i].at; k++) {
            struct cfi_row row = cfi_row_at(cfi, &elf, places[k], UINT64_MAX);
            if (!is_rule_of(row.rule, &rows[i]) || row.start != places[k] || row.end <= places[k] ||
                row.end > next)
                fail_msg("%s at 0x%llx: rule 0x%llx to 0x%llx; readelf: %s %s %s to 0x%llx", path,
                         (unsigned long long)places[k], (unsigned long long)row.rule,
                         (unsigned long long)row.end, rows[i].cfa, rows[i].rbp, rows[i].ra,
                         (unsigned long long)next);
            seen.others += row.rule == OTHER;
        }
        seen.rows++;
    }
}

static void file_compare(const char *path)
{
    static struct row rows[4096];
    char command[4200], line[1024], heads[1024] = "";
    size_t n = 0;
    unsigned long long start = 0, end = 0;
    unsigned every = 1, k = 0;
    bool taken = false;

    if (access(path, R_OK) != 0)
        return;
    file_open(path);
    if (elf.table_entries > FUNCTIONS)
        every = (unsigned)(elf.table_entries / FUNCTIONS);
    snprintf(command, sizeof command, "readelf --debug-dump=frames-interp '%s' 2>/dev/null", path);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    while (fgets(line, sizeof line, p) != NULL) {
        const char *pc = strstr(line, " FDE cie=");
        if (pc != NULL || strstr(line, " CIE ") != NULL || strncmp(line, "Contents", 8) == 0) {
            if (taken && n > 0)
                rows_compare(path, rows, n, end);
            n = 0;
            pc = strstr(line, " pc=");
            taken = pc != NULL && sscanf(pc, " pc=%llx..%llx", &start, &end) == 2 && k++ % every == 0;
            if (strstr(line, "debug_frame") != NULL)
                break;
        } else if (strncmp(line, "   LOC ", 7) == 0) {
            memcpy(heads, line + 6, sizeof heads - 6);
        } else if (taken && n < sizeof rows / sizeof *rows && row_parse(line, heads, &rows[n])) {
            n++;
        }
    }
    if (taken && n > 0)
        rows_compare(path, rows, n, end);
    while (fgets(line, sizeof line, p) != NULL)
        ;
    pclose(p);
    file_close();
}

static void test_real_files(void **state)
{
    (void)state;
    if (system("readelf --version >/dev/null 2>&1") != 0)
        skip();
    file_compare("/lib/x86_64-linux-gnu/libc.so.6");
    file_compare("/lib64/ld-linux-x86-64.so.2");
    file_compare("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
    file_compare("/usr/lib/x86_64-linux-gnu/libcrypto.so.3");
    print_message("%llu functions, %llu rows, %llu of them for libunwind\n",
                  (unsigned long long)seen.functions, (unsigned long long)seen.rows,
                  (unsigned long long)seen.others);
    assert_true(seen.functions > 100 && seen.rows > 1000);
    assert_true(seen.others < seen.rows / 50); /* else what is compared says nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_code_without_cfi),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
