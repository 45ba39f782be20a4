/* Hooks on functions that go by their own return address. See barriers/unwind/caller_hooks.h.
 *
 * A stub that stands in the slot is first marked as hit, since from now on nobody returns through it, then taken off. A tick
 * may come at any instruction, and take it off and use it elsewhere: so the slot changes only if the stub still stands there.
 * It does until then, and where it goes on was read before. rax, r10 and r11 are free: none of these functions takes a
 * variable number of arguments. */
#define STUBS 16384
#define STUB  16
#define ENTRY 32
#define HIT   24

        .macro  hook name, number
        .section .text.stile__caller_hooks, "ax", @progbits
        .balign 16
        .globl  \name
        .type   \name, @function
\name:
        .cfi_startproc
        mov     (%rsp), %rax
        lea     stile__stub_pool(%rip), %r11
        mov     %rax, %r10
        sub     %r11, %r10
        cmp     $STUBS * STUB, %r10
        jb      2f
1:      mov     stile__caller_nexts + 8 * \number(%rip), %r11
        test    %r11, %r11
        je      3f
        jmp     *%r11
2:      lea     stile__stub_entries(%rip), %r11
        lea     (%r11, %r10, ENTRY / STUB), %r11
        mov     (%r11), %r10
        movb    $1, HIT(%r11)
        cmpxchg %r10, (%rsp)
        jmp     1b
        /* The first call, perhaps before this library's constructor. */
3:      push    %rdi
        .cfi_adjust_cfa_offset 8
        push    %rsi
        .cfi_adjust_cfa_offset 8
        push    %rdx
        .cfi_adjust_cfa_offset 8
        push    %rcx
        .cfi_adjust_cfa_offset 8
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        mov     $\number, %edi
        call    stile__caller_next
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        pop     %rcx
        .cfi_adjust_cfa_offset -8
        pop     %rdx
        .cfi_adjust_cfa_offset -8
        pop     %rsi
        .cfi_adjust_cfa_offset -8
        pop     %rdi
        .cfi_adjust_cfa_offset -8
        jmp     *%rax
        .cfi_endproc
        .size   \name, . - \name
        .endm

        /* enum stile__caller_hook */
        hook    dlsym, 0
        hook    dlvsym, 1
        hook    dlopen, 2
        hook    dlmopen, 3
        hook    getcontext, 4
        hook    swapcontext, 5
        hook    setjmp, 6
        hook    _setjmp, 7
        hook    __sigsetjmp, 8
        hook    vfork, 9
        hook    __vfork, 10

        .globl  stile__caller_hooks_end
        .hidden stile__caller_hooks_end
stile__caller_hooks_end:

        .section .note.GNU-stack, "", @progbits
