/* Walks its own stack as unwinders do, and again with a barrier on each frame: `walking HOW WHERE`, with libbarring.so.
 * HOW: backtrace (libc's), unwind (_Unwind_Backtrace of the unwinder that it is linked to); unw_step, unw_backtrace
 * (libunwind's); outside: stops, with all barriers placed, for whoever looks from outside.
 * WHERE: main, thread, handler, alternate: by a function deep in one of these; stub: from a signal at each instruction of a
 * stub. Outside, `stub` tells where to, and goes into it when `go` is set. */
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>
#ifdef WITH_LIBUNWIND
#    define UNW_LOCAL_ONLY
#    include <libunwind.h>
#endif

#include "barring.h"
#include "work.h"

#define FRAMES 256
#define NAMED  __attribute__((noipa, visibility("default"))) /* for dladdr */
#define TF     0x100

NAMED void trapped(int number, siginfo_t *info, void *context);
NAMED void returning(int i);
NAMED void look(void);
NAMED void handler_two(void);
NAMED void handler_one(int number);
NAMED void bottom(void);
NAMED void seven(int n);
NAMED void six(int n);
NAMED int five(const void *a, const void *b);
NAMED void four(void);
NAMED void three(int n);
NAMED void two(int n);
NAMED void one(void);
NAMED void *thread_main(void *unused);

static __typeof__(bar_stack) *bar;
static __typeof__(bar_at) *stub_at;

struct frames {
    uintptr_t at[FRAMES]; /* but stubs */
    unsigned n, stubs;
};

static void frame_add(struct frames *f, uintptr_t address)
{
    if (stub_at(address) >= 0 || stub_at(address - 1) >= 0)
        f->stubs++;
    else if (address != 0 && f->n < FRAMES)
        f->at[f->n++] = address;
}

static void list_add(struct frames *f, void **list, int n)
{
    for (int i = 0; i < n; i++)
        frame_add(f, (uintptr_t)list[i]);
}

static WORK void walk_backtrace(struct frames *f)
{
    void *list[2 * FRAMES];
    list_add(f, list, backtrace(list, 2 * FRAMES));
}

static _Unwind_Reason_Code seen(struct _Unwind_Context *context, void *arg)
{
    frame_add(arg, _Unwind_GetIP(context));
    return _URC_NO_REASON;
}

static WORK void walk_unwind(struct frames *f)
{
    _Unwind_Backtrace(seen, f);
}

#ifdef WITH_LIBUNWIND
static WORK void walk_unw_step(struct frames *f)
{
    unw_context_t context;
    unw_cursor_t cursor;
    unw_word_t ip;
    unw_getcontext(&context);
    if (unw_init_local(&cursor, &context) != 0)
        return;
    do {
        unw_get_reg(&cursor, UNW_REG_IP, &ip);
        frame_add(f, ip);
    } while (unw_step(&cursor) > 0);
}

static WORK void walk_unw_backtrace(struct frames *f)
{
    void *list[2 * FRAMES];
    list_add(f, list, unw_backtrace(list, 2 * FRAMES));
}
#endif

static const struct {
    const char *name;
    void (*walk)(struct frames *f);
} ways[] = {
    {"backtrace", walk_backtrace},
    {"unwind", walk_unwind},
#ifdef WITH_LIBUNWIND
    {"unw_step", walk_unw_step},
    {"unw_backtrace", walk_unw_backtrace},
#endif
    {"outside", NULL},
};

static void (*how)(struct frames *f);
static const char *where;
static unsigned standing; /* barriers */
volatile int go;

static void frames_tell(const struct frames *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        Dl_info info;
        bool known = dladdr((void *)(f->at[i] - 1), &info) != 0;
        const char *file = known ? strrchr(info.dli_fname, '/') : NULL;
        printf("%s %s\n", known && info.dli_sname != NULL ? info.dli_sname : "?",
               file != NULL ? file + 1 : "?");
    }
}

/* Both walks come here from the same calls, so that all is equal. */
static WORK void compare(void)
{
    static struct frames walks[2];
    for (volatile int i = 0; i < 2; i++) {
        if (i != 0)
            standing = bar();
        how(&walks[i]);
    }
    frames_tell(&walks[0]);
    bool same = walks[0].n == walks[1].n && memcmp(walks[0].at, walks[1].at, sizeof walks[0].at) == 0;
    if (!same) {
        puts("with barriers:");
        frames_tell(&walks[1]);
    }
    /* bar_stack itself has returned through one, if that is the stack that has them. */
    const unsigned left = standing - (strcmp(where, "alternate") != 0);
    printf("%s, stubs %u, %s\n", same ? "same" : "different", walks[0].stubs,
           walks[1].stubs == left && standing > 15 ? "then all" : "then not all");
}

