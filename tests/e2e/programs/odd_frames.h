/* The functions of odd_frames.c that are elsewhere: in assembly (see odd_frames_asm.S), and in a library. */
#ifndef STILE_E2E_ODD_FRAMES_H
#define STILE_E2E_ODD_FRAMES_H

#include <stdint.h>

uint64_t asm_pusher(uint64_t rounds);
uint64_t asm_cfa_in_rax(uint64_t rounds);
uint64_t asm_cfa_in_r11(uint64_t rounds);
uint64_t asm_cfa_in_rbx(uint64_t rounds);
uint64_t asm_rbp_garbage(uint64_t rounds);
uint64_t asm_return_in_r11(uint64_t rounds);
_Noreturn void asm_ends_with_noreturn(uint64_t ns);
_Noreturn void noreturn_work(uint64_t ns);

__attribute__((visibility("default"))) uint64_t tiny_add(uint64_t x);

#endif
