/* A session's life: region made, collector found or started, handler installed, clocks running; and the way back.
 * Normal context throughout. The handler sees a session only through the wiped-on-fork page. */
#include "profiler/agent/session.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "barriers/chain.h"
#include "barriers/ownership_check.h"
#include "barriers/stack_lock.h"
#include "barriers/unwind/personality.h"
#include "profiler/agent/alt_stack.h"
#include "profiler/agent/blocking.h"
#include "profiler/agent/cancellation.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/clock_perf.h"
#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/output.h"
#include "profiler/agent/crash_signals.h"
#include "profiler/agent/greeting.h"
#include "profiler/agent/hooks.h"
#include "profiler/agent/log.h"
#include "profiler/agent/maps.h"
#include "profiler/agent/options.h"
#include "profiler/agent/patience.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/session_open.h"
#include "profiler/agent/signal_owner.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

#define EXIT_WAIT_MS 11000 /* a little more than the wait for a file */

struct stile__session *stile__session;

/* What outlives a fork: not secret to the child, and needed to start its own session. Written only by
 * stile__session_start, whose callers are serialized by `starting`. */
static struct stile__options kept_options;
static struct stile__collector collector;
static _Atomic uint32_t starting; /* tid of the thread that starts or ends a session, or 0 */

static int page_make(void)
{
    _Static_assert(sizeof(struct stile__session) <= STILE__PAGE, "one page is wiped");
    if (stile__session != NULL)
        return 0;
    void *page = mmap(NULL, STILE__PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    if (madvise(page, STILE__PAGE, MADV_WIPEONFORK) != 0) {
        int err = -errno;
        munmap(page, STILE__PAGE);
        return err;
    }
    stile__session = page;
    return 0;
}

/* From here on ticks may come. Release: the handler's load of region sees all that was set before. */
static void publish(struct stile__region *r)
{
    struct stile__session *s = stile__session;
    s->pid = stile__raw_getpid();
    atomic_store_explicit(&s->piece, 0, memory_order_relaxed);
    atomic_store_explicit(&s->toggles, 0, memory_order_relaxed);
    atomic_store_explicit(&s->toggle_wishes, 0, memory_order_relaxed);
    atomic_store_explicit(&s->toggle_busy, 0, memory_order_relaxed);
    stile__signal_owner_set(s->pid);
    atomic_store_explicit(&s->signal_taken, false, memory_order_relaxed);
    atomic_store_explicit(&s->region, r, memory_order_seq_cst);
}

/* After this no thread is inside the region, or false: then it must stay mapped. */
static bool quiesce(struct stile__session *s)
{
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t inside = 0;
        for (int i = 0; i < STILE__SHARDS; i++)
            inside += atomic_load_explicit(&s->shards[i].inside, memory_order_seq_cst);
        if (inside == 0)
            return true;
        stile__raw_sleep_ns(1000000);
    }
    return false;
}

/* Whether the program has put itself under a filter since its start: one that was there then let us do what a start takes. */
static bool filtered_since(enum stile__origin origin)
{
    static bool filtered_first;
    bool now = stile__clock_filtered();
    if (origin != STILE__ORIGIN_FORK)
        filtered_first = now;
    return now && !filtered_first;
}

