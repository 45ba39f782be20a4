/* For test_every_instruction.c: work deep below, then a jump to each function that goes by its own return address. Not one that
 * leads there at once: where that is seen no barrier stands. */
        .macro  hooked name
        .text
        .type   hooked_\name, @function
hooked_\name:
        .cfi_startproc
        push    %rdi
        .cfi_adjust_cfa_offset 8
        call    hooked_work
        pop     %rdi
        .cfi_adjust_cfa_offset -8
        lea     \name(%rip), %rax
        jmp     *%rax
        .cfi_endproc
        .size   hooked_\name, . - hooked_\name
        .section .data.rel.ro.hooked, "aw", @progbits
        .quad   hooked_\name
        .endm

        .section .data.rel.ro.hooked, "aw", @progbits
        .balign 8
        .globl  hooked
        .type   hooked, @object
hooked:
        .irp    name, dlsym, dlvsym, dlopen, dlmopen, getcontext, swapcontext, setjmp, _setjmp, __sigsetjmp, vfork, __vfork
        hooked  \name
        .endr
        .size   hooked, . - hooked

        .section .note.GNU-stack, "", @progbits
