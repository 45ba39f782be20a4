/* Frames of all shapes that an unwinder has to know: `odd_frames [PART] MS` works in each part, or in one, for so long.
 * Each part is a function of its own name below main; what it calls is named after it. None of them is inlined or
 * changed by the compiler, and a caller adds to what it gets, so that its call is no jump. What C cannot say is in
 * odd_frames_asm.S. */
#include <alloca.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odd_frames.h"
#include "work.h"

/* Calls a step again and again for so much CPU time. In the macro's place, so that a part calls its step itself. */
#define REPEAT(ns, step)                                                                                     \
    do {                                                                                                     \
        uint64_t begin = thread_cpu_ns();                                                                    \
        do {                                                                                                 \
            for (int i = 0; i < 2000; i++)                                                                   \
                sum += (step);                                                                               \
        } while (thread_cpu_ns() - begin < (ns));                                                            \
    } while (0)

/* What takes some cycles, each waiting for the one before: a function without any would hardly ever be sampled. */
#define SOME(x) (((x)*5 | 1) * (x) * ((x) ^ 3) * (x))

static volatile uint64_t seed = 3;
static uint64_t sum;

/* --- Three functions in a tight loop, with registers saved and put back around each call. */

WORK static uint64_t chain_c(uint64_t x)
{
    return SOME(x) + 1;
}

WORK static uint64_t chain_b(uint64_t x)
{
    uint64_t a = x * 3, b = x ^ 7, c = x >> 3, d = x + 9, e = x | 5;
    return chain_c(x) + a * b + c * d + e;
}

WORK static uint64_t chain_a(uint64_t x)
{
    uint64_t a = x * 5, b = x ^ 11, c = x >> 5;
    return (chain_b(x) + a) * (chain_b(a) ^ b) + c;
}

WORK static void part_chain(uint64_t ns)
{
    REPEAT(ns, chain_a(seed));
}

/* --- A frame whose size is known at run time only. */

WORK static uint64_t alloca_leaf(volatile char *some, size_t size)
{
    some[0] = 1;
    some[size - 1] = 2;
    return size;
}

WORK static uint64_t alloca_middle(size_t size)
{
    return alloca_leaf(alloca(size), size) + 1;
}

WORK static uint64_t alloca_outer(uint64_t x)
{
    uint64_t used = 0;
    for (size_t size = 16; size <= 4096; size *= 2)
        used += alloca_middle(size + (x & 1));
    return used + 1;
}

WORK static void part_alloca(uint64_t ns)
{
    REPEAT(ns, alloca_outer(seed));
}

/* --- Locals that need more than the stack's alignment: the frame is found through where its arguments are. */

WORK static uint64_t drap_leaf(volatile uint64_t *aligned, volatile char *some, size_t size)
{
    aligned[0] = size;
    some[size - 1] = 1;
    return aligned[0] + ((uintptr_t)aligned & 31);
}

WORK static uint64_t drap_arguments(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                                    uint64_t on_stack, uint64_t too)
{
    _Alignas(32) volatile uint64_t aligned[4];
    volatile char some[24];
    return drap_leaf(aligned, some, sizeof(some)) + a * b + c * d + e * f + on_stack * too;
}

#pragma GCC diagnostic ignored "-Wvla" /* that is what this is about */
WORK static uint64_t drap_array(size_t size)
{
    _Alignas(64) volatile uint64_t aligned[8];
    volatile char some[size];
    return drap_leaf(aligned, some, size) + drap_arguments(size, 1, 2, 3, 4, 5, 6, aligned[0]);
}

WORK static uint64_t drap_outer(uint64_t x)
{
    uint64_t used = 0;
    for (size_t size = 8; size <= 512; size *= 2)
        used += drap_array(size + (x & 1));
    return used + 1;
}

WORK static void part_drap(uint64_t ns)
{
    REPEAT(ns, drap_outer(seed));
}

/* --- Frames beyond what two bytes of an offset hold. */

WORK static uint64_t large_leaf(volatile char *some)
{
    some[64] = 1;
    return SOME((uint64_t)some[64]);
}

WORK static uint64_t large_middle(uint64_t x)
{
    volatile char some[100000];
    some[0] = some[sizeof(some) - 1] = (char)x;
    return large_leaf(some) + 1;
}

WORK static uint64_t large_outer(uint64_t x)
{
    volatile char some[40000];
    some[0] = some[sizeof(some) - 1] = (char)x;
    return large_middle(x) + large_leaf(some) + 1;
}

