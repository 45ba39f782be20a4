// Signals that arrive deep on a stack: `deep_signals WAY MS`, where WAY is
//   nested     handlers that go deep and are interrupted by others that do, on the stack that was interrupted
//   small      the same on an alternate stack of 16 KiB, not so deep
//   large      the same on one of 256 KiB
//   fault      a fault deep down, whose handler throws: caught below all those frames
//   raised     the same with a signal that the program raises, and one that a timer sends while it waits
//   jump       handlers that leave by siglongjmp, from deep in themselves, on both kinds of stacks
// Built with -fnon-call-exceptions and -fasynchronous-unwind-tables.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sys/time.h>
#include <unistd.h>

#include "deep.h"

namespace
{

enum way { NESTED, SMALL, LARGE, FAULT, RAISED, JUMP, N_WAYS };
const char *const names[N_WAYS] = {"nested", "small", "large", "fault", "raised", "jump"};
way what;
uint64_t until_ns;
volatile sig_atomic_t first_handled, second_handled;
long destroyed;
unsigned depth_in_handler = 80;

struct thrown {
    uint64_t x;
};
struct guard {
    ~guard()
    {
        destroyed++;
    }
};

bool time_left()
{
    return process_cpu_ns() < until_ns;
}

void handle(int number, int flags, void (*handler)(int), bool defer = true)
{
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | flags | (defer ? 0 : SA_NODEFER);
    if (sigaction(number, &action, nullptr) != 0)
        abort();
}

void timer(long us)
{
    struct itimerval each = {{0, us}, {0, us}};
    if (setitimer(ITIMER_REAL, &each, nullptr) != 0)
        abort();
}

void work_in_handler(uint64_t ns)
{
    for (uint64_t begin = thread_cpu_ns(), x = begin; thread_cpu_ns() - begin < ns; x = deep_step(x))
        deep_do(nullptr, depth_in_handler, x);
}

// --- Handlers that return

void on_second(int)
{
    work_in_handler(MS / 4);
    second_handled = second_handled + 1;
}

void raise_second(void *)
{
    raise(SIGUSR2);
}

void on_first(int)
{
    struct deep d = {raise_second, nullptr};
    work_in_handler(MS / 4);
    deep_do(&d, depth_in_handler, 3);
    first_handled = first_handled + 1;
}

void run_returning()
{
    timer(3000);
    for (uint64_t x = 1; time_left() || first_handled < 50; x = deep_step(x))
        deep_do(nullptr, 250, x);
    timer(0);
    deep_check(second_handled == first_handled);
}

// --- Handlers that throw

volatile int *volatile nowhere;
// libc says of its functions that they do not throw.
int (*volatile raise_it)(int) = raise;
int (*volatile mask_it)(int, const sigset_t *, sigset_t *) = sigprocmask;

void blocked(int number, bool block)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
}

void on_fault(int number)
{
    guard g;
    if (number != SIGALRM)
        blocked(number, false);
    throw thrown{4711};
}

// Nothing here is to be destroyed: a throw may come at any instruction.
WORK void fault_here(uint64_t x)
{
    sigset_t timer_only;
    sigemptyset(&timer_only);
    sigaddset(&timer_only, SIGALRM);
    burn(MS / 10);
    if (what == FAULT) {
        *nowhere = 1;
    } else if (x % 3 == 0) {
        mask_it(SIG_UNBLOCK, &timer_only, nullptr);
        for (volatile uint64_t spun = 0;; spun = spun + 1)
            ;
    } else {
        raise_it(SIGUSR1);
    }
}

WORK uint64_t fall(unsigned depth, uint64_t x)
{
    guard g;
    volatile uint64_t canary = x;
    uint64_t below = x;
    if (depth > 1)
        below = fall(depth - 1, deep_step(x));
    else
        fault_here(x >> 40);
    deep_check(canary == x);
    return deep_fold(below, x);
}

void run_throwing()
{
    if (what == RAISED) {
        blocked(SIGALRM, true);
        timer(1000);
    }
    for (uint64_t x = 1, rounds = 1; time_left() || rounds < 20; x = deep_step(x), rounds++) {
        unsigned depth = 20 + (unsigned)(x >> 40) % 200;
        long before = destroyed;
        bool caught = false;
        try {
            fall(depth, x);
        } catch (const thrown &t) {
            caught = t.x == 4711;
        }
        deep_check(caught && destroyed - before == (long)depth + 1);
        deep_do(nullptr, depth, x);
    }
}

// --- Handlers that jump

sigjmp_buf back;
volatile sig_atomic_t may_jump;

void jump_away(void *)
{
    siglongjmp(back, 1);
}

void on_jump(int)
{
    struct deep d = {jump_away, nullptr};
    work_in_handler(MS / 5);
    if (may_jump) {
        may_jump = 0;
        deep_do(&d, 40, 3);
    }
}

void wait_deep(void *)
{
    while (may_jump)
        deep_do(nullptr, 60, 5);
}

void run_jumping()
{
    volatile uint64_t x = 1;
    volatile unsigned rounds = 0;
    struct deep d = {wait_deep, nullptr};
    timer(1500);
    while (time_left() || rounds < 20) {
        handle(SIGALRM, rounds % 2 == 0 ? 0 : SA_ONSTACK, on_jump);
        if (sigsetjmp(back, 1) == 0) {
            may_jump = 1;
            deep_do(&d, 20 + (unsigned)(x >> 40) % 200, x);
            deep_check(false);
        }
        rounds = rounds + 1;
        x = deep_step(x);
        deep_do(nullptr, 250, x);
    }
    timer(0);
}

void run(void *)
{
    if (what == FAULT || what == RAISED)
        run_throwing();
    else if (what == JUMP)
        run_jumping();
    else
        run_returning();
}

} // namespace

int main(int argc, char **argv)
{
    static char alternate[256 << 10] __attribute__((aligned(16)));
    struct deep d = {run, nullptr};
    stack_t stack = {};
    int n = 0;

    if (argc < 3)
        return 2;
    while (n < N_WAYS && strcmp(argv[1], names[n]) != 0)
        n++;
    if (n == N_WAYS)
        return 2;
    what = (way)n;
    until_ns = process_cpu_ns() + strtoull(argv[2], nullptr, 10) * MS;
    stack.ss_sp = alternate;
    stack.ss_size = what == SMALL ? 16 << 10 : sizeof alternate;
    if ((what == SMALL || what == LARGE || what == JUMP) && sigaltstack(&stack, nullptr) != 0)
        return 1;
    if (what == SMALL)
        depth_in_handler = 12;
    int flags = what == SMALL || what == LARGE ? SA_ONSTACK : 0;
    handle(SIGALRM, flags, what == RAISED ? on_fault : on_first);
    handle(SIGUSR2, flags, on_second);
    handle(SIGSEGV, 0, on_fault);
    handle(SIGUSR1, 0, on_fault);
    deep_do(&d, 100, 5);
    std::printf("wrong %ld\n", deep_wrong);
    return 0;
}
