/* The stubs, their entries, and the landings where exceptions go on behind them. See barriers/stub.h and
 * barriers/unwind/personality.h.
 *
 * Unwinders walk through: a stub is a frame without extent. Its CFA is rsp, since the return that led here has popped the
 * slot already; its caller's address lies in its entry, which is found from the operand of its own jump: from rip, which
 * may be at the second instruction, back to the stub's beginning (and -16), there the displacement at byte 9, relative to
 * byte 13. Unwinders look callers up by return address - 1, hence the pad in front. Entries lie above the stubs, so that the
 * displacement is positive, as deref_size extends by zeros.
 *
 * Some unwinders keep not rip itself but where it is saved: the slot. Whoever takes the stub off it while one of these is at
 * the stub's frame (a tick, or the personality routine) leaves it with a return address instead. No return address lies in
 * 16 bytes that begin as a stub does, since there is no call in them: so where they do not (bytes 0 and 1, 6 and 7), the
 * caller's address is in the slot. */
#define STUBS 16384
#define ENTRY 32
#define HIT   24

        .section .text.stile__stubs, "ax", @progbits
        .cfi_startproc
        .cfi_personality 0x9b, stile__barrier_personality_at
        .cfi_def_cfa %rsp, 0
        /* rip: expression of 42 bytes, with the CFA on its stack: breg16 0, const1s -16, and, */
        .cfi_escape 0x10, 0x10, 0x2a, 0x80, 0x00, 0x09, 0xf0, 0x1a
        /* dup, deref_size 2, const2u, ne, over, plus_uconst 6, deref_size 2, const2u, ne, or, bra 11, */
        .cfi_escape 0x12, 0x94, 0x02, 0x0a, 0xc6, 0x05, 0x2e, 0x14, 0x23, 0x06, 0x94, 0x02, 0x0a, 0x01, 0xff, 0x2e, 0x21
        .cfi_escape 0x28, 0x0b, 0x00
        /* dup, plus_uconst 9, deref_size 4, plus, plus_uconst 13, skip 4, drop, const1u 8, minus,
         * plus_uconst 0 (libdw jumps to instructions only, not to the end; LLVM has no nop) */
        .cfi_escape 0x12, 0x23, 0x09, 0x94, 0x04, 0x22, 0x23, 0x0d, 0x2f, 0x04, 0x00, 0x13, 0x08, 0x08, 0x1c, 0x23, 0x00
        .balign 16
        .globl  stile__stub_pool
        .hidden stile__stub_pool
        .type   stile__stub_pool, @function
stile__stub_pool_pad:
        .skip   16, 0xcc
stile__stub_pool:
        .set    i, 0
        .rept   STUBS
        movb    $1, stile__stub_entries + ENTRY * i + HIT(%rip)
        jmp     *stile__stub_entries + ENTRY * i(%rip)
        .balign 16, 0xcc
        .set    i, i + 1
        .endr
        .size   stile__stub_pool, . - stile__stub_pool
        .cfi_endproc

/* Landing k: an unwinder has installed the frame of a stub here, with the exception in rax and the stub's return address in
 * rdx. The return address goes back to its slot, and the unwinder is entered as if the caller had called it. */
        .section .text.stile__landings, "ax", @progbits
        .balign 16
        .globl  stile__landing_pool
        .hidden stile__landing_pool
        .type   stile__landing_pool, @function
        .set    stile__landing_pool, . + 16
        .set    k, 0
        .rept   8
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_register %rip, %rdx
        .skip   1, 0xcc /* some unwinders look interrupted instructions up as they do callers */
        .balign 16, 0xcc
        push    %rdx
        .cfi_def_cfa %rsp, 8
        .cfi_offset %rip, -8
        mov     %rax, %rdi
        jmp     *stile__landing_resumes + 8 * k(%rip)
        .cfi_endproc
        .set    k, k + 1
        .endr
        .balign 16, 0xcc
        .size   stile__landing_pool, . - stile__landing_pool

        .section .data.rel.ro.stile__stubs, "aw", @progbits
        .balign 8
        .globl  stile__stubs
        .hidden stile__stubs
        .type   stile__stubs, @object
        .size   stile__stubs, 8
stile__stubs:
        .quad   stile__stub_pool

        .section .bss.stile__stub_entries, "aw", @nobits
        .balign 4096
        .globl  stile__stub_entries
        .hidden stile__stub_entries
        .type   stile__stub_entries, @object
        .size   stile__stub_entries, STUBS * ENTRY
stile__stub_entries:
        .skip   STUBS * ENTRY

/* The personality routine, and where the landings go on: for each unwinder its own. Set by personality.c. In the file, as
 * unwinders of other processes' stacks read them there. */
        .section .data.stile__landings, "aw", @progbits
        .balign 8
        .globl  stile__barrier_personality_at
        .hidden stile__barrier_personality_at
        .type   stile__barrier_personality_at, @object
        .size   stile__barrier_personality_at, 8
stile__barrier_personality_at:
        .quad   0
        .globl  stile__landing_resumes
        .hidden stile__landing_resumes
        .type   stile__landing_resumes, @object
        .size   stile__landing_resumes, 64
stile__landing_resumes:
        .skip   64

        .section .note.GNU-stack, "", @progbits
