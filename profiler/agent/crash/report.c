/* The report of a crash, from its first line to its last. Runs in the handler of the thread that crashed. The format is in
 * profiler/region/report.h. */
#include "barriers/ownership.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/crash/left.h"
#include "profiler/agent/crash/parts.h"
#include "profiler/agent/crash/signals.h"
#include "profiler/agent/terminate.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define NAME_BYTES sizeof((struct stile__task *)0)->name

static uint32_t tids[STILE__SLOT_MAX];

static void line_end(struct stile__text *t)
{
    stile__text(t, "\n");
}

/* `SIGSEGV (SEGV_MAPERR) at 0x10` */
static void signal_put(struct stile__text *t, const siginfo_t *info)
{
    const char *code = stile__crash_code_name(info->si_signo, info->si_code);
    stile__text(t, stile__crash_signal_name(info->si_signo));
    if (code != NULL) {
        stile__text(t, " (");
        stile__text(t, code);
        stile__text(t, ")");
    }
    if (stile__crash_has_address(info)) {
        stile__text(t, " at ");
        stile__text_hex(t, (uintptr_t)info->si_addr, 1);
    } else if (info->si_code <= 0) {
        stile__text(t, ", sent by process ");
        stile__text_signed(t, info->si_pid);
    }
}

static void head_put(struct stile__text *t, const siginfo_t *info)
{
    struct stile__task self;
    stile__task_look((uint32_t)stile__crash.pid, &self);
    stile__text(t, STILE__REPORT_BEGIN);
    stile__text_signed(t, stile__crash.pid);
    stile__text(t, " (");
    stile__text_foreign(t, self.name, NAME_BYTES);
    stile__text(t, "): ");
    signal_put(t, info);
    line_end(t);
    stile__text(t, "stile: version " STILE_VERSION ", unix time ");
    stile__text_decimal(t, stile__clock_now(CLOCK_REALTIME) / 1000000000u);
    stile__text(t, "\ncommand: ");
    stile__text_foreign(t, stile__crash.command, sizeof stile__crash.command);
    stile__text(t, "\nsignal: ");
    stile__text_decimal(t, (uint64_t)info->si_signo);
    stile__text(t, ", code ");
    stile__text_signed(t, info->si_code);
    if (info->si_code <= 0) {
        stile__text(t, ", sent by process ");
        stile__text_signed(t, info->si_pid);
        stile__text(t, " of user ");
        stile__text_decimal(t, info->si_uid);
    } else if (info->si_signo == SIGSYS) {
        stile__text(t, ", system call ");
        stile__text_signed(t, info->si_syscall);
    } else if (stile__crash_has_address(info)) {
        stile__text(t, ", address ");
        stile__text_hex(t, (uintptr_t)info->si_addr, 16);
    }
    line_end(t);
}

static void terminated_put(struct stile__text *t)
{
    const struct stile__terminated *e = stile__terminate_of(stile__raw_gettid());
    if (e == NULL)
        return;
    stile__text(t, e->type[0] != '\0' ? "exception: "
                                      : "exception: none that is known; std::terminate was called");
    stile__text_foreign(t, e->type, sizeof e->type);
    if (e->what[0] != '\0') {
        stile__text(t, ": ");
        stile__text_foreign(t, e->what, sizeof e->what);
    }
    line_end(t);
}

static void thread_put(struct stile__text *t, uint32_t tid, const struct stile__task *task)
{
    stile__text(t, "thread ");
    stile__text_decimal(t, tid);
    stile__text(t, " \"");
    stile__text_foreign(t, task->name, NAME_BYTES);
    stile__text(t, "\" ");
}

/* The stack that crashed: walked even if its lock is held. There will be no other time, and each step of who changes barriers leaves a
 * stack that can be walked. */
