/* A frame with a barrier, for the self-test. See barriers/unwind/self_test.h.
 *
 * stile__self_test_call(fn, a, b): as if it had called a function that calls fn(a, b), and a stub had been put in that one's
 * slot. rbx tells whether registers are restored on the way back. */
#define STUB   16
#define ENTRY  32
#define NUMBER 1
#define COOKIE 0x5711e

        .text
        .balign 16
        .globl  stile__self_test_call
        .hidden stile__self_test_call
        .type   stile__self_test_call, @function
stile__self_test_call:
        .cfi_startproc
        .cfi_personality 0x1b, stile__self_test_personality
        push    %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        mov     %rsp, %rbp
        .cfi_def_cfa_register %rbp
        push    %rbx
        .cfi_offset %rbx, -24
        sub     $8, %rsp
        mov     $COOKIE, %ebx
        lea     stile__self_test_returned(%rip), %rax
        mov     %rax, stile__stub_entries + ENTRY * NUMBER(%rip)
        lea     stile__stub_pool + STUB * NUMBER(%rip), %rax
        push    %rax
        jmp     self_test_below
        .globl  stile__self_test_returned
        .hidden stile__self_test_returned
stile__self_test_returned:
        xor     %eax, %eax
        jmp     1f
        .globl  stile__self_test_landing
        .hidden stile__self_test_landing
stile__self_test_landing:
        mov     $1, %eax
1:      mov     $2, %ecx
        cmp     $COOKIE, %rbx
        cmovne  %ecx, %eax
        lea     -16(%rbp), %rdx
        cmp     %rdx, %rsp
        cmovne  %ecx, %eax
        mov     -8(%rbp), %rbx
        leave
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        .cfi_restore %rbx
        ret
        .cfi_endproc
        .size   stile__self_test_call, . - stile__self_test_call

        .type   self_test_below, @function
self_test_below:
        .cfi_startproc
        push    %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset %rbx, -16
        xor     %ebx, %ebx
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        call    *%rax
        pop     %rbx
        .cfi_def_cfa_offset 8
        .cfi_restore %rbx
        ret
        .cfi_endproc
        .size   self_test_below, . - self_test_below

        .section .note.GNU-stack, "", @progbits
