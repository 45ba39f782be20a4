/* Between registers.c and registers_asm.S: what all registers hold. */
#ifndef STILE_E2E_REGISTERS_H
#define STILE_E2E_REGISTERS_H

#define IMAGES      16 /* depths share them; a power of two */
#define IMAGE_XSAVE 4096
#define IMAGE_GPRS  IMAGE_XSAVE
#define IMAGE_COUNT 15 /* rax rdx rcx rsi rdi r8-r11, then those that callees keep: rbx rbp r12-r15 */
#define IMAGE_FLAGS (IMAGE_GPRS + 8 * IMAGE_COUNT)
#define IMAGE_SIZE  (IMAGE_XSAVE + 128)

#endif
