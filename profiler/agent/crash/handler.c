/* The handler of crashes: whose crash it is, the report, and on to what the program does with its signal. On the thread that
 * crashed, on its alternate stack where it has one, with all signals blocked but those of the reporter's own faults. */
#include "profiler/agent/crash/answer.h"
#include "profiler/agent/crash/area.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/crash/output.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define TURN_NS   1000000u /* between tries to be the reporter, */
#define TURNS_MAX 30000u   /* of a thread that crashes while another one does */
#define SAME_BYTES                                                                                           \
    1048576u /* of stack that a handler of the program's may use between a crash and its raise() */

struct stile__crash stile__crash;

static struct stile__text text = {.sink = stile__crash_output_write};
static void *recovery[5]; /* of __builtin_setjmp */
static bool armed;        /* recovery is where the reporter is */
static struct {
    uint32_t tid;
    int signal;
    uint64_t rip, rsp;
} reported; /* the last crash; the reporter's */

struct stile__crash_signal *stile__crash_signal_of(int signal)
{
    for (unsigned i = 0; i < STILE__CRASH_SIGNALS; i++)
        if (stile__crash.signals[i].number == signal)
            return &stile__crash.signals[i];
    return NULL;
}

/* The first process of a container does not die of what is sent, only of what it does: it does it again. Other faults are where they
 * were; a breakpoint and a system call that a filter caught have been gone past. */
static void do_again(const siginfo_t *info, ucontext_t *uc)
{
    greg_t *regs = uc->uc_mcontext.gregs;
    if (info->si_signo == SIGTRAP && info->si_code == SI_KERNEL) {
        regs[REG_RIP] -= 1; /* int3 */
    } else if (info->si_signo == SIGSYS && info->si_code > 0) {
        regs[REG_RIP] -= 2; /* syscall */
        regs[REG_RAX] = info->si_syscall;
    }
}

/* What the program would have had happens now: its own disposition is in place, and the same signal comes again, with what the
 * kernel said of it, as soon as this handler returns. So the status is the same, and a core has the registers of the crash. What a
 * filter forbids to send so comes as the thread's own. */
static void pass_on(struct stile__crash_signal *cs, siginfo_t *info, ucontext_t *uc)
{
    const struct stile__raw_action none = {(uintptr_t)SIG_DFL, 0, 0, 0};
    const struct stile__raw_action *action = cs != NULL ? &cs->theirs : &none;
    const uint64_t bit = 1ull << (info->si_signo - 1);
    const int32_t pid = stile__raw_getpid();
    const uint32_t tid = stile__raw_gettid();
    stile__raw_syscall(SYS_rt_sigaction, info->si_signo, (long)action, 0, sizeof action->mask);
    stile__raw_sigmask(SIG_BLOCK, bit);
    /* ppoll, sigsuspend and their like have let it in for the time of the call: what kills does so all the same. */
    if (action->handler == (uintptr_t)SIG_DFL) {
        uc->uc_sigmask.__val[0] &= ~bit;
        if (pid == 1)
            do_again(info, uc);
    }
    if (stile__raw_syscall(SYS_rt_tgsigqueueinfo, pid, tid, info->si_signo, (long)info) != 0)
        stile__raw_syscall(SYS_tgkill, pid, tid, info->si_signo, 0);
}

/* Sent from outside while this thread reports: no fault of the reporter's. It comes when the report is written. */
static void put_off(siginfo_t *info, ucontext_t *uc)
{
    const uint64_t bit = 1ull << (info->si_signo - 1);
    stile__raw_sigmask(SIG_BLOCK, bit);
    uc->uc_sigmask.__val[0] |= bit;
    stile__raw_syscall(SYS_rt_tgsigqueueinfo, stile__raw_getpid(), stile__raw_gettid(), info->si_signo,
                       (long)info);
}

static uint64_t register_of(const ucontext_t *uc, int i)
{
    return (uint64_t)uc->uc_mcontext.gregs[i];
}

/* Whether the handler that the reported crash was handed on to is running still, and has not been left by a jump: then that crash is
 * on the stack. */
static __attribute__((noinline)) bool in_its_handler(const ucontext_t *uc)
{
    struct stile__frames f;
    stile__frames_walk(&f, (const uint64_t *)(const void *)uc->uc_mcontext.gregs, stile__frames_read_own,
                       NULL);
    for (uint32_t i = 1; i < f.n && i < STILE__FRAMES_LEAF; i++)
        if (f.leaf[i] == reported.rip)
            return true;
    return false;
}

/* Whether this is the crash that was reported: the program's handler has looked at it, and lets it happen, by a return or by
 * raising it again. */
