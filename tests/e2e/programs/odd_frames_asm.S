/* Frames that no compiler of today makes, with unwind information that is right at every instruction. */

.macro function name
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
.endm

.macro end name
    .cfi_endproc
    .size \name, . - \name
.endm

.macro save register
    push %\register
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset \register, 0
.endm

.macro restore register
    pop %\register
    .cfi_adjust_cfa_offset -8
    .cfi_restore \register
.endm

    .text

/* A leaf that saves what its caller lives by, and puts something else there: nothing, or what is no address. */
    .p2align 4
    function asm_leaf
    save rbx
    save rbp
    movabs $0x123456789abcdef, %rbx
    xor %ebp, %ebp
    restore rbp
    restore rbx
    ret
    end asm_leaf

/* The stack pointer moves at nearly every instruction. */
    .p2align 4
    function asm_pusher
    save rbx
    mov %rdi, %rbx
1:  save rbp
    save r12
    save r13
    save r14
    save r15
    sub $72, %rsp
    .cfi_adjust_cfa_offset 72
    call asm_leaf
    add $72, %rsp
    .cfi_adjust_cfa_offset -72
    restore r15
    restore r14
    restore r13
    restore r12
    restore rbp
    dec %rbx
    jnz 1b
    mov $1, %eax
    restore rbx
    ret
    end asm_pusher

/* The frame is where a register says that no unwinder looks for a frame in, and the stack pointer is free. */
.macro cfa_in name, register
    .p2align 4
    function \name
    mov %rsp, %\register
    .cfi_def_cfa_register \register
    and $-64, %rsp
    sub $192, %rsp
1:  push %rdi
    push %rbp
    lea 16(%rsp), %rsp
    dec %rdi
    jnz 1b
    mov %\register, %rsp
    .cfi_def_cfa_register rsp
    mov $1, %eax
    ret
    end \name
.endm

    cfa_in asm_cfa_in_rax, rax
    cfa_in asm_cfa_in_r11, r11

/* The same in a register that the called function saves and uses: it has to be followed through the frames. */
    .p2align 4
    function asm_cfa_in_rbx
    save rbx
    mov %rsp, %rbx
    .cfi_def_cfa_register rbx
    and $-64, %rsp
    sub $128, %rsp
    call asm_leaf
    call asm_leaf
    mov %rbx, %rsp
    .cfi_def_cfa_register rsp
    restore rbx
    mov $1, %eax
    ret
    end asm_cfa_in_rbx

/* A leaf that leaves rbp as it is. */
    .p2align 4
    function asm_rbp_leaf
    save rbx
    mov $8, %ebx
1:  dec %ebx
    jnz 1b
    restore rbx
    ret
    end asm_rbp_leaf

/* What asm_rbp_garbage's counterfeit frames return to. Never runs. */
    function asm_decoy
    ret
    end asm_decoy

/* rbp is a register like any other: it leads to two well-made frames of somebody who never called, it is odd, and it is
 * nothing. */
    .p2align 4
    function asm_rbp_garbage
    save rbp
    sub $144, %rsp
    .cfi_adjust_cfa_offset 144
    lea asm_decoy(%rip), %rax
    lea 64(%rsp), %rbp
    lea 96(%rsp), %rcx
    mov %rcx, (%rbp)
    mov %rax, 8(%rbp)
    movq $0, (%rcx)
    mov %rax, 8(%rcx)
    call asm_rbp_leaf
    movabs $0x123456789abcdef, %rbp
    call asm_rbp_leaf
    xor %ebp, %ebp
    call asm_rbp_leaf
    add $144, %rsp
    .cfi_adjust_cfa_offset -144
    restore rbp
    mov $1, %eax
    ret
    end asm_rbp_garbage

/* A leaf that holds its return address in a register, and uses the place where it was. */
    .p2align 4
    function asm_return_in_r11
    pop %r11
    .cfi_adjust_cfa_offset -8
    .cfi_register rip, r11
1:  push %rdi
    .cfi_adjust_cfa_offset 8
    push %rbp
    .cfi_adjust_cfa_offset 8
    lea 16(%rsp), %rsp
    .cfi_adjust_cfa_offset -16
    dec %rdi
    jnz 1b
    mov $1, %eax
    push %r11
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rip, 0
    ret
    end asm_return_in_r11

/* Returns, if ever, to the next function, which has another frame; nothing is between them. */
    .p2align 4
    function asm_ends_with_noreturn
    sub $104, %rsp
    .cfi_adjust_cfa_offset 104
    call noreturn_work
    end asm_ends_with_noreturn
    function asm_after_noreturn
    ret
    end asm_after_noreturn

    .section .note.GNU-stack, "", @progbits