static int start(const struct stile__options *o, enum stile__origin origin)
{
    struct stile__region *r;
    int fd;
    if (filtered_since(origin)) {
        stile__log("under a filter of system calls that was set after the start; running without a profile");
        return -EPERM;
    }
    /* Starting counts, too. The child of a fork begins at zero. */
    uint64_t start_cpu_ns = origin == STILE__ORIGIN_FORK ? 0 : stile__clock_now(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t base_cpu_ns = origin == STILE__ORIGIN_FORK ? 0 : stile__clock_read(stile__raw_gettid(), true);
    int err = page_make();
    if (err == 0)
        err = stile__threads_init();
    if (err == 0)
        err = stile__session_signals_install(stile__session, o, origin);
    if (err != 0)
        return err;
    err = stile__region_make(&r, &fd, o->hz, collector.name[0] == '\0' && o->root[0] == '\0',
                             stile__session_leaves_wanted(o));
    if (err != 0) {
        stile__log("no memory for the samples: %s; running without a profile",
                   err == -EFBIG ? "the limit of file sizes (ulimit -f, RLIMIT_FSIZE) is too low"
                                 : strerror(-err));
        return err;
    }
    if ((o->debug & STILE__DEBUG_OWNERSHIP) != 0)
        stile__modules_init();
    if ((o->crashes || o->dump != 0) && origin != STILE__ORIGIN_FORK)
        stile__crash_output_init();
    if (o->crashes) {
        if (origin !=
            STILE__ORIGIN_API) /* the output is open already, or the program has set another one since */
            stile__crash_output_open(o, origin == STILE__ORIGIN_FORK);
        /* As early as can be: to start the collector takes its time. */
        const int failed = stile__crash_install((o->debug & STILE__DEBUG_NO_FREEZE) == 0);
        if (failed != 0)
            stile__log("crashes are not reported: %s", strerror(-failed));
    }
    stile__barrier_personality_set();
    if (o->barriers != STILE__BARRIERS_OFF && origin != STILE__ORIGIN_FORK)
        stile__session_barriers_check();
    stile__waits_init();
    stile__sockets_init();
    stile__locks_init();
    stile__session_region_fill(stile__session, r, o, origin, start_cpu_ns);
    err = stile__session_clocks_open(stile__session, r, o);
    if (err == 0)
        err = stile__greeting_send(&collector, o, fd, origin == STILE__ORIGIN_FORK);
    close(fd);
    if (err != 0) {
        if (stile__session->clocks != NULL)
            stile__clocks_close(stile__session);
        stile__region_unmake(r);
        return err;
    }
    publish(r);
    stile__blocking_set(stile__session->leaves);
    stile__thread_enter(base_cpu_ns);
    if (origin != STILE__ORIGIN_FORK)
        stile__threads_enter_others();
    return 0;
}

/* Crash reports, once on, stay on: what the next session is asked for does not say of them. */
static void options_keep(const struct stile__options *o)
{
    const bool crashes = kept_options.crashes;
    const int crash_fd = kept_options.crash_fd;
    static char crash[PATH_MAX];
    memcpy(crash, kept_options.crash, sizeof crash);
    kept_options = *o;
    if (crashes && !o->crashes) {
        kept_options.crashes = true;
        kept_options.crash_fd = crash_fd;
        memcpy(kept_options.crash, crash, sizeof crash);
    }
}

static int finish(struct stile__session *s, bool wait);

/* A session that only waits for crashes or for the user's dumps makes room for a profile. The caller holds `starting`. */
static void make_room(const struct stile__options *o)
{
    struct stile__session *s = stile__session;
    if (s != NULL && o->profile[0] != '\0' && !s->ticks && s->block_rate_ns == 0 &&
        atomic_load_explicit(&s->region, memory_order_acquire) != NULL)
        finish(s, true);
}

/* Without a collector: crashes are reported all the same, without names. */
static void crashes_alone(void)
{
    if (stile__crash_install((kept_options.debug & STILE__DEBUG_NO_FREEZE) == 0) == 0)
        stile__thread_enter(0);
}

int stile__session_start(const struct stile__options *o, enum stile__origin origin)
{
    int saved_errno = errno, err = -EALREADY;
    uint32_t none = 0;
    if (!atomic_compare_exchange_strong_explicit(&starting, &none, stile__raw_gettid(), memory_order_acquire,
                                                 memory_order_relaxed))
        return err;
    int cancellation = stile__cancellation_hold();
    make_room(o);
    if (stile__session == NULL ||
        atomic_load_explicit(&stile__session->region, memory_order_acquire) == NULL) {
        if (o != &kept_options)
            options_keep(o);
        /* A toggle that comes when our handler is there and the session not yet is kept for it. */
        uint64_t toggle = kept_options.toggle != 0 ? 1ull << (kept_options.toggle - 1) : 0;
        uint64_t mask = stile__raw_sigmask(SIG_BLOCK, toggle);
        err = start(&kept_options, origin);
        if (err != 0 && kept_options.crashes)
            crashes_alone();
        if ((mask & toggle) != toggle)
            stile__raw_sigmask(SIG_UNBLOCK, toggle);
    }
    atomic_store_explicit(&starting, 0, memory_order_release);
    stile__cancellation_restore(cancellation);
    errno = saved_errno;
    return err;
}

int stile__session_crashes(void)
{
    static struct stile__options o;
    struct stile__session *s = stile__session;
    const bool none = s == NULL || atomic_load_explicit(&s->region, memory_order_acquire) == NULL;
    if (none) {
        if (stile__options_surroundings(&o) != 0)
            return -EINVAL;
        o.hz = 100;
        o.signal = SIGPROF;
        o.crashes = true;
        o.crash_fd = -1;
        stile__session_start(&o, STILE__ORIGIN_API); /* without a collector they have no names */
        s = stile__session;
    }
    kept_options.crashes = true;
    const int err = stile__crash_install((kept_options.debug & STILE__DEBUG_NO_FREEZE) == 0);
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r != NULL) {
        atomic_store_explicit(&r->crash_wanted, 1, memory_order_relaxed);
        stile__session_leave(s, stile__thread_shard());
    }
    return err;
}

