/* Coroutines whose stacks are arrays in a live frame of the thread's own stack: `in_frames WAY MS`, where WAY is
 *   turns      some dozens of them take turns, resumed from different depths (ucontext)
 *   plain      the same with a switch of a few instructions
 *   preempted  signals take them off the processor, inside a barrier's stub if there are any
 *   handed     another thread resumes them, while the frame lives and its own thread works
 *   alternate  no coroutine, but a handler of such signals: its alternate stack is such an array, and it goes deep
 *   storm      the same on the stack that was interrupted
 * Each goes through deep.h's frames, so says at the end whether a return led elsewhere. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

#include "deep.h"

#define N_COROUTINES 24
#define STACK        32768
#define OUTER        60 /* frames above all this */
#define DEPTH        48 /* of a coroutine */
#define STEPS        2000
#define TRAP_FLAG    0x100 /* of the flags register */

enum way { TURNS, PLAIN, PREEMPTED, HANDED, ALTERNATE, STORM, N_WAYS };
static const char *const names[N_WAYS] = {"turns", "plain", "preempted", "handed", "alternate", "storm"};

struct coroutine {
    ucontext_t context, resumer;
    void *sp, *resumer_sp; /* instead, of the plain switch */
    char *stack;
    uint64_t x;
    unsigned done; /* rounds */
    bool ended;
};

static enum way way;
static uint64_t until_ns;
static struct coroutine coroutines[N_COROUTINES];
static struct coroutine *volatile current; /* that the timer may take off */
static volatile bool stopping;             /* the coroutines are to end */
static volatile sig_atomic_t handled;
static unsigned steps; /* still to be made, one at a time */

/* Saves what a call keeps, and the stack pointer; takes another's. */
void plain_switch(void **from, void *to);
__asm__(".text\n"
        ".type plain_switch, @function\n"
        "plain_switch:\n"
        "    .cfi_startproc\n"
        "    push %rbp\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    push %rbx\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    push %r12\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    push %r13\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    push %r14\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    push %r15\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    pop %r14\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    pop %r13\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    pop %r12\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    pop %rbx\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    pop %rbp\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        "    .size plain_switch, . - plain_switch\n");

WORK static void yield(struct coroutine *c)
{
    if (way != TURNS && way != HANDED)
        plain_switch(&c->sp, c->resumer_sp);
    else
        swapcontext(&c->context, &c->resumer);
}

WORK static void resume(struct coroutine *c)
{
    if (way != TURNS && way != HANDED)
        plain_switch(&c->resumer_sp, c->sp);
    else
        swapcontext(&c->resumer, &c->context);
}

static void signals_open(bool open)
{
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGALRM);
    sigaddset(&both, SIGTRAP);
    pthread_sigmask(open ? SIG_UNBLOCK : SIG_BLOCK, &both, NULL);
}

static void yield_at_bottom(void *c)
{
    if (way != PREEMPTED)
        yield(c);
    else
        deep_do(NULL, 20, 7);
}

WORK static void coroutine_main(struct coroutine *c)
{
    struct deep d = {yield_at_bottom, c};
    while (!stopping) {
        deep_do(&d, DEPTH, c->x);
        c->x = deep_step(c->x);
        __atomic_store_n(&c->done, c->done + 1, __ATOMIC_RELAXED);
    }
    current = NULL;
    __atomic_store_n(&c->ended, true, __ATOMIC_RELEASE);
    yield(c);
    abort();
}

static void coroutine_begin(unsigned high, unsigned low)
{
    coroutine_main((struct coroutine *)((uintptr_t)high << 32 | low));
}

/* The first switch to a plain one returns to here, with the coroutine in r12. */
__asm__(".text\n"
        ".type plain_begin, @function\n"
        "plain_begin:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined %rip\n"
        "    mov %r12, %rdi\n"
        "    call plain_main\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        "    .size plain_begin, . - plain_begin\n");
extern char plain_begin[];
__attribute__((used)) void plain_main(struct coroutine *c);
void plain_main(struct coroutine *c)
{
    signals_open(true);
    coroutine_main(c);
}

static void coroutine_make(struct coroutine *c, char *stack, uint64_t x)
{
    c->x = x;
    c->stack = stack;
    if (way != TURNS && way != HANDED) {
        uint64_t *sp = (uint64_t *)(((uintptr_t)stack + STACK) & ~(uintptr_t)15) - 9;
        memset(sp, 0, 72);
        sp[3] = (uintptr_t)c; /* r12 */
        sp[6] = (uintptr_t)plain_begin;
        c->sp = sp;
        return;
    }
    if (getcontext(&c->context) != 0)
        abort();
    c->context.uc_stack.ss_sp = stack;
    c->context.uc_stack.ss_size = STACK;
    c->context.uc_link = NULL;
    makecontext(&c->context, (void (*)(void))coroutine_begin, 2, (unsigned)((uintptr_t)c >> 32),
                (unsigned)(uintptr_t)c);
}

static bool time_left(void)
{
    bool all = way != PREEMPTED || handled >= 100;
    for (unsigned i = 0; i < N_COROUTINES && (way <= PLAIN || way == HANDED); i++)
        all &= __atomic_load_n(&coroutines[i].done, __ATOMIC_RELAXED) >= 3;
    return process_cpu_ns() < until_ns || !all;
}

static void resume_it(void *c)
{
    resume(c);
}

/* All of them, one after the other, from different depths below the frame that has their stacks. */
static void take_turns(void)
{
    uint64_t x = 12345;
    for (bool left = true; left;) {
        stopping = !time_left();
        left = false;
        for (unsigned i = 0; i < N_COROUTINES; i++, x = deep_step(x)) {
            struct deep d = {resume_it, &coroutines[i]};
            if (coroutines[i].ended)
                continue;
            left = true;
            deep_do(&d, 1 + (unsigned)(x >> 50) % 40, x);
            if (i % 8 == 0)
                deep_do(NULL, 100, x); /* there are other barriers meanwhile */
        }
    }
}

/* Whether an instruction is one of a stub's two, by its bytes: movb $1 to, and jmp through, what is addressed from rip. */
static bool in_stub(uint64_t rip)
{
    const unsigned char *at = (const unsigned char *)(uintptr_t)rip;
    return (rip % 16 == 0 && at[0] == 0xc6 && at[1] == 0x05) ||
           (rip % 16 == 7 && at[0] == 0xff && at[1] == 0x25);
}

/* The timer starts to single-step what it interrupted, to the next stub or so far. */
static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    if (way == PREEMPTED && current == NULL)
        return;
    if (steps == 0)
        steps = STEPS;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void handle_deep(void)
{
    for (uint64_t begin = thread_cpu_ns(), x = begin; thread_cpu_ns() - begin < 3 * MS; x = deep_step(x))
        deep_do(NULL, 80, x);
    handled++;
}

static void on_step(int number, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct coroutine *c = current;
    (void)number;
    (void)info;
    if (!in_stub((uint64_t)regs[REG_RIP]) && steps > 1 && (way != PREEMPTED || c != NULL)) {
        steps--;
        return;
    }
    steps = 0;
    regs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    if (way != PREEMPTED) {
        handle_deep();
    } else if (c != NULL && (uintptr_t)regs[REG_RSP] - (uintptr_t)c->stack < STACK) {
        /* Off the processor: it is resumed by a return from this handler. */
        current = NULL;
        handled++;
        yield(c);
    }
}

static void timer_stop(void)
{
    struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);
}

