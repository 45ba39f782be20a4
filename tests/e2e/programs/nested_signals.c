/* Signal handlers that work: `nested_signals WAY MS`, where WAY is
 *   normal      on the stack that was interrupted
 *   nested      the same, interrupted by another one
 *   alternate   on an alternate stack
 *   alternate_nested  the same, interrupted by another one, which runs there too
 *   first       at the first instruction of a function
 *   anywhere    by a timer, wherever three functions in a loop are
 *   anywhere_alternate  the same on an alternate stack
 * What is interrupted is below `interrupted`; the handlers are on_first and, nested, on_second. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "work.h"

static uint64_t work_ns;
static bool nested;
static uint64_t sum;

WORK static uint64_t spin_in_first(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t spin_in_second(uint64_t ns)
{
    return burn(ns);
}

/* The signal is delivered on the way out of this very system call: right here, with no function of libc's between. */
static inline __attribute__((always_inline)) void signal_self(int number)
{
    long result = SYS_tgkill;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(getpid()), "S"(gettid()), "d"(number)
                     : "rcx", "r11", "memory");
}

WORK static void on_second(int number)
{
    (void)number;
    sum += spin_in_second(work_ns);
}

WORK static void on_first(int number, siginfo_t *info, void *context)
{
    (void)info;
    if (number == SIGILL)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; /* over the ud2 */
    if (nested)
        signal_self(SIGUSR2);
    sum += spin_in_first(work_ns);
}

WORK static uint64_t interrupted_c(uint64_t x)
{
    signal_self(SIGUSR1);
    return x + 1;
}

WORK static uint64_t interrupted_b(uint64_t x)
{
    return interrupted_c(x + 1) + 1;
}

WORK static uint64_t interrupted(uint64_t x)
{
    return interrupted_b(x + 1) + 1;
}

/* A function that traps at its first instruction: the one before that address is another function's, whose frame is
 * larger, and whose last instruction it is. */
__asm__(".text\n"
        ".type before_first, @function\n"
        "before_first:\n"
        "    .cfi_startproc\n"
        "    sub $1000, %rsp\n"
        "    .cfi_adjust_cfa_offset 1000\n"
        "    hlt\n"
        "    .cfi_endproc\n"
        "    .size before_first, . - before_first\n"
        ".type traps_at_first, @function\n"
        "traps_at_first:\n"
        "    .cfi_startproc\n"
        "    ud2\n"
        "    mov $1, %eax\n"
        "    ret\n"
        "    .cfi_endproc\n"
        "    .size traps_at_first, . - traps_at_first\n");
uint64_t traps_at_first(void);

WORK static uint64_t interrupted_at_first(void)
{
    return traps_at_first() + 1;
}

WORK static uint64_t anywhere_c(uint64_t x)
{
    return x * 6364136223846793005u + 1;
}

WORK static uint64_t anywhere_b(uint64_t x)
{
    uint64_t a = x * 3, b = x ^ 7, c = x >> 3;
    return anywhere_c(x) + a * b + c;
}

WORK static uint64_t anywhere_a(uint64_t x)
{
    return anywhere_b(x + 1) * anywhere_b(x) + x;
}

WORK static void interrupted_anywhere(uint64_t ns)
{
    uint64_t begin = thread_cpu_ns();
    struct itimerval each = {{0, 1000}, {0, 1000}}, none = {{0, 0}, {0, 0}};

    setitimer(ITIMER_REAL, &each, NULL);
    do {
        for (int i = 0; i < 2000; i++)
            sum += anywhere_a((uint64_t)i);
    } while (thread_cpu_ns() - begin < ns);
    setitimer(ITIMER_REAL, &none, NULL);
}

static void handle(int number, bool on_stack, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART | (on_stack ? SA_ONSTACK : 0);
    if (sigaction(number, &action, NULL) != 0)
        exit(1);
}

static void handle_second(bool on_stack)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_second;
    action.sa_flags = SA_RESTART | (on_stack ? SA_ONSTACK : 0);
    if (sigaction(SIGUSR2, &action, NULL) != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    static char alternate[65536] __attribute__((aligned(16)));
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
    const char *way = argc > 2 ? argv[1] : "";
    bool on_stack = strstr(way, "alternate") != NULL;

    work_ns = strtoull(argv[argc - 1], NULL, 10) * MS;
    nested = strstr(way, "nested") != NULL;
    if (on_stack && sigaltstack(&stack, NULL) != 0)
        return 1;
    handle(SIGUSR1, on_stack, on_first);
    handle(SIGILL, on_stack, on_first);
    handle(SIGALRM, on_stack, on_first);
    handle_second(on_stack);

    if (strcmp(way, "first") == 0) {
        interrupted_at_first();
    } else if (strncmp(way, "anywhere", 8) == 0) {
        uint64_t all = work_ns;
        work_ns = MS / 4; /* of each millisecond, so that the loop comes on */
        interrupted_anywhere(all);
    } else {
        interrupted(1);
    }
    puts("done");
    return 0;
}
