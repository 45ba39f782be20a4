/* callers WHAT ROUNDS: functions that go by their own return address, called, and jumped to after deep work, whose results
 * must not differ. Between, enough is done for any stub that was kept to be used for something else. */
#include "callers.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barring.h"

#define NOINLINE __attribute__((noipa))

static unsigned (*bar)(void);
static volatile unsigned sink;

static NOINLINE unsigned deep(int n)
{
    if (n > 0)
        return deep(n - 1) + sink;
    for (volatile unsigned i = 0; i < 40000; i++)
        sink += i;
    if (bar != NULL)
        bar();
    return sink;
}

__attribute__((visibility("default"))) NOINLINE void callers_work(void)
{
    sink = deep(20);
}

static void reuse(void)
{
    for (int i = 0; i < (bar != NULL ? 12 : 2); i++)
        callers_work();
}

static NOINLINE void wrong(const char *what, int jump)
{
    printf("%s %s: wrong\n", jump ? "jump" : "call", what);
    fflush(stdout);
    _exit(1);
}

static const char *said(void *which)
{
    if (which == NULL)
        return "";
    return ((const char *(*)(void))which)();
}

static void next(int jump)
{
    if (strcmp(said(callers_next(jump)), "second") != 0)
        wrong("dlsym", jump);
    if (strcmp(said(callers_next_version(jump)), "second") != 0)
        wrong("dlvsym", jump);
}

static void load(int jump)
{
    void *a = callers_open(jump), *b = callers_mopen(LM_ID_BASE, jump);
    if (a == NULL || a != b || strcmp(said(dlsym(a, "callers_which")), "plugin") != 0)
        wrong("dlopen", jump);
    dlclose(b);
    dlclose(a);
    /* Not on the program's own path. */
    if ((jump ? jump_dlopen("callers_plugin.so", RTLD_NOW) : dlopen("callers_plugin.so", RTLD_NOW)) != NULL)
        wrong("dlopen by the program", jump);
    if (dlerror() == NULL || dlerror() != NULL)
        wrong("dlerror", jump);
}

static void namespace(int jump)
{
    void *a = callers_mopen(LM_ID_NEWLM, jump);
    if (a == NULL || strcmp(said(dlsym(a, "callers_which")), "plugin") != 0)
        wrong("dlmopen", jump);
    dlclose(a);
}

static void jumps(int jump, int which)
{
    jmp_buf to;
    sigjmp_buf mask_to;
    volatile int came = 0;
    int got;
    if (which == 2)
        got = jump ? jump___sigsetjmp(mask_to, 1) : sigsetjmp(mask_to, 1);
    else if (which == 1)
        got = jump ? jump__setjmp(to) : _setjmp(to);
    else
        got = jump ? jump_setjmp(to) : setjmp(to);
    if (got != came)
        wrong("setjmp", jump);
    if (came++ != 0)
        return;
    reuse();
    if (which == 2)
        siglongjmp(mask_to, 1);
    longjmp(to, 1);
}

static bool in_program(uintptr_t address)
{
    Dl_info where;
    return dladdr((void *)address, &where) != 0 && strcmp(strrchr(where.dli_fname, '/'), "/callers") == 0;
}

static uintptr_t resumes(const ucontext_t *context)
{
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
}

static void context(int jump)
{
    ucontext_t here;
    volatile int came = 0;
    if ((jump ? jump_getcontext(&here) : getcontext(&here)) != 0 || came > 1 || !in_program(resumes(&here)))
        wrong("getcontext", jump);
    if (came++ != 0)
        return;
    reuse();
    setcontext(&here);
}

static ucontext_t caller, fiber;
static volatile int fiber_steps;
static volatile bool resumes_here;

static void fiber_main(void)
{
    for (;;) {
        fiber_steps++;
        resumes_here = in_program(resumes(&caller));
        callers_work();
        swapcontext(&fiber, &caller);
        fiber_steps++;
        resumes_here = in_program(resumes(&caller));
        callers_work();
        jump_swapcontext(&fiber, &caller);
    }
}

static void swap(int jump)
{
    int steps = fiber_steps;
    if ((jump ? jump_swapcontext(&caller, &fiber) : swapcontext(&caller, &fiber)) != 0 ||
        fiber_steps != steps + 1 || !resumes_here || !in_program(resumes(&fiber)))
        wrong("swapcontext", jump);
    reuse();
}

static void child(int jump)
{
    volatile int mark = 0;
    pid_t pid = jump ? jump_vfork() : vfork();
    if (pid == 0) {
        mark = 1; /* one memory */
        reuse();
        _exit(17);
    }
    int status = 0;
    if (pid < 0 || mark != 1 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
        WEXITSTATUS(status) != 17)
        wrong("vfork", jump);
}

static NOINLINE void *own(void)
{
    return __builtin_return_address(0);
}

static void leaf(void)
{
    if (!in_program((uintptr_t)own()))
        wrong("own", 0);
}

static NOINLINE int below(int n, const char *what, int rounds)
{
    if (n > 0)
        return below(n - 1, what, rounds) + 1;
    for (int i = 0; i < 2 * rounds; i++) {
        const int jump = i % 2;
        if (strcmp(what, "next") == 0)
            next(jump);
        else if (strcmp(what, "load") == 0)
            load(jump);
        else if (strcmp(what, "namespace") == 0)
        namespace(jump);
        else if (strcmp(what, "setjmp") == 0) jumps(jump, i / 2 % 3);
        else if (strcmp(what, "getcontext") == 0) context(jump);
        else if (strcmp(what, "swapcontext") == 0) swap(jump);
        else if (strcmp(what, "vfork") == 0) child(jump);
        else if (strcmp(what, "leaf") == 0) leaf();
        else wrong(what, jump);
        callers_work();
    }
    return 1;
}

int main(int argc, char **argv)
{
    static char stack[1 << 16];
    *(void **)&bar = dlsym(RTLD_DEFAULT, "bar_stack");
    dlerror();
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack;
    fiber.uc_stack.ss_size = sizeof stack;
    makecontext(&fiber, fiber_main, 0);
    if (argc < 3 || below(110, argv[1], atoi(argv[2])) != 111)
        return 2;
    printf("%s done, first is %s\n", argv[1], callers_which());
    return 0;
}
