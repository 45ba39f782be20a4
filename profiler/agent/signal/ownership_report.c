/* A stack that is read by who does not own it: says who both are, where they stand, and ends the program. Normal context and
 * handlers, with PROFILE_DEBUG=checkstackownership=1 only; writes by raw system calls, since the program may be anywhere. */
#include <poll.h>
#include <signal.h>
#include <stddef.h>

#include "barriers/call_site.h"
#include "barriers/ownership_check.h"
#include "profiler/agent/blocking.h"
#include "profiler/agent/signal/faults.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define FRAMES        64u
#define CELLS         (1u + (FRAMES + STILE__REG_COUNT + 7) * sizeof(uint64_t) / STILE__CELL_BYTES)
#define SCANNED_MAX   65536u /* bytes of a stack without rules that are looked through */
#define PATH_SHOWN    256u
#define TRIES_MAX     100u /* to write, a millisecond apart if the pipe is full */
#define ANOTHER_MS    5000 /* until a report that another thread writes is through */
#define STATUS_AT_END 134  /* where a signal does not end the process: it is the first one of a container */

/* The report: one at a time, and the last thing that the process does. */
static _Atomic uint32_t reporting;
static char text[8192];
static size_t length;

static void flush(void)
{
    size_t done = 0;
    for (unsigned tries = 0; done < length && tries < TRIES_MAX; tries++) {
        long n = stile__raw_syscall(SYS_write, 2, (long)(text + done), (long)(length - done), 0);
        if (n > 0) {
            done += (size_t)n;
        } else if (n == -EAGAIN) {
            struct pollfd full = {.fd = 2, .events = POLLOUT};
            struct timespec limit = {.tv_nsec = 1000000};
            stile__raw_syscall(SYS_ppoll, (long)&full, 1, (long)&limit, 0);
        } else if (n != -EINTR) {
            break;
        }
    }
    length = 0;
}

static void put_bytes(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (length == sizeof text)
            flush();
        text[length++] = bytes[i];
    }
}

static void put(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0')
        n++;
    put_bytes(s, n);
}

static void put_number(uint64_t value, unsigned base)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    if (base == 16)
        put("0x");
    put_bytes(digits + at, sizeof digits - at);
}

/* A number of /proc/PID/maps; moves on past the character behind it. */
static uint64_t hex_parse(const char **at, const char *end)
{
    uint64_t value = 0;
    for (; *at < end; ++*at) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            break;
    }
    *at += *at < end;
    return value;
}

struct module {
    const char *path;
    size_t path_len;
    uint64_t offset; /* of the address in the file */
};

/* Whether a line, without its newline, is the mapping that an address is in. */
static bool line_has(const char *line, const char *end, uint64_t address, struct module *m)
{
    const char *at = line;
    uint64_t lo = hex_parse(&at, end), hi = hex_parse(&at, end);
    if (address < lo || address >= hi)
        return false;
    while (at < end && *at != ' ') /* permissions */
        at++;
    at += at < end;
    m->offset = hex_parse(&at, end) + (address - lo);
    while (at < end && *at != '/' && *at != '[')
        at++;
    m->path = at;
    m->path_len = (size_t)(end - at) < PATH_SHOWN ? (size_t)(end - at) : PATH_SHOWN;
    return true;
}

/* The executable mapping that an address is in, by the last list of them. */
static bool module_find(struct stile__region *r, uint64_t address, struct module *m)
{
    const char *at = stile__region_modules(r), *end = at;
    bool found = false;
    uint32_t len =
        atomic_load_explicit(&r->modules_len, memory_order_acquire); /* with its publisher's release */
    end += len < STILE__MODULES_BYTES ? len : STILE__MODULES_BYTES;
    while (at < end) {
        const char *line = at;
        while (at < end && *at != '\n')
            at++;
        if (*line == '@')
            found = false;
        else
            found = line_has(line, at, address, m) || found;
        at += at < end;
    }
    return found;
}

static void put_frame(struct stile__region *r, unsigned i, uint64_t pc)
{
    struct module m;
    put("stile:     #");
    put_number(i, 10);
    put(" ");
    put_number(pc, 16);
    if (module_find(r, pc, &m) && m.path_len != 0) {
        put(" ");
        put_bytes(m.path, m.path_len);
        put("+");
        put_number(m.offset, 16);
    }
    put("\n");
}

