/* Functions that call their first argument with the second one in rbx, and whose unwind tables lie there. Each is right
 * but for one row. */
        .text

        .macro broken name, row:vararg
        .globl \name
        .type \name, @function
\name:
        .cfi_startproc
        push %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        mov %rsi, %rbx
        .cfi_remember_state
        \row
        call *%rdi
        .cfi_restore_state
        pop %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        ret
        .cfi_endproc
        .size \name, . - \name
        .endm

        broken broken_far, .cfi_def_cfa_offset 0x7ffffff0       /* the caller's frame beyond every stack */
        broken broken_low, .cfi_def_cfa_offset -4096            /* below our own */
        broken broken_register, .cfi_def_cfa %rbx, 16           /* wherever */
        /* DW_CFA_def_cfa_expression: DW_OP_breg3 0, DW_OP_deref */
        broken broken_pointed, .cfi_escape 0x0f, 0x03, 0x73, 0x00, 0x06
        broken broken_address, .cfi_offset %rip, 0x100000       /* the return address far above the frame */
        broken broken_same, .cfi_def_cfa_offset 0               /* a frame that is its own caller's */
        /* An expression without an end: DW_OP_lit0, DW_OP_skip -4 */
        broken broken_loop, .cfi_escape 0x0f, 0x04, 0x30, 0x2f, 0xfc, 0xff
        /* Nothing on its stack, a division, an operation that there is not */
        broken broken_expression, .cfi_escape 0x0f, 0x04, 0x06, 0x1b, 0xff, 0x12
        /* DW_CFA_expression of the return address: what rbx points to */
        broken broken_through_pointed, .cfi_escape 0x10, 0x10, 0x03, 0x73, 0x00, 0x06

        .section .note.GNU-stack, "", @progbits
