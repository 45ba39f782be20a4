/* Barriers, looked at between any two instructions. The processor traps after each one, and the trap's handler
 *  - keeps the stack as calls and returns make it: that is the reference, which nobody unwinds;
 *  - looks into every slot: a return address, or a stub that goes on there;
 *  - has libgcc unwind the thread, which must come to the same callers;
 *  - takes a tick, as if the clock's signal had come just here: what the record tells must be the same stack, too.
 * First while a program calls, returns, jumps and throws, and comes through the hooks on functions that go by their own
 * return address; then while barriers are placed, retired and removed. */
#include "tests/unit/support.h"

#include <alloca.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include "barriers/unwind/caller_hooks.h"
#include "barriers/unwind/personality.h"
#include "profiler/collector/rule_table.h"
#include "tests/unit/signal/barrier_world.h"
#include "tests/unit/signal/every_instruction.h"

#define DEPTH_MAX 4000u
#define SEEN      65536u

static struct mapping_table mappings;
static struct rule_table rules;

/* libgcc's, whatever else the test is linked with. */
static _Unwind_Reason_Code (*gcc_backtrace)(_Unwind_Trace_Fn, void *);
static _Unwind_Ptr (*gcc_ip)(struct _Unwind_Context *, int *);

/* The stack between traced() and the instruction: where its return addresses lie, and what they are. */
static struct call {
    uint64_t slot, ra;
} calls[DEPTH_MAX];
static uint32_t n_calls;
static uint64_t outer[64]; /* return addresses from traced() on, up to where libgcc ends */
static uint32_t n_outer;
static uint64_t wanted[DEPTH_MAX]; /* what is expected: the leaf, then return addresses */
static uint32_t n_wanted;

static bool tracing, jumping;
static uint64_t last_rip, last_rsp, mask;
static uint64_t rng;
static uint32_t one_in; /* ticks; 0: none */
static uint64_t unwinder_lo, unwinder_hi;
static uint64_t seen[SEEN]; /* addresses that the program came to, for their rules */

static struct {
    uint64_t steps, ticks, told, odd, untold, in_stubs, in_landings, in_hooks, kept, frames, blocked;
    char failure[512];
} done;

static bool in_unwinder(uint64_t rip)
{
    return rip >= unwinder_lo && rip < unwinder_hi;
}

static void failed(const char *what, uint64_t rip, uint64_t a, uint64_t b)
{
    if (done.failure[0] == '\0')
        snprintf(done.failure, sizeof done.failure,
                 "%s, at %#lx (test begins at %#lx), step %lu, depth %u, stub %u: %#lx %#lx", what, rip,
                 (uint64_t)(uintptr_t)&throw_through, done.steps, n_wanted, stile__stub_of(rip), a, b);
}

struct trace {
    uint64_t from, ips[DEPTH_MAX];
    uint32_t n;
    bool on;
};

static _Unwind_Reason_Code trace_frame(struct _Unwind_Context *context, void *arg)
{
    struct trace *t = arg;
    int before = 0;
    uint64_t ip = gcc_ip(context, &before);
    t->on = t->on || (before && ip == t->from);
    if (t->on && ip != 0 && t->n < DEPTH_MAX && (stile__stub_of(ip) == STILE__STUB_NONE))
        t->ips[t->n++] = ip;
    return _URC_NO_REASON;
}

static bool in_landing(uint64_t rip)
{
    return rip - (uintptr_t)stile__landing_pool < (uint64_t)STILE__LANDINGS * STILE__LANDING_BYTES;
}

static bool at_landing(uint64_t rip)
{
    return in_landing(rip) && (rip - (uintptr_t)stile__landing_pool) % STILE__LANDING_BYTES == 0;
}

/* In a hook on a function that goes by its own return address, with a stub in its place. */
static bool in_hook(uint64_t rip, uint64_t rsp)
{
    const uint64_t first = (uintptr_t)dlsym, last = (uintptr_t)stile__caller_hooks_end;
    return rip >= first && rip < last && stile__stub_of(*(uint64_t *)rsp) != STILE__STUB_NONE;
}

