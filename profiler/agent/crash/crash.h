/* Crashes: from the signal to the report, and on to what the program does with it.
 *
 *   the first thread                       other threads                            the collector
 *   handler.c: claims the crash
 *   output.c: "crashing", then the output
 *   freeze.c: `freezing`, a signal each ─▶ own stack by CFI, into a node on it
 *                                          park
 *   report.c: head, own stack, modules,
 *     nodes ─▶ write(2), and the region ───────────────────────────────────────────▶ names the frames
 *   copies the names to the outputs ◀──────────────────────────────────────────────── answer, in the region
 *   pass_on: the program's disposition, the same signal again
 *
 * Invariants
 *  - One reporter: `reporter` is its tid, taken by compare-and-swap. Others that crash meanwhile park as frozen threads do.
 *  - A stack is walked by its own thread, and what it found is read by the reporter while that thread is parked, or between
 *    scan_begin and scan_drop.
 *  - Every wait has an end: of the freeze, of a full pipe, of the collector's answer, of a thread that is parked.
 *  - A fault of the reporter's own ends the report where it is, and the program as it would have ended.
 *  - In a process that is not the one that enabled reports (a vfork's child, which shares this memory) nothing is touched.
 *
 * Runs in the handlers of crashes but for what says otherwise. */
#ifndef STILE_AGENT_CRASH_CRASH_H
#define STILE_AGENT_CRASH_CRASH_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "profiler/agent/crash/frames.h"
#include "profiler/agent/crash/text.h"
#include "profiler/agent/session.h"

/* As the kernel takes it. */
struct stile__raw_action {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

/* A signal that is a crash where the program does not handle it. */
struct stile__crash_signal {
    int number;
    bool ours;     /* our handler is installed */
    bool survived; /* the program has handled it and gone on: it is reported no more while it has a handler */
    struct stile__raw_action theirs; /* what the program has set, or had when reports were enabled */
};
#define STILE__CRASH_SIGNALS 7u

struct stile__crash {
    int32_t pid;               /* of the process in which reports are enabled; 0: nowhere */
    bool freezes;              /* others are signalled */
    _Atomic uint32_t reporter; /* tid, or 0 */
    _Atomic uint32_t freezing; /* number of the freeze, or 0: also a futex */
    _Atomic uint32_t arrivals; /* threads that may hold a node in the list */
    struct stile__crash_signal signals[STILE__CRASH_SIGNALS];
    char command[256];
};
extern struct stile__crash stile__crash;

/* The signal's entry, or NULL. */
struct stile__crash_signal *stile__crash_signal_of(int signal);

/* The handler. */
void stile__handle_crash(int signal, siginfo_t *info, void *context);

/* A thread that another one's report waits for. Its node lies on its own stack; see freeze.c. */
struct stile__frozen {
    struct stile__frozen *next;
    uint32_t tid;
    int signal; /* that it crashed with meanwhile, or 0 */
    uint64_t status;
    struct stile__frames frames;
};

/* The reporter's: stops the world, and lets it go. tids: of the others, as they are found; returns how many there are (of which
 * max are listed). */
void stile__freeze_begin(struct stile__region *r);
uint32_t stile__freeze_wait(struct stile__session *s, struct stile__region *r, uint32_t *tids, uint32_t max);
/* What the i-th of them gave; NULL: nothing so far. */
const struct stile__frozen *stile__freeze_came(uint32_t i, uint32_t tid);
void stile__freeze_end(struct stile__region *r);

/* Walks the calling thread's own stack. locked_too: also if its barriers are being changed; else there is the leaf alone. */
void stile__frames_of_own(struct stile__frames *f, struct stile__region *r, const ucontext_t *uc,
                          bool locked_too);

/* Whether a signal is the one that stops a thread. */
bool stile__freeze_signal(const siginfo_t *info);

/* The others': gives the calling thread's stack and stops it while the world is stopped. signal: as in stile__frozen.
 * In the clocks' handler, and in that of crashes. */
void stile__freeze_here(struct stile__region *r, const ucontext_t *uc, int signal);

/* Writes the report. signal: that it is about. */
void stile__report_write(struct stile__text *t, struct stile__session *s, struct stile__region *r,
                         const siginfo_t *info, const ucontext_t *uc);

/* What there is to say of a thread beside its stack: from /proc/self/task, with what is missing left out. */
struct stile__task {
    char name[16]; /* not terminated when 16 long */
    char state;    /* as in stat: R, S, D, ...; '?' */
};
void stile__task_look(uint32_t tid, struct stile__task *task);

/* Calls fn with the tid of each thread of this process. False: /proc cannot be read. */
bool stile__tasks_each(void (*fn)(uint32_t tid, void *arg), void *arg);

#endif