static void own_put(struct stile__text *t, struct stile__region *r, const ucontext_t *uc)
{
    static struct stile__frames frames;
    struct stile__task task;
    const uint32_t tid = stile__raw_gettid();

    stile__task_look(tid, &task);
    thread_put(t, tid, &task);
    stile__text(t, "crashed:\n");
    stile__frames_of_own(&frames, r, uc, true);
    stile__report_frames(t, &frames, 0);
}

static const char *state_name(char state)
{
    switch (state) {
    case 'R':
        return "running";
    case 'S':
        return "sleeping";
    case 'D':
        return "in an uninterruptible wait";
    case 'T':
    case 't':
        return "stopped";
    case 'Z':
    case 'X':
        return "dead";
    default:
        return "in an unknown state";
    }
}

static void waits_put(struct stile__text *t, uint64_t status)
{
    stile__text(t, "waiting (");
    stile__text(t, stile__wait_reason_name(stile__stack_reason(status)));
    stile__text(t, ")");
}

static void frozen_put(struct stile__text *t, const struct stile__frozen *f)
{
    if (stile__stack_state(f->status) == STILE__STACK_WAITING)
        waits_put(t, f->status);
    else
        stile__text(t, "stopped");
    if (f->signal != 0) {
        stile__text(t, ", crashed too: ");
        stile__text(t, stile__crash_signal_name(f->signal));
    }
    stile__text(t, ":\n");
    stile__report_frames(t, &f->frames, 0);
}

/* A thread that did not come: from what it left, if it waits. */
static void absent_put(struct stile__text *t, struct stile__session *s, struct stile__region *r, uint32_t tid,
                       const struct stile__task *task)
{
    uint64_t seen;
    struct stile__slot *slot = stile__left_take(s, r, tid, &seen);
    if (slot != NULL) {
        waits_put(t, seen);
        stile__text(t, ", what it left:\n");
        stile__left_put(t, s, r, slot);
        if (!stile__scan_drop(&slot->status, seen))
            stile__text(t, "  (it took its stack back meanwhile)\n");
        return;
    }
    stile__text(t, state_name(task->state));
    stile__text(t, stile__crash.freezes ? ", did not answer in time\n" : ", skipped: its stack is its own\n");
}

static void others_put(struct stile__text *t, struct stile__session *s, struct stile__region *r)
{
    const uint32_t n = stile__freeze_wait(s, r, tids, STILE__SLOT_MAX);
    uint32_t shown = 0, absent = 0;
    for (uint32_t i = 0; i < n && i < STILE__SLOT_MAX; i++) {
        const struct stile__frozen *f = stile__freeze_came(i, tids[i]);
        struct stile__task task;
        stile__task_look(tids[i], &task);
        if (f == NULL && task.state == '?')
            continue; /* it has ended */
        thread_put(t, tids[i], &task);
        if (f != NULL)
            frozen_put(t, f);
        else
            absent_put(t, s, r, tids[i], &task);
        shown++;
        absent += f == NULL;
    }
    stile__text(t, "threads: ");
    stile__text_decimal(t, shown + 1);
    if (absent != 0) {
        stile__text(t, ", of which ");
        stile__text_decimal(t, absent);
        stile__text(t, stile__crash.freezes ? " did not answer" : " were not stopped");
    }
    if (n > STILE__SLOT_MAX)
        stile__text(t, "; more are not listed");
    line_end(t);
}

void stile__report_write(struct stile__text *t, struct stile__session *s, struct stile__region *r,
                         const siginfo_t *info, const ucontext_t *uc)
{
    const uint64_t *regs = (const uint64_t *)(const void *)uc->uc_mcontext.gregs;

    head_put(t, info);
    if (stile__crash_has_address(info))
        stile__report_mapping(t, (uintptr_t)info->si_addr, regs[REG_RSP]);
    terminated_put(t);
    stile__report_registers(t, regs);
    own_put(t, r, uc);
    stile__text_flush(t); /* what matters most is out before anything else is tried */
    stile__report_modules(t);
    others_put(t, s, r);
    stile__text(t, STILE__REPORT_END);
    stile__text_flush(t);
}
