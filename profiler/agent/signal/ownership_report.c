/* A stack that is read by who does not own it: says who both are, where they stand, and ends the program. Normal context and
 * handlers, with PROFILE_DEBUG=checkstackownership=1 only; writes by raw system calls, since the program may be anywhere. */
#include <poll.h>
#include <signal.h>
#include <stddef.h>

#include "barriers/ownership_check.h"
#include "profiler/agent/blocking.h"
#include "profiler/agent/crash/frames.h"
#include "profiler/agent/crash/parts.h"
#include "profiler/agent/crash/text.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define TRIES_MAX     100u /* to write, a millisecond apart if the pipe is full */
#define ANOTHER_MS    5000 /* until a report that another thread writes is through */
#define STATUS_AT_END 134  /* where a signal does not end the process: it is the first one of a container */

/* The report: one at a time, and the last thing that the process does. */
static _Atomic uint32_t reporting;

static void write_out(const char *bytes, size_t n)
{
    size_t done = 0;
    for (unsigned tries = 0; done < n && tries < TRIES_MAX; tries++) {
        long written = stile__raw_syscall(SYS_write, 2, (long)(bytes + done), (long)(n - done), 0);
        if (written > 0) {
            done += (size_t)written;
        } else if (written == -EAGAIN) {
            struct pollfd full = {.fd = 2, .events = POLLOUT};
            struct timespec limit = {.tv_nsec = 1000000};
            stile__raw_syscall(SYS_ppoll, (long)&full, 1, (long)&limit, 0);
        } else if (written != -EINTR) {
            break;
        }
    }
}

static struct stile__text text = {.sink = write_out};

static void put(const char *s)
{
    stile__text(&text, s);
}

static void put_number(uint64_t value)
{
    stile__text_decimal(&text, value);
}

/* What the slot's thread left when it began to wait. Nobody gives it to us, but the process is at its end. */
static void put_left(struct stile__region *r, const struct stile__slot *slot)
{
    const struct stile__slot *first = stile__region_slot(r, 0);
    const struct stile__session *s = stile__session;
    uint64_t i = (uint64_t)(slot - first);
    if (s == NULL || s->size.waits == 0 || i >= s->size.slot_max) {
        put("  (what it left is not recorded)\n");
        return;
    }
    const struct stile__left *left = stile__region_left(r, s->size, (uint32_t)i);
    const uint32_t room = (STILE__LEFT_CELLS - 1) * STILE__CELL_BYTES / sizeof(uint64_t);
    uint32_t n = left->record.n_inline < room ? left->record.n_inline : room;
    for (uint32_t k = 0; k < n; k++)
        stile__report_frame(&text, k, left->record.words[k]);
}

static void put_owner(struct stile__region *r, const struct stile__slot *slot,
                      const struct stile__ownership_facts *f)
{
    static const char *const states[] = {"without a state", "running", "waiting", "dead"};
    enum stile__stack_state state = stile__stack_state(f->status);
    put("stile:   owner: thread ");
    put_number(f->slot_tid);
    put(", ");
    put(state <= STILE__STACK_DEAD ? states[state] : "in an unknown state");
    if (state == STILE__STACK_WAITING) {
        put(" (");
        put(stile__wait_reason_name(stile__stack_reason(f->status)));
        put(")");
    }
    if ((f->status & STILE__STACK_SCAN) != 0)
        put(", being read");
    if (f->lock == 0) {
        put("; the stack's lock is free");
    } else {
        put("; the stack's lock is held by thread ");
        put_number(f->lock);
    }
    if (state == STILE__STACK_WAITING) {
        put("; it left:\n");
        put_left(r, slot);
    } else {
        put("; its stack is its own\n");
    }
}

static _Noreturn void end_process(void)
{
    struct {
        uintptr_t handler;
        unsigned long flags;
        uintptr_t restorer;
        uint64_t mask;
    } dfl = {(uintptr_t)SIG_DFL, 0, 0, 0};
    stile__raw_syscall(SYS_rt_sigaction, SIGABRT, (long)&dfl, 0, sizeof dfl.mask);
    stile__raw_sigmask(SIG_UNBLOCK, 1ull << (SIGABRT - 1));
    stile__raw_syscall(SYS_tgkill, stile__raw_getpid(), stile__raw_gettid(), SIGABRT, 0);
    for (;;)
        stile__raw_syscall(SYS_exit_group, STATUS_AT_END, 0, 0, 0);
}

static struct stile__frames frames;

static _Noreturn void violated(struct stile__region *r, const struct stile__slot *slot,
                               const struct stile__ownership_facts *f, const char *reader, const char *breach,
                               const uint64_t *regs)
{
    stile__raw_sigmask(SIG_BLOCK, ~0ull);
    if (atomic_exchange_explicit(&reporting, 1, memory_order_acquire) != 0) {
        for (int ms = 0; ms < ANOTHER_MS; ms++)
            stile__raw_sleep_ns(1000000); /* the other one ends us all */
        end_process();
    }
    put("stile: stack ownership is violated: ");
    put(breach);
    put("\n");
    put_owner(r, slot, f);
    put("stile:   reader: thread ");
    put_number(f->self);
    if (f->tid != f->self) {
        put(", which takes itself for ");
        put_number(f->tid);
    }
    put(", ");
    put(reader);
    put(":\n");
    stile__text_flush(&text); /* its walk may be what does not end well */
    stile__frames_walk(&frames, regs, stile__frames_read_own, NULL);
    stile__report_frames(&text, &frames, 0);
    stile__text_flush(&text);
    end_process();
}

static void facts_gather(struct stile__region *r, struct stile__slot *slot, uint32_t tid,
                         struct stile__ownership_facts *f)
{
    f->self = stile__raw_gettid();
    f->tid = tid != 0 ? tid : f->self;
    f->slot_tid = atomic_load_explicit(&slot->tid, memory_order_relaxed);
    f->lock = atomic_load_explicit(&slot->stack_lock, memory_order_relaxed);
    f->status = atomic_load_explicit(&slot->status, memory_order_relaxed);
    f->seen = 0;
    f->traced = r->block_rate_ns != 0;
}

__attribute__((noinline)) void stile__ownership_verify(struct stile__region *r, struct stile__slot *slot,
                                                       uint32_t tid, enum stile__stack_reader reader,
                                                       uint64_t seen, const uint64_t *regs)
{
    struct stile__ownership_facts f;
    uint64_t here[NGREG];
    facts_gather(r, slot, tid, &f);
    f.seen = seen;
    const char *breach = stile__ownership_breach(reader, &f);
    if (__builtin_expect(breach == NULL, 1))
        return;
    STILE__REGISTERS_HERE(here);
    violated(r, slot, &f, stile__stack_reader_name(reader), breach, regs != NULL ? regs : here);
}

bool stile__ownership_wait_executing(struct stile__region *r, struct stile__slot *slot, uint32_t tid,
                                     enum stile__wait_reason why)
{
    struct stile__ownership_facts f;
    uint64_t here[NGREG];
    if (stile__fault(STILE__FAULT_OWNER_EXECUTES, 1))
        why = STILE__WAIT_MUTEX;
    if (stile__stack_wait_executing(&slot->status, why))
        return true;
    if ((r->debug & STILE__DEBUG_OWNERSHIP) == 0 || stile__wait_executes(why))
        return false;
    facts_gather(r, slot, tid, &f);
    STILE__REGISTERS_HERE(here);
    violated(r, slot, &f, stile__wait_reason_name(why),
             "a thread executes in a wait for a reason that is not in the table of those", here);
}