/* Returns through a stub, the second time. `caller` is the address in its caller, by which the frames above are found. */
static struct frames reference;
static uintptr_t caller;

static unsigned callers_of(const struct frames *f)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->at[i] == caller)
            return i;
    return f->n;
}

void trapped(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const int at = stub_at((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]);
    static struct frames f;
    (void)number;
    (void)info;
    if (at < 0 && f.n != 0)
        uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TF; /* it has left the stub */
    if (at < 0)
        return;
    f.n = f.stubs = 0;
    how(&f);
    const unsigned from = callers_of(&f), of = callers_of(&reference);
    const bool same = from < f.n && f.n - from == reference.n - of &&
                      memcmp(f.at + from, reference.at + of, (f.n - from) * sizeof f.at[0]) == 0;
    printf("stub+%d: %s, %s\n", at, same ? "same" : "different",
           f.stubs + 1 == standing ? "all stubs" : "not all stubs");
    frames_tell(&f);
}

void returning(int i)
{
    if (i == 0) {
        caller = (uintptr_t)__builtin_return_address(0);
        if (how != NULL)
            how(&reference);
        return;
    }
    standing = bar != NULL ? bar() : 0;
    if (how != NULL) {
        __asm__ volatile("pushfq\n\torq %0, (%%rsp)\n\tpopfq" : : "i"(TF) : "cc", "memory");
        return;
    }
    printf("stub %p go %p\n", *((void **)__builtin_frame_address(0) + 1), (void *)&go);
    fflush(stdout);
    while (go == 0)
        usleep(1000);
}

static WORK void return_through_stub(void)
{
    signal(SIGALRM, SIG_IGN);
    sigaction(SIGTRAP, &(struct sigaction){.sa_sigaction = trapped, .sa_flags = SA_SIGINFO}, NULL);
    for (volatile int i = 0; i < 2; i++)
        returning(i);
}

void look(void)
{
    if (strcmp(where, "stub") == 0) {
        return_through_stub();
    } else if (how != NULL) {
        compare();
    } else {
        if (bar != NULL)
            bar();
        puts("ready");
        fflush(stdout);
        for (;;)
            pause();
    }
}

void handler_two(void)
{
    look();
}

void handler_one(int number)
{
    (void)number;
    handler_two();
}

void bottom(void)
{
    const bool alternate = strcmp(where, "alternate") == 0;
    if (!alternate && strcmp(where, "handler") != 0) {
        look();
        return;
    }
    static char stack[1 << 18];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler_one, .sa_flags = alternate ? SA_ONSTACK : 0},
              NULL);
    raise(SIGUSR1);
}

/* Frames of every kind: some hundred bytes, of a size known at run time only, realigned, of libc. */
void seven(int n)
{
    n > 0 ? seven(n - 1) : bottom();
}

void six(int n)
{
    char some[500];
    __asm__ volatile("" : : "r"(some) : "memory");
    seven(n);
}

int five(const void *a, const void *b)
{
    static int once;
    (void)a;
    (void)b;
    if (once++ == 0)
        six(5);
    return 0;
}

void four(void)
{
    int some[2] = {1, 2};
    qsort(some, 2, sizeof some[0], five);
}

void three(int n)
{
    _Alignas(64) char aligned[64];
    __asm__ volatile("" : : "r"(aligned), "r"(n) : "memory");
    four();
}

void two(int n)
{
    char *some = __builtin_alloca((size_t)n * 100);
    __asm__ volatile("" : : "r"(some) : "memory");
    three(n);
}

void one(void)
{
    two(3);
}

void *thread_main(void *unused)
{
    one();
    return unused;
}

int main(int argc, char **argv)
{
    void *warm[4];
    bool found = false;
    if (argc != 3)
        return 2;
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(ways[i].name, argv[1]) == 0) {
            how = ways[i].walk;
            found = true;
        }
    where = argv[2];
    bar = (__typeof__(bar))dlsym(RTLD_DEFAULT, "bar_stack");
    stub_at = (__typeof__(stub_at))dlsym(RTLD_DEFAULT, "bar_at");
    if (!found || (how != NULL && bar == NULL))
        return 2;
    backtrace(warm, 4); /* loads an unwinder */
    if (how != NULL) {
        Dl_info info = {.dli_fname = "?"};
        dladdr(dlsym(RTLD_DEFAULT, "_Unwind_Backtrace"), &info);
        printf("unwinder %s\n", info.dli_fname);
    }
    if (strcmp(where, "thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, thread_main, NULL);
        pthread_join(thread, NULL);
    } else {
        one();
    }
    return 0;
}