/* Return addresses on a stack that no rules are known for: what looks like one. */
static void put_scanned(struct stile__region *r, const struct stile__bounds *stack, const uint64_t *regs)
{
    struct module m;
    unsigned n = 0;
    put_frame(r, n++, stile__stub_through(regs[REG_RIP]));
    uint64_t sp = regs[REG_RSP] & ~7ull, page = 0;
    uint64_t end = sp + SCANNED_MAX < stack->hi ? sp + SCANNED_MAX : stack->hi;
    for (; sp != 0 && sp >= stack->lo && sp + sizeof(uint64_t) <= end && n < FRAMES; sp += sizeof(uint64_t)) {
        if (sp / STILE__PAGE != page && !stile__raw_readable(sp & ~(uint64_t)(STILE__PAGE - 1)))
            return;
        page = sp / STILE__PAGE;
        uint64_t word = stile__stub_through(*(const uint64_t *)sp);
        if (module_find(r, word, &m) && stile__raw_readable(word & ~(uint64_t)(STILE__PAGE - 1)) &&
            stile__call_precedes(word))
            put_frame(r, n++, word - 1);
    }
}

/* The stack of the calling thread from these registers on: by rules, as a sample's, but as if there were no barriers. */
static void put_own_stack(struct stile__region *r, const uint64_t *regs)
{
    static struct stile__session as_now;
    static _Alignas(struct stile__cell) char cells[CELLS * STILE__CELL_BYTES];
    struct stile__record *record = (void *)cells;
    struct stile__session *s = stile__session;
    struct stile__thread *t = &stile__thread;

    if (s == NULL || t->region != r || (uint32_t)t->id >= s->size.slot_max) {
        put_scanned(r, &t->stack, regs);
        return;
    }
    as_now = *s;
    as_now.barriers = STILE__BARRIERS_OFF;
    as_now.depth = FRAMES;
    record->cells = CELLS;
    record->frames_block = record->block = STILE__BLOCK_NONE;
    const struct stile__place at = {.regs = regs, .alt = {0, 0}};
    stile__walk(&as_now, r, t, &at, record);
    if (record->kind != STILE__RECORD_WALKED || record->n_inline <= 1) {
        put_scanned(r, &t->stack, regs);
        return;
    }
    for (uint32_t i = 0; i < record->n_inline && i < FRAMES; i++)
        put_frame(r, i, record->words[i]);
}

/* What the slot's thread left when it began to wait. Nobody gives it to us, but the process is at its end. */
static void put_left(struct stile__region *r, const struct stile__slot *slot)
{
    const struct stile__slot *first = stile__region_slot(r, 0);
    const struct stile__session *s = stile__session;
    uint64_t i = (uint64_t)(slot - first);
    if (s == NULL || s->size.waits == 0 || i >= s->size.slot_max) {
        put("stile:     (what it left is not recorded)\n");
        return;
    }
    const struct stile__left *left = stile__region_left(r, s->size, (uint32_t)i);
    const uint32_t room = (STILE__LEFT_CELLS - 1) * STILE__CELL_BYTES / sizeof(uint64_t);
    uint32_t n = left->record.n_inline < room ? left->record.n_inline : room;
    for (uint32_t k = 0; k < n && k < FRAMES; k++)
        put_frame(r, k, left->record.words[k]);
}

static void put_owner(struct stile__region *r, const struct stile__slot *slot,
                      const struct stile__ownership_facts *f)
{
    static const char *const states[] = {"without a state", "running", "waiting", "dead"};
    enum stile__stack_state state = stile__stack_state(f->status);
    put("stile:   owner: thread ");
    put_number(f->slot_tid, 10);
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
        put_number(f->lock, 10);
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
    put_number(f->self, 10);
    if (f->tid != f->self) {
        put(", which takes itself for ");
        put_number(f->tid, 10);
    }
    put(", ");
    put(reader);
    put(":\n");
    flush(); /* its walk may be what does not end well */
    put_own_stack(r, regs);
    flush();
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