/* Follows the last instruction: a call, a return, a jump out of many calls. */
static void calls_follow(uint64_t rip, uint64_t rsp)
{
    uint32_t popped = 0;
    for (; n_calls > 0 && calls[n_calls - 1].slot < rsp; popped++)
        n_calls--;
    bool sequential = rip > last_rip && rip <= last_rip + 15;
    if (popped > 1)
        jumping = true;
    else if (!sequential)
        jumping = false;
    if (rsp == last_rsp - 8 && n_calls < DEPTH_MAX - 1) {
        uint64_t word = *(uint64_t *)rsp;
        if (at_landing(last_rip) || (word > last_rip && word <= last_rip + 15 && word != rip))
            calls[n_calls++] = (struct call){rsp, word};
    }
    last_rip = rip;
    last_rsp = rsp;
}

/* False where a slot is something else: an unwinder that is about to go to a frame of its choice. */
static bool slots_are_right(uint64_t rip)
{
    for (uint32_t i = 0; i < n_calls; i++) {
        uint64_t word = *(uint64_t *)calls[i].slot;
        uint32_t stub = stile__stub_of(word);
        if ((stub != STILE__STUB_NONE ? stile__stub_ra(stub) : word) == calls[i].ra)
            continue;
        if (!in_unwinder(rip))
            failed("a slot is wrong", rip, word, calls[i].ra);
        return false;
    }
    return true;
}

/* Whether any slot is not what it was at the last instruction. */
static bool slots_changed(void)
{
    static uint64_t before;
    uint64_t sum = n_calls;
    for (uint32_t i = 0; i < n_calls; i++)
        sum = (sum ^ *(uint64_t *)calls[i].slot) * 0x9e3779b97f4a7c15ull;
    bool changed = sum != before;
    before = sum;
    return changed;
}

static void wanted_set(uint64_t rip, uint64_t rdx)
{
    uint32_t stub = stile__stub_of(rip);
    n_wanted = 0;
    wanted[n_wanted++] = stub != STILE__STUB_NONE ? stile__stub_ra(stub) : rip;
    if (at_landing(rip))
        wanted[n_wanted++] = rdx;
    for (uint32_t i = n_calls; i > 0; i--)
        wanted[n_wanted++] = calls[i - 1].ra;
    for (uint32_t i = 0; i < n_outer; i++)
        wanted[n_wanted++] = outer[i];
}

static void unwound_is_right(uint64_t rip)
{
    static struct trace t;
    if (in_unwinder(
            rip)) /* it writes over frames of its own before it goes elsewhere: a second one would crash */
        return;
    t.n = 0;
    t.on = false;
    t.from = rip;
    gcc_backtrace(trace_frame, &t);
    /* A leaf in a stub is not listed; its caller is. */
    if (t.n != n_wanted || memcmp(t.ips, wanted, n_wanted * sizeof *wanted) != 0) {
        uint32_t i = 0;
        while (i < t.n && i < n_wanted && t.ips[i] == wanted[i])
            i++;
        failed("libgcc unwinds something else", rip, i, t.n > i ? t.ips[i] : 0);
    }
}

static void told_is_right(uint64_t rip)
{
    uint32_t i = 0;
    while (i < world.n && i < n_wanted && world.frames[i] == wanted[i] - (i != 0))
        i++;
    if (i == world.n && i == n_wanted)
        return;
    if (in_unwinder(rip))
        done.odd++;
    else
        failed("a record has another frame", rip, i, i < world.n ? world.frames[i] : 0);
}

/* A trap cannot be taken with its signal blocked: so it is not, and what the program believes of its mask is kept here. */
static void blocking_instead(uint64_t *regs)
{
    static const uint8_t syscall_code[] = {0x0f, 0x05};
    if (memcmp((void *)regs[REG_RIP], syscall_code, 2) != 0 || regs[REG_RAX] != SYS_rt_sigprocmask ||
        regs[REG_RDI] > SIG_SETMASK || regs[REG_R10] != 8)
        return;
    uint64_t before = mask;
    if (regs[REG_RSI] != 0 && regs[REG_RSI] % STILE__PAGE == 0) { /* asks whether a page can be read */
        before = ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
    } else if (regs[REG_RSI] != 0) {
        uint64_t set = *(uint64_t *)regs[REG_RSI];
        mask = regs[REG_RDI] == SIG_BLOCK ? mask | set : regs[REG_RDI] == SIG_UNBLOCK ? mask & ~set : set;
    }
    if (regs[REG_RDX] != 0)
        *(uint64_t *)regs[REG_RDX] = before;
    regs[REG_RAX] = 0;
    regs[REG_RIP] += 2;
    regs[REG_RCX] = regs[REG_RIP];
}

