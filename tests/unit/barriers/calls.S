/* Calls as the assembler encodes them, for test_call_site.c: of each, where it ends and how long it is. Never run. */
        .macro  a_call insn:vararg
        .balign 16, 0xcc
        .skip   16, 0xcc
8:      \insn
9:
        .pushsection .data.rel.ro.calls, "aw", @progbits
        .quad   9b, 9b - 8b
        .popsection
        .endm

        .section .data.rel.ro.calls, "aw", @progbits
        .balign 8
        .globl  calls_assembled
calls_assembled:
        .section .text.calls, "ax", @progbits
        .balign 4096
        .globl  calls_code
calls_code:
        /* Relative: E8. */
        a_call  call calls_code
        a_call  call 7f + 0x12345678
7:      a_call  .byte 0xe8, 0, 0, 0, 0
        a_call  .byte 0xe8, 0xff, 0xff, 0xff, 0xff
        a_call  .byte 0xe8, 0x90, 0x90, 0xff, 0xd0
        a_call  .byte 0x66, 0x48, 0xe8, 1, 2, 3, 4 /* as in calls of __tls_get_addr */
        a_call  .byte 0x66, 0x66, 0x48, 0xe8, 1, 2, 3, 4
        a_call  .byte 0x40, 0xe8, 1, 2, 3, 4
        a_call  .byte 0x48, 0xe8, 1, 2, 3, 4
        a_call  .byte 0x67, 0xe8, 1, 2, 3, 4 /* as linkers write where there was a call through the GOT */
        a_call  .byte 0x2e, 0xe8, 1, 2, 3, 4
        a_call  bnd call calls_code

        /* Through a register, and through memory that one points to. */
        .irp    r, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        a_call  call *%\r
        a_call  notrack call *%\r
        a_call  bnd call *%\r
        a_call  call *(%\r)
        a_call  notrack call *(%\r)
        a_call  call *%fs:(%\r)
        a_call  call *%gs:0x10(%\r)
        a_call  call *%fs:0x12345(%\r)
        a_call  call *0x12(%\r)
        a_call  call *-8(%\r)
        a_call  call *-1(%\r)
        a_call  call *0x12345678(%\r)
        a_call  call *-0x12345(%\r)
        a_call  call *-1000(%\r)
        .irp    i, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        .irp    s, 1, 2, 4, 8
        a_call  call *(%\r, %\i, \s)
        a_call  call *0x7f(%\r, %\i, \s)
        a_call  call *-0x80(%\r, %\i, \s)
        a_call  call *0x11223344(%\r, %\i, \s)
        a_call  call *%fs:-0x1122(%\r, %\i, \s)
        .endr
        .endr
        .endr
        .irp    r, eax, ecx, edx, ebx, esp, ebp, esi, edi, r8d, r12d, r13d
        a_call  call *(%\r)
        a_call  call *0x12(%\r)
        a_call  call *0x12345678(%\r)
        .endr
        /* Without a base, absolute, and from rip. */
        .irp    i, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        .irp    s, 1, 2, 4, 8
        a_call  call *0x11223344(, %\i, \s)
        a_call  call *-8(, %\i, \s)
        .endr
        .endr
        a_call  call *0x12345678
        a_call  call *%fs:0x28
        a_call  call *%gs:0x10
        a_call  call *calls_assembled(%rip)
        a_call  call *-0x1234(%rip)
        a_call  notrack call *calls_assembled(%rip)
        a_call  call *%fs:16(%rip)
        a_call  .byte 0x66, 0xff, 0xd0
        a_call  .byte 0x48, 0xff, 0xd0
        a_call  .byte 0x4f, 0xff, 0xd7
        a_call  .byte 0x66, 0x48, 0xff, 0x15, 1, 2, 3, 4
        .globl  calls_code_end
calls_code_end:
        .skip   16, 0xcc

        .section .data.rel.ro.calls, "aw", @progbits
        .globl  calls_assembled_end
calls_assembled_end:
        .section .note.GNU-stack, "", @progbits
