/* collector/own_address.c: which functions read their own return address, as compilers and as hands write it. */
#include "tests/unit/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/collector/cfi.h"
#include "profiler/collector/own_address.h"
#include "profiler/region/rules.h"

extern int late(int), late_argument(int), late_rbp(int), late_large(int), late_saved(int, int, int, int),
    compared(int), never(int), never_rbp(int), arguments(int, int, int, int, int, int, int, int),
    arguments_rbp(int, int, int, int, int, int, int, int);

extern const char __executable_start[];

/* By hand, as some compilers write it: the CFA is rsp + 24 there, or rbp + 16. */
#define BY_HAND(name, body)                                                                                  \
    __asm__(".pushsection .text\n .globl " #name "\n .type " #name ", @function\n" #name                     \
            ":\n .cfi_startproc\n sub $16, %rsp\n .cfi_def_cfa_offset 24\n" body                             \
            "\n 1: call deep\n add $16, %rsp\n .cfi_def_cfa_offset 8\n ret\n .cfi_endproc\n .size " #name    \
            ", . - " #name "\n .popsection");                                                                \
    extern int name(int)
#define BY_HAND_RBP(name, body)                                                                              \
    __asm__(".pushsection .text\n .globl " #name "\n .type " #name ", @function\n" #name                     \
            ":\n .cfi_startproc\n push %rbp\n .cfi_def_cfa_offset 16\n .cfi_offset %rbp, -16\n"              \
            " mov %rsp, %rbp\n .cfi_def_cfa_register %rbp\n" body "\n call deep\n pop %rbp\n"                \
            " .cfi_def_cfa %rsp, 8\n ret\n .cfi_endproc\n .size " #name ", . - " #name "\n .popsection");    \
    extern int name(int)

BY_HAND(by_mov, "mov 16(%rsp), %rax");
BY_HAND(by_r15, "mov 16(%rsp), %r15");
BY_HAND(by_push, "pushq 16(%rsp)\n .cfi_adjust_cfa_offset 8\n add $8, %rsp\n .cfi_adjust_cfa_offset -8");
BY_HAND(by_lea, "lea 16(%rsp), %rcx");
BY_HAND(by_cmp, "cmp %rax, 16(%rsp)");
BY_HAND(by_store, "mov %rax, 16(%rsp)");
BY_HAND(by_movq, "movq 16(%rsp), %xmm3");
BY_HAND(by_movhps, "movhps 16(%rsp), %xmm9");
BY_HAND(by_vmovq, "vmovq 16(%rsp), %xmm3");
BY_HAND(by_vpinsrq, "vpinsrq $1, 16(%rsp), %xmm3, %xmm9");
BY_HAND(by_wide, "mov 16(%rsp), %rax\n .byte 0x48, 0x8b, 0x84, 0x24, 16, 0, 0, 0");
BY_HAND(by_wide_only, ".byte 0x48, 0x8b, 0x84, 0x24, 16, 0, 0, 0");
BY_HAND(beside, "mov 8(%rsp), %rax\n mov 24(%rsp), %rax\n mov 0x110(%rsp), %rax");
BY_HAND(through_others, "mov 16(%rdi), %rax\n mov 16(%rsp,%rax), %rax");
BY_HAND(jumps_on,
        "call deep\n add $16, %rsp\n .cfi_adjust_cfa_offset -16\n .byte 0xe9\n .long own_setjmp - . - 4\n"
        " sub $16, %rsp\n .cfi_adjust_cfa_offset 16");
BY_HAND(jumps_elsewhere,
        "call deep\n add $16, %rsp\n .cfi_adjust_cfa_offset -16\n .byte 0xe9\n .long never - . - 4\n"
        " sub $16, %rsp\n .cfi_adjust_cfa_offset 16");
__asm__(
    ".pushsection .text\n .type own_setjmp, @function\nown_setjmp:\n .cfi_startproc\n mov %rbx, (%rdi)\n"
    " mov %rbp, 8(%rdi)\n mov %r12, 16(%rdi)\n lea 8(%rsp), %rdx\n mov %rdx, 24(%rdi)\n mov (%rsp), %rdx\n"
    " mov %rdx, 32(%rdi)\n xor %eax, %eax\n ret\n .cfi_endproc\n .size own_setjmp, . - own_setjmp\n "
    ".popsection");
BY_HAND_RBP(rbp_by_mov, "mov 8(%rbp), %rdi");
BY_HAND_RBP(rbp_by_push, "pushq 8(%rbp)\n pop %rdi");
BY_HAND_RBP(rbp_by_lea, "lea 8(%rbp), %r9");
BY_HAND_RBP(rbp_beside, "mov 16(%rbp), %rax\n mov -8(%rbp), %rax\n mov 8(%rbx), %rax");
BY_HAND_RBP(rbp_jumps, "jne . + 10\n jge . + 10");

static const struct function {
    const char *name;
    const void *at;
    bool reads;
} functions[] = {
#define READS(name)                                                                                          \
    {                                                                                                        \
#        name, (const void *)(name), true                                                                    \
    }
#define DOES_NOT(name)                                                                                       \
    {                                                                                                        \
#        name, (const void *)(name), false                                                                   \
    }
    READS(late),         READS(late_argument),
    READS(late_rbp),     READS(late_large),
    READS(late_saved),   READS(compared),
    DOES_NOT(never),     DOES_NOT(never_rbp),
    DOES_NOT(arguments), DOES_NOT(arguments_rbp),
    READS(by_mov),       READS(by_r15),
    READS(by_push),      READS(by_lea),
    READS(by_cmp),       READS(by_store),
    READS(by_movq),      READS(by_movhps),
    READS(by_vmovq),     READS(by_vpinsrq),
    READS(by_wide),      READS(by_wide_only),
    DOES_NOT(beside),    DOES_NOT(through_others),
    READS(jumps_on),     DOES_NOT(jumps_elsewhere),
    READS(rbp_by_mov),   READS(rbp_by_push),
    READS(rbp_by_lea),   DOES_NOT(rbp_beside),
    DOES_NOT(rbp_jumps),
};

static struct elf_file self;

/* Where a function calls deep for the first time: the rule of its frame while that runs. */
static uint64_t rule_at_call(struct cfi *c, const struct function *f)
{
    uint64_t vaddr = (uintptr_t)f->at - (uintptr_t)__executable_start, start, end;
    assert_true(elf_file_entry(&self, vaddr, &start, &end));
    const uint8_t *code = f->at;
    for (uint64_t i = 0; i + 5 <= end - start; i++) {
        int32_t by;
        memcpy(&by, code + i + 1, sizeof by);
        extern int deep(int, ...);
        if (code[i] == 0xe8 && (uintptr_t)code + i + 5 + (uintptr_t)(intptr_t)by == (uintptr_t)deep)
            return cfi_row_at(c, &self, vaddr + i, end).rule;
    }
    fail_msg("%s does not call", f->name);
    return 0;
}

static void test_functions(void **state)
{
    struct cfi *c = cfi_open(&self);
    (void)state;
    assert_non_null(c);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        uint64_t rule = rule_at_call(c, &functions[i]);
        print_message("%s\n", functions[i].name);
        assert_true(stile__rule_plain(rule) == STILE__RULE_RSP || stile__rule_plain(rule) == STILE__RULE_RBP);
        assert_int_equal((rule & STILE__RULE_READS_RA) != 0, functions[i].reads);
    }
    cfi_close(c);
}

/* The answer is of the function and the rule that were asked for, whatever was asked before. */
static void test_answers(void **state)
{
    struct own_address o = {0};
    uint64_t start, end, other, other_end;
    (void)state;
    assert_true(elf_file_entry(&self, (uintptr_t)by_mov - (uintptr_t)__executable_start, &start, &end));
    assert_true(elf_file_entry(&self, (uintptr_t)beside - (uintptr_t)__executable_start, &other, &other_end));
    for (int round = 0; round < 2; round++) {
        for (int32_t offset = 8; offset < 8 * 30; offset += 8) {
            uint64_t rule = stile__rule_make(STILE__RULE_RSP, offset, 0, 0);
            assert_int_equal(own_address_read(&o, &self, start, end, rule), offset == 24);
        }
        assert_false(
            own_address_read(&o, &self, other, other_end, stile__rule_make(STILE__RULE_RSP, 24, -2, 0)));
        assert_true(own_address_read(&o, &self, start, end, stile__rule_make(STILE__RULE_RSP, 24, -2, 0)));
        assert_false(own_address_read(&o, &self, start, end, stile__rule_make(STILE__RULE_RBP, 24, 0, 0)));
        assert_false(own_address_read(&o, &self, start, end, STILE__RULE_END));
    }
    assert_int_equal(o.start, start); /* the code of the last question that had no answer yet: */
    assert_false(own_address_read(&o, &self, other, other_end, stile__rule_make(STILE__RULE_RSP, 24, 0, 0)));
    assert_int_equal(o.start, start);
    /* What cannot be read, or is too large to, is taken for one. */
    assert_true(own_address_read(&o, &self, 1ull << 40, (1ull << 40) + 64,
                                 stile__rule_make(STILE__RULE_RSP, 24, 0, 0)));
    assert_true(own_address_read(&o, &self, start, start + (1ull << 30),
                                 stile__rule_make(STILE__RULE_RSP, 24, 0, 0)));
    own_address_free(&o);
}

static int open_self(void **state)
{
    (void)state;
    elf_file_open(&self, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), NULL, 0);
    return 0;
}

static int close_self(void **state)
{
    (void)state;
    elf_file_close(&self);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions), cmocka_unit_test(test_answers)};
    return cmocka_run_group_tests(tests, open_self, close_self);
}
