/* See callers.h. In the program and in its library: each asks as itself. */
        .macro  jump name
        .text
        .globl  jump_\name
        .hidden jump_\name
        .type   jump_\name, @function
jump_\name:
        .cfi_startproc
        push    %rdi
        .cfi_adjust_cfa_offset 8
        push    %rsi
        .cfi_adjust_cfa_offset 8
        push    %rdx
        .cfi_adjust_cfa_offset 8
        call    *callers_work@GOTPCREL(%rip)
        pop     %rdx
        .cfi_adjust_cfa_offset -8
        pop     %rsi
        .cfi_adjust_cfa_offset -8
        pop     %rdi
        .cfi_adjust_cfa_offset -8
        jmp     *\name@GOTPCREL(%rip)
        .cfi_endproc
        .size   jump_\name, . - jump_\name
        .endm

        .irp    name, dlsym, dlvsym, dlopen, dlmopen, getcontext, swapcontext, setjmp, _setjmp, __sigsetjmp, vfork
        jump    \name
        .endr

        .section .note.GNU-stack, "", @progbits