/* A coroutine has the signals open, its scheduler never. */
static void resume_blocked(void *c)
{
    resume(c);
    signals_open(false);
}

static void run_preempted(void)
{
    uint64_t x = 999;
    signals_open(false);
    for (bool left = true; left;) {
        stopping = stopping || !time_left();
        if (stopping)
            timer_stop(); /* they run to their ends */
        left = false;
        for (unsigned i = 0; i < N_COROUTINES; i++, x = deep_step(x)) {
            struct coroutine *c = &coroutines[i];
            struct deep d = {resume_blocked, c};
            if (c->ended)
                continue;
            left = true;
            current = c;
            deep_do(&d, 1 + (unsigned)(x >> 50) % 40, x);
            for (uint64_t begin = thread_cpu_ns(); thread_cpu_ns() - begin < MS;)
                deep_do(NULL, 100, x);
        }
    }
    timer_stop();
    signals_open(true);
}

static pthread_t other;

static void other_turns(void *arg)
{
    (void)arg;
    take_turns();
}

static void *other_main(void *arg)
{
    struct deep d = {other_turns, arg};
    deep_do(&d, OUTER, 77);
    return NULL;
}

/* They begin on this thread, and go on on the other one. */
static void run_handed(void)
{
    uint64_t x = 4711;
    for (unsigned i = 0; i < N_COROUTINES; i++)
        resume(&coroutines[i]);
    if (pthread_create(&other, NULL, other_main, NULL) != 0)
        abort();
    while (time_left()) {
        deep_do(NULL, 100, x);
        x = deep_step(x);
    }
    pthread_join(other, NULL);
}

static void run_stormed(void)
{
    uint64_t x = 31337;
    while (time_left() || handled < 50) {
        deep_do(NULL, 100, x);
        x = deep_step(x);
    }
}

static void handle(int number, int flags, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_flags = SA_RESTART | SA_SIGINFO | flags};
    sigaddset(&action.sa_mask, SIGALRM);
    action.sa_sigaction = handler;
    if (sigaction(number, &action, NULL) != 0)
        abort();
}

static void timer_set(int flags, long us)
{
    struct itimerval each = {{0, us}, {0, us}};
    handle(SIGTRAP, flags, on_step);
    handle(SIGALRM, flags, on_timer);
    if (setitimer(ITIMER_REAL, &each, NULL) != 0)
        abort();
}

/* This frame has the stacks. */
WORK static void with_stacks(void *arg)
{
    char stacks[N_COROUTINES][STACK] __attribute__((aligned(16)));
    stack_t alternate = {.ss_sp = stacks, .ss_size = sizeof stacks}, before;
    (void)arg;
    __asm__ volatile("" : : "r"(stacks) : "memory");
    for (unsigned i = 0; i < N_COROUTINES; i++)
        coroutine_make(&coroutines[i], stacks[i], i + 1);
    switch (way) {
    case PREEMPTED:
        timer_set(0, 5000);
        run_preempted();
        break;
    case HANDED:
        run_handed();
        break;
    case ALTERNATE:
        if (sigaltstack(&alternate, &before) != 0)
            abort();
        timer_set(SA_ONSTACK, 10000);
        run_stormed();
        timer_stop();
        if (sigaltstack(&before, NULL) != 0)
            abort();
        break;
    case STORM:
        timer_set(0, 10000);
        run_stormed();
        timer_stop();
        break;
    default:
        take_turns();
    }
    __asm__ volatile("" : : "r"(stacks) : "memory");
}

int main(int argc, char **argv)
{
    struct deep d = {with_stacks, NULL};

    if (argc < 3)
        return 2;
    while (way < N_WAYS && strcmp(argv[1], names[way]) != 0)
        way++;
    if (way == N_WAYS)
        return 2;
    until_ns = process_cpu_ns() + strtoull(argv[2], NULL, 10) * MS;
    deep_do(&d, OUTER, 5);
    printf("wrong %ld\n", deep_wrong);
    return 0;
}