/* A thread of ours that waits for the collector goes on executing: its stack stays its own, whoever asks. Returns whether it
 * has to resume; another such wait may be under way, which a handler of the program has interrupted. */
static bool collector_wait(struct stile__region *r)
{
    struct stile__thread *t = &stile__thread;
    return stile__thread_bound(t, r) &&
           stile__ownership_wait_executing(r, t->slot, t->tid, STILE__WAIT_COLLECTOR);
}

/* Out of line: gcc 12 checks the address of a thread's variable for NULL, and finds it, if it is inlined where
 * that address is taken twice (-fsanitize=null). */
static __attribute__((noinline)) void collector_resume(struct stile__region *r, bool waited)
{
    struct stile__thread *t = &stile__thread;
    if (waited && stile__thread_bound(t, r)) /* a handler of the program may have ended the session */
        stile__stack_resume(&t->slot->status, &r->freezing);
}

/* Whether there is a file to be written. */
static bool files_wanted(void)
{
    const struct stile__session *s = stile__session;
    return s != NULL && (s->ticks || s->block_rate_ns != 0);
}

int stile__session_flush(void)
{
    int saved_errno = errno, err = -ESRCH;
    struct stile__region *r =
        files_wanted() ? stile__session_enter(stile__session, stile__thread_shard()) : NULL;
    if (r != NULL) {
        int cancellation = stile__cancellation_hold();
        stile__maps_publish(r);
        bool waits = collector_wait(r);
        err = stile__patience_flush(r, &collector);
        collector_resume(r, waits);
        stile__session_leave(stile__session, stile__thread_shard());
        stile__cancellation_restore(cancellation);
    }
    errno = saved_errno;
    return err;
}

static bool rings_empty(const struct stile__session *s, struct stile__region *r)
{
    uint32_t used = atomic_load_explicit(&r->slots_used, memory_order_acquire);
    for (uint32_t i = 0; i < used && i < s->size.slot_max; i++) {
        struct stile__slot *slot = stile__region_slot(r, i);
        if (atomic_load_explicit(&slot->head, memory_order_relaxed) !=
            atomic_load_explicit(&slot->tail, memory_order_relaxed))
            return false;
    }
    return true;
}

/* Whether the collector has looked at what is mapped since the last library went. If it has not, it would not know what the
 * stacks are of that are sampled until the next one is gone. */
static bool maps_known(const struct stile__region *r)
{
    const uint32_t as_of = atomic_load_explicit(&r->rules_unloads, memory_order_relaxed);
    return as_of == STILE__RULES_NONE ||
           as_of == atomic_load_explicit(&r->unloads, memory_order_relaxed) / STILE__UNLOADS_ONE;
}

void stile__session_drain(void)
{
    int saved_errno = errno;
    struct stile__session *s = stile__session;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r == NULL)
        return;
    int cancellation = stile__cancellation_hold();
    /* A filter may end the program for a socket. */
    if (s->pid == stile__raw_getpid() && !(rings_empty(s, r) && maps_known(r)) && !stile__clock_filtered()) {
        bool waits = collector_wait(r);
        stile__patience_drain(r, &collector);
        collector_resume(r, waits);
    }
    stile__session_leave(s, stile__thread_shard());
    stile__cancellation_restore(cancellation);
    errno = saved_errno;
}

