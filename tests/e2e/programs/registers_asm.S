/* void registers_round(uint64_t depth, const struct image *images), for registers.c: every_register calls itself
 * `depth` times. Each call returns with all registers that a caller could look at as the image of its depth has
 * them, flags and control words included, and each caller puts them into `found` as they are, by its first
 * instructions, and has them compared. What lies between the return and those instructions may change nothing. */
#include "registers.h"

        .text
        .globl  registers_round
        .type   registers_round, @function
registers_round:
        .cfi_startproc
        sub     $8, %rsp
        .cfi_def_cfa_offset 16
        call    every_register
        fninit                          /* as C wants them */
        ldmxcsr registers_mxcsr(%rip)
        add     $8, %rsp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size   registers_round, . - registers_round

        .type   every_register, @function
every_register:
        .cfi_startproc
        push    %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset %rbx, -16
        push    %rbp
        .cfi_def_cfa_offset 24
        .cfi_offset %rbp, -24
        push    %r12
        .cfi_def_cfa_offset 32
        .cfi_offset %r12, -32
        push    %r13
        .cfi_def_cfa_offset 40
        .cfi_offset %r13, -40
        push    %r14
        .cfi_def_cfa_offset 48
        .cfi_offset %r14, -48
        push    %r15
        .cfi_def_cfa_offset 56
        .cfi_offset %r15, -56
        push    %rdi                    /* depth */
        .cfi_def_cfa_offset 64
        push    %rsi                    /* images */
        .cfi_def_cfa_offset 72
        sub     $8, %rsp
        .cfi_def_cfa_offset 80
        call    registers_work
        mov     16(%rsp), %rdi
        mov     8(%rsp), %rsi
        test    %rdi, %rdi
        jz      1f
        dec     %rdi
        mov     %rdi, %rbx              /* callees keep these: they are compared as well */
        lea     1(%rdi), %rbp
        lea     2(%rdi), %r12
        lea     3(%rdi), %r13
        lea     4(%rdi), %r14
        lea     5(%rdi), %r15
        call    every_register
        mov     %rax, registers_found + IMAGE_GPRS + 0(%rip)
        mov     %rdx, registers_found + IMAGE_GPRS + 8(%rip)
        pushfq
        .cfi_adjust_cfa_offset 8
        pop     registers_found + IMAGE_FLAGS(%rip)
        .cfi_adjust_cfa_offset -8
        mov     %rcx, registers_found + IMAGE_GPRS + 16(%rip)
        mov     %rsi, registers_found + IMAGE_GPRS + 24(%rip)
        mov     %rdi, registers_found + IMAGE_GPRS + 32(%rip)
        mov     %r8, registers_found + IMAGE_GPRS + 40(%rip)
        mov     %r9, registers_found + IMAGE_GPRS + 48(%rip)
        mov     %r10, registers_found + IMAGE_GPRS + 56(%rip)
        mov     %r11, registers_found + IMAGE_GPRS + 64(%rip)
        mov     %rbx, registers_found + IMAGE_GPRS + 72(%rip)
        mov     %rbp, registers_found + IMAGE_GPRS + 80(%rip)
        mov     %r12, registers_found + IMAGE_GPRS + 88(%rip)
        mov     %r13, registers_found + IMAGE_GPRS + 96(%rip)
        mov     %r14, registers_found + IMAGE_GPRS + 104(%rip)
        mov     %r15, registers_found + IMAGE_GPRS + 112(%rip)
        mov     registers_mask(%rip), %eax
        xor     %edx, %edx
        xsave64 registers_found(%rip)
        fninit
        ldmxcsr registers_mxcsr(%rip)
        mov     16(%rsp), %rdi
        dec     %rdi
        call    registers_compare
1:      mov     16(%rsp), %rax          /* the image of this depth */
        and     $(IMAGES - 1), %eax
        imul    $IMAGE_SIZE, %rax, %rdi
        add     8(%rsp), %rdi
        mov     registers_mask(%rip), %eax
        xor     %edx, %edx
        xrstor64 (%rdi)
        add     $24, %rsp
        .cfi_def_cfa_offset 56
        pop     %r15
        .cfi_def_cfa_offset 48
        .cfi_restore %r15
        pop     %r14
        .cfi_def_cfa_offset 40
        .cfi_restore %r14
        pop     %r13
        .cfi_def_cfa_offset 32
        .cfi_restore %r13
        pop     %r12
        .cfi_def_cfa_offset 24
        .cfi_restore %r12
        pop     %rbp
        .cfi_def_cfa_offset 16
        .cfi_restore %rbp
        pop     %rbx
        .cfi_def_cfa_offset 8
        .cfi_restore %rbx
        mov     IMAGE_GPRS + 0(%rdi), %rax
        mov     IMAGE_GPRS + 8(%rdi), %rdx
        mov     IMAGE_GPRS + 16(%rdi), %rcx
        mov     IMAGE_GPRS + 24(%rdi), %rsi
        mov     IMAGE_GPRS + 40(%rdi), %r8
        mov     IMAGE_GPRS + 48(%rdi), %r9
        mov     IMAGE_GPRS + 56(%rdi), %r10
        mov     IMAGE_GPRS + 64(%rdi), %r11
        push    IMAGE_FLAGS(%rdi)
        .cfi_def_cfa_offset 16
        mov     IMAGE_GPRS + 32(%rdi), %rdi
        popfq
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size   every_register, . - every_register

        .section .note.GNU-stack, "", @progbits