static void seen_add(uint64_t address)
{
    for (uint32_t h = (uint32_t)(address * 0x9e3779b97f4a7c15ull >> 48), k = 0; k < 64; k++) {
        uint64_t *at = &seen[(h + k) % SEEN];
        if (*at == address)
            return;
        if (*at == 0) {
            *at = address;
            return;
        }
    }
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint64_t *regs = (uint64_t *)(void *)uc->uc_mcontext.gregs;
    struct stile__place at;
    (void)signal;
    if (info->si_code == SI_KERNEL) { /* int3: begins, and ends it */
        tracing = !tracing && done.failure[0] == '\0';
        regs[REG_EFL] = tracing ? regs[REG_EFL] | 0x100 : regs[REG_EFL] & ~0x100ull;
        last_rip = regs[REG_RIP];
        last_rsp = regs[REG_RSP];
        return;
    }
    if (done.failure[0] != '\0') { /* enough is known */
        regs[REG_EFL] &= ~0x100ull;
        return;
    }
    blocking_instead(regs);
    const uint64_t rip = regs[REG_RIP], rsp = regs[REG_RSP];
    done.steps++;
    seen_add(rip);
    calls_follow(rip, rsp);
    done.in_stubs += stile__stub_of(rip) != STILE__STUB_NONE;
    done.in_landings += in_landing(rip);
    done.in_hooks += in_hook(rip, rsp);
    wanted_set(rip, regs[REG_RDX]);
    bool sure = slots_are_right(rip) && !jumping;
    /* Where many instructions change nothing on a deep stack, some of them stand for all. */
    if (!sure)
        done.odd++;
    else if (one_in != 0 || slots_changed() || done.steps % 16 == 0)
        unwound_is_right(rip);
    if (one_in == 0 || next_number(&rng) % one_in != 0)
        return;
    if (mask & 1ull << (SIGPROF - 1)) { /* none comes now */
        done.blocked++;
        return;
    }
    stile__place_of(uc, &at);
    world_tick(&at);
    done.ticks++;
    if (world.broken != NULL)
        failed(world.broken, rip, 0, 0);
    if (!world.told) {
        done.untold++;
        return;
    }
    done.told++;
    done.kept += world.kept;
    done.frames += world.n;
    if (!sure)
        return;
    told_is_right(rip);
    slots_are_right(rip);
    unwound_is_right(rip);
}

/* Runs fn with a trap after each instruction. */
static __attribute__((noinline)) void traced(void (*fn)(void))
{
    static struct trace t;
    memset(&done, 0, sizeof done);
    t.n = 0;
    t.on = true;
    gcc_backtrace(trace_frame, &t);
    assert_true(t.n > 2 && t.n < 60);
    n_outer = 0;
    for (uint32_t i = 1; i < t.n; i++) /* without traced() itself */
        outer[n_outer++] = t.ips[i];
    n_calls = 0;
    mask = 0;
    jumping = false;
    __asm__ volatile("int3" ::: "memory");
    fn();
    __asm__ volatile("int3" ::: "memory");
    if (done.failure[0] != '\0')
        fail_msg("%s", done.failure);
}