static bool known(int signal, const ucontext_t *uc)
{
    const uint64_t rsp = register_of(uc, REG_RSP), alt = (uintptr_t)uc->uc_stack.ss_sp;
    if (reported.tid != stile__raw_gettid())
        return false;
    if (reported.signal == signal && reported.rip == register_of(uc, REG_RIP) && reported.rsp == rsp)
        return true;
    return ((rsp < reported.rsp && reported.rsp - rsp < SAME_BYTES) || rsp - alt < uc->uc_stack.ss_size) &&
           in_its_handler(uc);
}

/* With __builtin_setjmp nothing that changes may live in a register: what it needs is static. */
static struct {
    struct stile__session *s;
    struct stile__region *r;
    const siginfo_t *info;
    const ucontext_t *uc;
} now;

static void state_set(enum stile__crash_state state)
{
    if (now.r != NULL)
        atomic_store_explicit(&now.r->crash_state, state, memory_order_release);
}

static __attribute__((noinline)) void report(void)
{
    if (__builtin_setjmp(recovery) == 0) {
        armed = true;
        if (now.r != NULL)
            stile__report_area_begin(now.r);
        state_set(STILE__CRASH_BEGUN);
        stile__freeze_begin(now.r);
        stile__report_write(&text, now.s, now.r, now.info, now.uc);
        state_set(STILE__CRASH_WRITTEN);
        stile__answer_copy(now.s, now.r, STILE__ANSWER_CRASH);
    } else {
        armed = false;
        stile__text(&text, "\nstile: the report ends here: what it was about to read cannot be read\n");
        stile__text_flush(&text);
    }
    armed = false;
    state_set(STILE__CRASH_TOLD);
}

static bool handled(const struct stile__crash_signal *cs)
{
    return cs != NULL && cs->theirs.handler != (uintptr_t)SIG_DFL;
}

/* The caller is the reporter. */
static void crash(struct stile__crash_signal *cs, siginfo_t *info, ucontext_t *uc)
{
    const uint32_t shard = stile__thread_shard();

    now.s = stile__session;
    now.r = stile__session_enter(now.s, shard);
    now.info = info;
    now.uc = uc;
    stile__crash_output_begin(now.r, true);
    report();
    reported.tid = stile__raw_gettid();
    reported.signal = info->si_signo;
    reported.rip = register_of(uc, REG_RIP);
    reported.rsp = register_of(uc, REG_RSP);
    if (cs != NULL) {
        cs->ours = false;
        cs->survived = handled(cs);
    }
    /* A process that dies of it does so as it stands: stopped. (The first one of a container may not.) */
    if (handled(cs) || stile__crash.pid == 1) {
        stile__crash_output_end();
        stile__freeze_end(now.r);
        atomic_store_explicit(&stile__crash.reporter, 0, memory_order_release);
    }
    if (now.r != NULL)
        stile__session_leave(now.s, shard);
    pass_on(cs, info, uc);
}

/* Another thread reports: this one gives its stack, and stands still until that is over. */
static void stop_here(const ucontext_t *uc, int signal)
{
    struct stile__session *s = stile__session;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    stile__freeze_here(r, uc, signal);
    if (r != NULL)
        stile__session_leave(s, stile__thread_shard());
}

/* Another thread reports, and this one has crashed, too: it waits for its turn. False: for too long. */
static bool turn_taken(int signal, const ucontext_t *uc)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        uint32_t owner = 0;
        if (atomic_compare_exchange_strong_explicit(&stile__crash.reporter, &owner, stile__raw_gettid(),
                                                    memory_order_acq_rel, memory_order_relaxed))
            return true;
        stop_here(uc, signal);
        stile__raw_sleep_ns(TURN_NS);
    }
    return false;
}

void stile__handle_crash(int signal, siginfo_t *info, void *context)
{
    struct stile__crash_signal *cs = stile__crash_signal_of(signal);
    ucontext_t *uc = context;

    /* A vfork's child, or one of a bare clone: this memory may be another's. What it has not set itself it has from its parent. */
    if (stile__raw_getpid() != stile__crash.pid) {
        pass_on(cs, info, uc);
        return;
    }
    if (stile__freeze_signal(info)) {
        stop_here(uc, 0);
        return;
    }
    if (atomic_load_explicit(&stile__crash.reporter, memory_order_relaxed) == stile__raw_gettid()) {
        if (info->si_code <= 0) {
            put_off(info, uc);
            return;
        }
        if (armed)
            __builtin_longjmp(recovery, 1);
        pass_on(NULL, info, uc);
        return;
    }
    if (known(signal, uc) || !turn_taken(signal, uc)) {
        pass_on(cs, info, uc);
        return;
    }
    crash(cs, info, uc);
}
