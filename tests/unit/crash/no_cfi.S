/* Functions without CFI, as assemblers leave them. */
        .text

/* void no_cfi_frame(void (*fn)(void)): calls it, with a frame pointer. */
        .globl  no_cfi_frame
        .type   no_cfi_frame, @function
no_cfi_frame:
        push    %rbp
        mov     %rsp, %rbp
        sub     $32, %rsp
        call    *%rdi
        leave
        ret
        .size   no_cfi_frame, . - no_cfi_frame

/* void no_cfi_kill(pid_t process, pid_t thread, int signal): takes the signal, without a frame. */
        .globl  no_cfi_kill
        .type   no_cfi_kill, @function
no_cfi_kill:
        mov     $234, %eax
        syscall
        ret
        .size   no_cfi_kill, . - no_cfi_kill

/* void no_cfi_lost(void (*fn)(void)): calls it, with rbp leading nowhere. */
        .globl  no_cfi_lost
        .type   no_cfi_lost, @function
no_cfi_lost:
        push    %rbp
        mov     $0x1230, %ebp
        call    *%rdi
        pop     %rbp
        ret
        .size   no_cfi_lost, . - no_cfi_lost

/* As no_cfi_kill, with CFI: the return address is in a register meanwhile, as vfork has it. */
        .globl  cfi_kill
        .type   cfi_kill, @function
cfi_kill:
        .cfi_startproc
        pop     %r9
        .cfi_def_cfa_offset 0
        .cfi_register %rip, %r9
        mov     $234, %eax
        syscall
        push    %r9
        .cfi_def_cfa_offset 8
        .cfi_restore %rip
        ret
        .cfi_endproc
        .size   cfi_kill, . - cfi_kill

/* Where a handler returns to. The byte before it is not of a function with CFI. */
        nop
        .globl  no_cfi_restorer
        .type   no_cfi_restorer, @function
no_cfi_restorer:
        mov     $15, %rax
        syscall
        .size   no_cfi_restorer, . - no_cfi_restorer

        .section .note.GNU-stack, "", @progbits
