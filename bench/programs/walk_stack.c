/* The recursion that is walked. Compiled twice, as WALK_STACK: see bench/CMakeLists.txt. */
#include "bench/programs/walk_stack.h"

#define STEPS 16

typedef void step_fn(uint32_t depth, const struct walk_stack *stack);
static step_fn *const steps[];

/* As in a program: which function is above which does not repeat soon. */
static step_fn *step_above(uint32_t depth)
{
    return steps[depth * 2654435761u >> 28];
}

/* Keeps the room, and the call from being the last thing done. */
#define KEEP(room) __asm__ volatile("" : : "r"(room) : "memory")

/* A frame of its own size. */
#define STEP(name, bytes)                                                                                    \
    static __attribute__((noinline, noclone)) void name(uint32_t depth, const struct walk_stack *stack)      \
    {                                                                                                        \
        char room[bytes];                                                                                    \
        if (depth <= 1) {                                                                                    \
            struct walk_place at;                                                                            \
            __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"                            \
                             : "=&r"(at.pc), "=&r"(at.rsp), "=&r"(at.rbp));                                  \
            stack->then(&at, stack->arg);                                                                    \
        } else {                                                                                             \
            step_above(depth)(depth - 1, stack);                                                             \
        }                                                                                                    \
        KEEP(room);                                                                                          \
    }

STEP(step_0, 8)
STEP(step_1, 200)
STEP(step_2, 24)
STEP(step_3, 72)
STEP(step_4, 40)
STEP(step_5, 16)
STEP(step_6, 120)
STEP(step_7, 48)
STEP(step_8, 32)
STEP(step_9, 96)
STEP(step_a, 8)
STEP(step_b, 56)
STEP(step_c, 152)
STEP(step_d, 24)
STEP(step_e, 64)
STEP(step_f, 40)

static step_fn *const steps[STEPS] = {step_0, step_1, step_2, step_3, step_4, step_5, step_6, step_7,
                                      step_8, step_9, step_a, step_b, step_c, step_d, step_e, step_f};

void WALK_STACK(uint32_t depth, const struct walk_stack *stack)
{
    step_above(depth)(depth, stack);
    KEEP(stack);
}