WORK static void part_large(uint64_t ns)
{
    REPEAT(ns, large_outer(seed));
}

/* --- Tail calls: each function is called by the part itself, as far as the stack knows. */

WORK static uint64_t tail_c(uint64_t x)
{
    return SOME(x);
}

WORK static uint64_t tail_b(uint64_t x)
{
    uint64_t a = x * 3;
    return tail_c(a + chain_c(x));
}

WORK static uint64_t tail_a(uint64_t x)
{
    uint64_t a = x ^ 3, b = x >> 7;
    a += chain_c(b);
    return tail_b(a * b);
}

WORK static void part_tail(uint64_t ns)
{
    REPEAT(ns, tail_a(seed));
}

/* --- Code that the compiler puts far from its function, with rules of its own, and a function that is all there. */

__attribute__((cold)) WORK static uint64_t cold_note(uint64_t x)
{
    return SOME(x);
}

__attribute__((cold)) WORK static uint64_t cold_function(uint64_t x)
{
    for (int i = 0; i < 20; i++)
        x = x * 5 + chain_c(x);
    return x;
}

WORK static uint64_t with_cold_part(uint64_t x)
{
    uint64_t a = x * 3, b = chain_c(x);
    if (__builtin_expect(a != 0, 0)) {
        a += cold_note(a);
        for (int i = 0; i < 40; i++) {
            a = a * 5 + b;
            __asm__ volatile("" : "+r"(a));
        }
        a += chain_c(a);
        a += cold_note(a);
    }
    return a * b + 1;
}

WORK static void part_cold(uint64_t ns)
{
    REPEAT(ns, with_cold_part(seed) + cold_function(seed));
}

/* --- By hand. */

WORK static void part_asm_pusher(uint64_t ns)
{
    REPEAT(ns, asm_pusher(10));
}

WORK static void part_asm_cfa_rax(uint64_t ns)
{
    REPEAT(ns, asm_cfa_in_rax(20));
}

WORK static void part_asm_cfa_r11(uint64_t ns)
{
    REPEAT(ns, asm_cfa_in_r11(20));
}

WORK static void part_asm_cfa_rbx(uint64_t ns)
{
    REPEAT(ns, asm_cfa_in_rbx(1));
}

WORK static void part_asm_rbp(uint64_t ns)
{
    REPEAT(ns, asm_rbp_garbage(1));
}

WORK static void part_asm_return(uint64_t ns)
{
    REPEAT(ns, asm_return_in_r11(20));
}

/* --- A call that is the last instruction of its function: it returns to where the next one begins. */

static jmp_buf back;

WORK void noreturn_work(uint64_t ns)
{
    REPEAT(ns, chain_c(seed));
    longjmp(back, 1);
}

WORK static void part_noreturn(uint64_t ns)
{
    if (setjmp(back) == 0)
        asm_ends_with_noreturn(ns);
}

/* --- Through the procedure linkage table, which with LD_BIND_NOT in the environment binds anew at each call. */

WORK static void part_plt(uint64_t ns)
{
    REPEAT(ns, tiny_add(seed));
}

/* --- Into the kernel's library. */

WORK static void part_vdso(uint64_t ns)
{
    struct timespec t;
    REPEAT(ns, (uint64_t)clock_gettime(CLOCK_MONOTONIC, &t));
}

static const struct part {
    const char *name;
    void (*run)(uint64_t ns);
} parts[] = {
    {"chain", part_chain},
    {"alloca", part_alloca},
    {"drap", part_drap},
    {"large", part_large},
    {"tail", part_tail},
    {"cold", part_cold},
    {"asm_pusher", part_asm_pusher},
    {"asm_cfa_rax", part_asm_cfa_rax},
    {"asm_cfa_r11", part_asm_cfa_r11},
    {"asm_cfa_rbx", part_asm_cfa_rbx},
    {"asm_rbp", part_asm_rbp},
    {"asm_return", part_asm_return},
    {"noreturn", part_noreturn},
    {"plt", part_plt},
    {"vdso", part_vdso},
};

int main(int argc, char **argv)
{
    uint64_t ns = strtoull(argv[argc - 1], NULL, 10) * MS;
    const char *only = argc > 2 ? argv[1] : NULL;

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        if (only == NULL || strcmp(only, parts[i].name) == 0)
            parts[i].run(ns);
    puts("done");
    return 0;
}
