/* A setjmp of the program's own, which a function that has done deep work jumps to: what it keeps as its caller's address has
 * to be that, however many other frames have come and gone by the time somebody goes on there.
 *
 *   own_setjmp SECONDS   of CPU time; prints what was wrong: nothing */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct place {
    uint64_t registers[8];
    unsigned work;
};

int place_keep(struct place *p);
void place_go(struct place *p);
__asm__(
    ".globl place_keep\n.type place_keep, @function\nplace_keep:\n.cfi_startproc\n"
    " mov %rbx, (%rdi)\n mov %rbp, 8(%rdi)\n mov %r12, 16(%rdi)\n mov %r13, 24(%rdi)\n mov %r14, 32(%rdi)\n"
    " mov %r15, 40(%rdi)\n lea 8(%rsp), %rax\n mov %rax, 48(%rdi)\n mov (%rsp), %rax\n mov %rax, 56(%rdi)\n"
    " xor %eax, %eax\n ret\n.cfi_endproc\n.size place_keep, . - place_keep\n"
    ".globl place_go\n.type place_go, @function\nplace_go:\n.cfi_startproc\n"
    " mov (%rdi), %rbx\n mov 8(%rdi), %rbp\n mov 16(%rdi), %r12\n mov 24(%rdi), %r13\n mov 32(%rdi), %r14\n"
    " mov 40(%rdi), %r15\n mov 48(%rdi), %rsp\n mov $1, %eax\n jmp *56(%rdi)\n.cfi_endproc\n"
    ".size place_go, . - place_go\n");

__attribute__((noipa)) static unsigned down(unsigned depth, unsigned n)
{
    if (depth > 0) {
        const unsigned got = down(depth - 1, n + 1);
        __asm__ volatile("" ::: "memory"); /* no loop */
        return got + 1;
    }
    for (unsigned i = 0; i < 100000; i++) /* ticks come meanwhile */
        n = n * 1664525u + 1013904223u;
    return n;
}

__attribute__((noipa)) static void leave(struct place *p, unsigned depth)
{
    if (depth > 0)
        leave(p, depth - 1);
    for (unsigned i = 0; i < 10; i++)
        p->work += down(60, i);
    place_go(p);
}

/* A jump: nothing is left to do here. */
__attribute__((noipa)) static int keep(struct place *p)
{
    p->work += down(40, p->work);
    return place_keep(p);
}

__attribute__((noipa)) static unsigned once(unsigned depth)
{
    struct place p = {.work = depth};
    volatile unsigned canary = 77 + depth;
    if (keep(&p) == 0)
        leave(&p, depth);
    return canary == 77 + depth ? p.work : 0;
}

static double seconds_used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    const double end = argc == 2 ? atof(argv[1]) : 0;
    unsigned first[60] = {0}, wrong = 0;
    for (unsigned round = 0; seconds_used() < end; round++) {
        const unsigned depth = round % 60, got = once(depth);
        wrong += got == 0 || (first[depth] != 0 && first[depth] != got);
        first[depth] = got;
    }
    printf("wrong: %u\n", wrong);
    return 0;
}