/* What the kernel has counted of children to their very end, which they cannot tell themselves. */
static void children_tell(struct stile__region *r)
{
    struct rusage u;
    if (kept_options.children == 0) /* their time is not asked for */
        return;
    if (getrusage(RUSAGE_CHILDREN, &u) != 0)
        return;
    uint64_t us = ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000u +
                  (uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec;
    atomic_store_explicit(&r->children_cpu_ns, us * 1000, memory_order_relaxed);
}

/* Takes the session away and, if wanted, waits for its file. Whoever exchanges the pointer is the only one to end it. */
static int finish(struct stile__session *s, bool wait)
{
    stile__thread_leave();
    struct stile__region *r = atomic_exchange_explicit(&s->region, NULL, memory_order_seq_cst);
    if (r == NULL)
        return -ESRCH;
    stile__blocking_set(false);
    bool quiet = quiesce(s);
    stile__threads_stop(s, r);
    stile__clock_process_stop(s);
    stile__threads_settle(s, r);
    atomic_store_explicit(&r->end_cpu_ns, stile__clock_now(CLOCK_PROCESS_CPUTIME_ID), memory_order_relaxed);
    children_tell(r);
    stile__maps_publish(r);
    int err = wait && files_wanted() ? stile__patience_finish(r, &collector) : 0;
    /* Who waited for a flush has been answered by now, too. */
    if (wait && (quiet || quiesce(s))) {
        if (s->clocks != NULL)
            stile__clocks_close(s);
        stile__region_unmap(r, s->size);
        stile__maps_stacks_free(s);
    }
    return err;
}

static int finish_once(bool wait)
{
    int err = -ESRCH;
    uint32_t none = 0;
    if (stile__session != NULL &&
        atomic_compare_exchange_strong_explicit(&starting, &none, stile__raw_gettid(), memory_order_acquire,
                                                memory_order_relaxed)) {
        int cancellation = stile__cancellation_hold();
        err = finish(stile__session, wait);
        atomic_store_explicit(&starting, 0, memory_order_release);
        stile__cancellation_restore(cancellation);
    }
    return err;
}

int stile__session_stop(void)
{
    int saved_errno = errno;
    int err = files_wanted() ? finish_once(true) : -ESRCH;
    stile__mask_restore();
    /* Crashes are reported all the same. */
    if (err != -ESRCH && kept_options.crashes) {
        stile__options_profiles_drop(&kept_options);
        stile__session_start(&kept_options, STILE__ORIGIN_API);
    }
    errno = saved_errno;
    return err;
}

/* Another thread may be ending the session this moment: the process must not go before it has. But it may also be this
 * very thread, in a signal handler that interrupted the wait: then the file is asked for already, and that is all. */
static void ending_wait(void)
{
    uint32_t self = stile__raw_gettid(), owner;
    for (int ms = 0; ms < EXIT_WAIT_MS; ms++) {
        owner = atomic_load_explicit(&starting, memory_order_acquire);
        if (owner == 0 || owner == self)
            return;
        stile__raw_sleep_ns(1000000);
    }
}

void stile__session_exit(void)
{
    struct stile__session *s = stile__session;
    int saved_errno = errno;

    /* A vfork child runs here in its parent's memory: its end is not the parent's. */
    if (s == NULL || s->pid != stile__raw_getpid())
        return;
    /* Nobody but the root waits for the file. */
    if (finish_once(collector.root_pid == s->pid) == -ESRCH)
        ending_wait();
    errno = saved_errno;
}

void stile__session_fork_prepare(void)
{
    uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    struct stile__thread *t = &stile__thread;
    t->fork_mask = mask;
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    if (r != NULL) {
        if (stile__thread_bound(t, r)) {
            stile__stack_lock(&t->slot->stack_lock, t->tid);
            stile__ownership_check(r, t->slot, t->tid, STILE__READER_BARRIERS, NULL);
        }
        stile__session_leave(stile__session, stile__thread_shard());
    }
}

void stile__session_fork_parent(void)
{
    struct stile__thread *t = &stile__thread;
    uint64_t mask = t->fork_mask;
    struct stile__region *r = stile__session_enter(stile__session, stile__thread_shard());
    if (r != NULL) {
        if (stile__thread_bound(t, r))
            stile__stack_unlock(&t->slot->stack_lock);
        stile__session_leave(stile__session, stile__thread_shard());
    }
    stile__raw_sigmask(SIG_SETMASK, mask);
}

void stile__session_fork_child(void)
{
    uint64_t mask = stile__thread.fork_mask;
    bool was_profiled = stile__thread.region != NULL || stile__thread.slot != NULL;

    /* The region is not inherited, and its page was wiped. The thread is another one now, on the same stack. */
    stile__thread.slot = NULL;
    stile__thread.region = NULL;
    stile__thread.wait_frame = 0;
    stile__blocking_set(false); /* until it has a session of its own */
    /* The entries were copied with the stack, but nobody will tell the collector what this stack was. */
    stile__thread_barriers_remove(&stile__thread, NULL);
    stile__thread.barriers.hit = stile__thread.barriers.retired = stile__thread.barriers.restored =
        0; /* placed by the parent */
    stile__barriers_give_back(&stile__thread.barriers);
    stile__stub_chunks_forked();
    stile__barrier_personality_forked();
    atomic_store_explicit(&starting, 0, memory_order_relaxed);
    collector.hidden = 0;
    stile__signal_owner_set(stile__raw_getpid());
    stile__crash_forked();
    stile__alt_stacks_forked();
    /* All signals are blocked by us here: what the program believes of its mask is what it believed before. */
    bool blocks = stile__thread.program_blocks;
    if (was_profiled && kept_options.children == 0)
        stile__options_profiles_drop(&kept_options);
    if (was_profiled && (kept_options.children != 0 || kept_options.crashes || kept_options.dump != 0))
        stile__session_start(&kept_options, STILE__ORIGIN_FORK);
    stile__thread.program_blocks = blocks;
    stile__raw_sigmask(SIG_SETMASK, mask);
}

pid_t stile__session_hidden_child(void)
{
    return collector.hidden;
}
