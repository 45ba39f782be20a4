/* The shape and the unwind information of the program's stubs: a stub's frame has no extent, and its caller is what its
 * entry says, which is found from the operand of its jump. Never run here. */
#include "tests/unit/collector/stub_pool.h"

_Static_assert(STILE__STUBS == 16384 && STILE__STUB_BYTES == 16 && STILE__STUB_ENTRY == 32,
               "as the text below has it");

__asm__(
    ".pushsection .text.stub_pool, \"ax\", @progbits\n"
    "        .cfi_startproc\n"
    "        .cfi_def_cfa %rsp, 0\n"
    "        .cfi_escape 0x10, 0x10, 0x0d, 0x80, 0x00, 0x09, 0xf0, 0x1a, 0x12, 0x23, 0x09, 0x94, 0x04, 0x22, "
    "0x23, 0x0d\n"
    "        .balign 16\n"
    "        .skip   16, 0xcc\n" /* return addresses are looked up less one */
    "        .globl  stub_pool\n"
    "stub_pool:\n"
    "        .set    stub_number, 0\n"
    "        .rept   16384\n"
    "        movb    $1, stub_pool_entries + 32 * stub_number + 24(%rip)\n"
    "        jmp     *stub_pool_entries + 32 * stub_number(%rip)\n"
    "        .balign 16, 0xcc\n"
    "        .set    stub_number, stub_number + 1\n"
    "        .endr\n"
    "        .cfi_endproc\n"
    ".popsection\n"
    ".pushsection .bss.stub_pool_entries, \"aw\", @nobits\n"
    "        .balign 4096\n"
    "        .globl  stub_pool_entries\n"
    "stub_pool_entries:\n"
    "        .skip   16384 * 32\n"
    ".popsection\n");