static int on_start(void **state)
{
    static uint8_t stack[1 << 18];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    void *gcc = dlopen("libgcc_s.so.1", RTLD_NOW), *find = dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
    Dl_info where;
    (void)state;
    assert_non_null(gcc);
    *(void **)&gcc_backtrace = dlsym(gcc, "_Unwind_Backtrace");
    *(void **)&gcc_ip = dlsym(gcc, "_Unwind_GetIPInfo");
    assert_non_null(gcc_backtrace);
    assert_int_equal(syscall(SYS_sigaltstack, &alt, NULL), 0);
    handler_install_raw(SIGTRAP, on_trap);
    stile__barrier_personality_set();
    stile__barrier_unwinder_test();     /* as a session does; not while every instruction is looked at */
    assert_true(throw_through(20) > 0); /* binds what is bound lazily */
    /* Where exceptions' unwinder is. */
    assert_int_not_equal(dladdr(find, &where), 0);
    char *maps = file_text("/proc/self/maps");
    char *save = NULL;
    for (char *line = strtok_r(maps, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        uint64_t lo, hi;
        if (sscanf(line, "%lx-%lx", &lo, &hi) == 2 && strstr(line, where.dli_fname) != NULL &&
            strstr(line, "r-xp") != NULL) {
            unwinder_lo = lo;
            unwinder_hi = hi;
        }
    }
    free(maps);
    assert_true((uintptr_t)find >= unwinder_lo && (uintptr_t)find < unwinder_hi);
    return 0;
}

static void session_begin(enum stile__barriers_wish wish)
{
    world_begin(wish);
    char *maps = file_text("/proc/self/maps");
    mappings_init(&mappings, 0);
    assert_int_equal(mappings_update(&mappings, maps, strlen(maps), 0), 0);
    free(maps);
    rule_table_open(&rules, world.region, world.session.size, &mappings, 0);
}

static void session_end(void)
{
    rule_table_close(&rules);
    mappings_free(&mappings);
    world_end();
}

static void learn_what_was_seen(void)
{
    for (uint32_t i = 0; i < SEEN; i++)
        if (seen[i] != 0)
            rule_table_learn(&rules, &mappings, seen[i]);
    for (uint32_t i = 0; i < n_outer; i++)
        rule_table_learn(&rules, &mappings, outer[i] - 1);
}

/* The program. */

static volatile int sink;

static __attribute__((noinline)) int leaf(int n)
{
    return n * 3 + sink;
}

static __attribute__((noinline)) int tree(int n)
{
    if (n <= 0)
        return leaf(n);
    int sum = tree(n - 1);
    if (n % 8 == 0)
        sum += tree(n - 4);
    return sum + leaf(n);
}

static __attribute__((noinline, optimize("no-omit-frame-pointer"))) int with_frame(int n)
{
    char *room = alloca((size_t)n * 8 + 16);
    memset(room, n, (size_t)n * 8 + 16);
    return n == 0 ? tree(6) : with_frame(n - 1) + room[n];
}

static int by_tree(const void *a, const void *b)
{
    return (*(const int *)a + sink * leaf(3)) - *(const int *)b;
}

/* The compiler's own: the CFI of libc's speaks of where it will go before it goes there. */
static void *back[5];
static volatile bool jumps = true; /* which the compiler does not know */

static __attribute__((noinline)) int jump(int n)
{
    if (n > 0)
        return jump(n - 1) + leaf(n);
    if (jumps)
        __builtin_longjmp(back, 1);
    return leaf(2);
}

static __attribute__((noinline)) int calls_and_jumps(int n)
{
    if (n > 0)
        return calls_and_jumps(n - 1) + 1;
    for (volatile int i = 0; i < 5; i++)
        if (__builtin_setjmp(back) == 0)
            jump(13 + i);
    return tree(12);
}

static void program(void)
{
    int numbers[] = {3, 1, 4, 1, 5, 9, 2, 6};
    sink = tree(26);
    sink = with_frame(20);
    sink = 0;
    qsort(numbers, 8, sizeof *numbers, by_tree);
    sink = calls_and_jumps(20);
}

static void throwing_program(void)
{
    sink = throw_through(12);
}

/* In one place: a caller whose loop the compiler has unrolled would have one that is not learned before the last run. */
static __attribute__((noinline)) void traced_run(void (*fn)(void), uint32_t ticks_one_in)
{
    one_in = ticks_one_in; /* where there is no rule yet, ticks copy the stack */
    traced(fn);
    learn_what_was_seen();
}

/* Runs it until all its rules are known, then so that it counts. */
static void program_runs(void (*fn)(void), enum stile__barriers_wish wish, uint32_t ticks_one_in)
{
    session_begin(wish);
    for (int run = 0; run < 3; run++) {
        rng = 42 + (uint64_t)run;
        traced_run(fn, run == 0 ? 0 : ticks_one_in);
    }
    const struct stile__barrier_counts *c = world_counts();
    print_message(
        "%lu steps, %lu odd; %lu ticks, %lu blocked, %lu told, %lu of %lu frames kept; %lu steps in "
        "stubs, %lu in landings; %lu placed, %lu hit, %lu retired, %lu restored\n",
        done.steps, done.odd, done.ticks, done.blocked, done.told, done.kept, done.frames, done.in_stubs,
        done.in_landings, atomic_load(&c->placed), atomic_load(&c->hit), atomic_load(&c->retired),
        atomic_load(&c->restored));
    assert_true(done.steps > 5000);
    assert_true(done.odd < done.steps / 50);
    assert_true(done.untold <= done.ticks / 10);
    if (wish == STILE__BARRIERS_ALL) {
        assert_true(done.in_stubs > 1);
        assert_true(done.kept > done.frames / 5);
    }
    session_end();
}

static void test_at_every_instruction(void **state)
{
    (void)state;
    program_runs(program, STILE__BARRIERS_ALL, 1);
}

/* Between two ticks more happens. */
static void test_now_and_then(void **state)
{
    (void)state;
    program_runs(program, STILE__BARRIERS_ALL, 3);
    program_runs(program, STILE__BARRIERS_ALL, 11);
    program_runs(program, STILE__BARRIERS_ALL, 40);
    program_runs(program, STILE__BARRIERS_ON, 1);
    program_runs(program, STILE__BARRIERS_ON, 11);
}

static void test_exceptions(void **state)
{
    (void)state;
    program_runs(throwing_program, STILE__BARRIERS_ALL, 1);
    assert_true(done.in_landings > 0);
    program_runs(throwing_program, STILE__BARRIERS_ALL, 29);
    assert_true(done.in_landings > 0);
}

/* Jumps to functions that go by their own return address. What stands behind the hooks tells what it found. */
typedef void *hooked_fn(ucontext_t *);
extern hooked_fn *const hooked[STILE__CALLER_HOOKS];
extern void hooked_work(void);

static ucontext_t hooked_context;
static void *hooked_found[STILE__CALLER_HOOKS + 2];

static __attribute__((noipa)) void *hooked_end(ucontext_t *context)
{
    (void)context;
    return __builtin_return_address(0);
}

static __attribute__((noinline)) int hooked_deep(int n)
{
    return n == 0 ? leaf(n) : hooked_deep(n - 1) + leaf(n);
}

void hooked_work(void)
{
    sink = hooked_deep(24);
}

/* In one place: its address is what they find. */
static __attribute__((noipa)) void *hooked_call(hooked_fn *fn)
{
    void *volatile found = fn(&hooked_context);
    return found;
}

static void hooking_program(void)
{
    for (unsigned i = 0; i < STILE__CALLER_HOOKS + 2; i++) {
        if (i > STILE__CALLER_HOOKS) /* libc's own, to be looked up */
            stile__caller_nexts[STILE__CALLER_GETCONTEXT] = 0;
        hooked_found[i] = hooked_call(i == 0                     ? hooked_end
                                      : i <= STILE__CALLER_HOOKS ? hooked[i - 1]
                                                                 : hooked[STILE__CALLER_GETCONTEXT]);
    }
}

static uint64_t hooked_runs(uint32_t ticks_one_in)
{
    uintptr_t nexts[STILE__CALLER_HOOKS];
    stile__caller_nexts_find();
    memcpy(nexts, stile__caller_nexts, sizeof nexts);
    session_begin(STILE__BARRIERS_ALL);
    for (int run = 0; run < 3; run++) {
        rng = 42 + (uint64_t)run;
        for (unsigned i = 0; i < STILE__CALLER_HOOKS; i++)
            stile__caller_nexts[i] = (uintptr_t)hooked_end;
        traced_run(hooking_program, run == 0 ? 0 : ticks_one_in);
        for (unsigned i = 1; i <= STILE__CALLER_HOOKS; i++)
            assert_ptr_equal(hooked_found[i], hooked_found[0]);
        assert_int_equal(stile__stub_of((uintptr_t)hooked_found[0]), STILE__STUB_NONE);
        assert_null(hooked_found[STILE__CALLER_HOOKS + 1]); /* getcontext's 0 */
        assert_ptr_equal(hooked_context.uc_mcontext.gregs[REG_RIP], hooked_found[0]);
        assert_int_equal(stile__caller_nexts[STILE__CALLER_GETCONTEXT], nexts[STILE__CALLER_GETCONTEXT]);
    }
    memcpy(stile__caller_nexts, nexts, sizeof nexts);
    session_end();
    print_message("%lu steps, %lu odd; %lu told; %lu in hooks with a stub\n", done.steps, done.odd, done.told,
                  done.in_hooks);
    return done.in_hooks;
}

static void test_hooks(void **state)
{
    (void)state;
    /* The first instructions of each, up to where the stub is gone; a tick behind the mark takes it off at once. */
    assert_true(hooked_runs(1) >= (STILE__CALLER_HOOKS + 1) * 9);
    assert_true(hooked_runs(3) >= (STILE__CALLER_HOOKS + 1) * 9);
    for (uint32_t one = 5; one < 60; one += 6)
        hooked_runs(one);
}

/* Changes of barriers, interrupted anywhere. */

static uint64_t here[NGREG];
static const struct stile__place place = {.regs = here};

static inline __attribute__((always_inline)) void registers_take(void)
{
    __asm__ volatile("lea 0f(%%rip), %%rax\n0:\n\t"
                     "mov %%rax, %0\n\t"
                     "mov %%rbp, %1\n\t"
                     "mov %%rsp, %2"
                     : "=m"(here[REG_RIP]), "=m"(here[REG_RBP]), "=m"(here[REG_RSP])
                     :
                     : "rax", "memory");
}

static void (*change)(void);

/* What is stepped through elsewhere is not here. */
static void tick_untraced(void)
{
    bool was = tracing;
    if (was)
        __asm__ volatile("int3" ::: "memory");
    world_tick(&place);
    if (was)
        __asm__ volatile("int3" ::: "memory");
}

static void change_tick(void)
{
    world_tick(&place);
}

static void change_remove(void)
{
    world_barriers_remove();
}

static void change_session(void)
{
    stile__thread.id += 1ull << 32;
    atomic_fetch_add(&stile__thread.slot->generation, 1);
    world.n_base = 0;
    world_tick(&place);
}

/* Deep down, with barriers of all kinds on the stack: dead ones by returns and by jumps, live ones, and none. */
static __attribute__((noinline)) int change_deep(int n)
{
    if (n > 0)
        return change_deep(n - 1) + leaf(n);
    registers_take();
    change();
    return leaf(1);
}

static __attribute__((noinline)) int tick_deep(int n)
{
    if (n > 0)
        return tick_deep(n - 1) + leaf(n);
    registers_take();
    tick_untraced();
    return leaf(1);
}

static __attribute__((noinline)) int jump_deep(int n)
{
    if (n > 0)
        return jump_deep(n - 1) + leaf(n);
    registers_take();
    tick_untraced();
    if (jumps)
        __builtin_longjmp(back, 1);
    return leaf(2);
}

static __attribute__((noinline)) int below(int n)
{
    if (n > 0)
        return below(n - 1) + leaf(n);
    sink = tick_deep(120);
    if (__builtin_setjmp(back) == 0)
        jump_deep(100);
    return change_deep(25);
}

static void changing_program(void)
{
    sink = below(20);
}

static void change_runs(void (*c)(void))
{
    change = c;
    session_begin(STILE__BARRIERS_ALL);
    registers_take();
    world_tick(&place); /* the first one of a session has more to do */
    for (int run = 0; run < 2; run++) {
        one_in = 0;
        traced(changing_program);
        learn_what_was_seen();
    }
    const struct stile__barrier_counts *counts = world_counts();
    print_message("%lu steps, %lu odd; %lu steps in stubs; %lu placed, %lu hit, %lu retired, %lu restored\n",
                  done.steps, done.odd, done.in_stubs, atomic_load(&counts->placed),
                  atomic_load(&counts->hit), atomic_load(&counts->retired), atomic_load(&counts->restored));
    assert_true(done.steps > 3000);
    assert_true(done.in_stubs > 20);
    assert_true(done.odd < done.steps / 50);
    assert_true(atomic_load(&counts->placed) > 50 && atomic_load(&counts->hit) > 20);
    assert_true(atomic_load(&counts->retired) > 10 && atomic_load(&counts->restored) > 10);
    session_end();
}

static void test_changes(void **state)
{
    (void)state;
    change_runs(change_tick);
    change_runs(change_remove);
    change_runs(change_session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_every_instruction),
        cmocka_unit_test(test_now_and_then),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_hooks),
    };
    return cmocka_run_group_tests(tests, on_start, NULL);
}
