/* signal/handler.c and walk.c: one record for a tick, whatever state the thread is in; and the lock, in a profile. */
#include "tests/unit/support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "barriers/stack_lock.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "proto/reader.h"

static struct stile__session made; /* stands in for the page that the agent makes */
static struct stile__region *region;
static struct stile__slot *slot;
static struct stile__clock clocks[2];
static struct stile__bounds real_stack;
static int region_fd;

/* Slot 0 of a fresh region is this thread's. */
static int set_up(void **state)
{
    (void)state;
    if (stile__region_make(&region, &region_fd, 100, false, false) != 0)
        return -1;
    memset(&made, 0, sizeof made);
    stile__session_size_set(&made, region->size);
    made.tick_ns = 4000;
    made.clocks = clocks;
    memset(clocks, 0, sizeof clocks);
    clocks[0].kind = STILE__CLOCK_TIMER;
    clocks[0].perf_fd = -1;
    made.period_ns = 1000;
    made.depth = STILE__DEPTH_MAX;
    atomic_store(&region->rules_unloads, STILE__RULES_NONE);
    atomic_store(&made.region, region);
    slot = stile__region_slot(region, 0);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    atomic_store(&slot->tid, gettid());
    stile__stack_begin(&slot->status);
    region->debug = STILE__DEBUG_OWNERSHIP;
    atomic_store(&slot->generation, 5);
    real_stack = stile__thread.stack;
    stile__session = &made;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stile__session = NULL;
    stile__thread.slot = NULL;
    stile__thread.region = NULL;
    stile__thread.stack = real_stack;
    stile__region_unmake(region);
    return close(region_fd);
}

static bool leaving; /* ticks come on the way out of a system call */

/* A tick as the kernel delivers it, for code that was interrupted right here. */
static void tick(uint64_t id, int overruns, ucontext_t *uc)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_TIMER;
    info.si_overrun = overruns;
    info.si_value.sival_ptr = (void *)(uintptr_t)id;
    getcontext(uc);
    uc->uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)&tick;
    uc->uc_mcontext.gregs[REG_RCX] = leaving ? (greg_t)(uintptr_t)&tick : 0;
    uc->uc_mcontext.gregs[REG_R11] = uc->uc_mcontext.gregs[REG_EFL];
    stile__handle_tick(SIGPROF, &info, uc);
}

/* As when a thread is born with hooks. */
static void bind_to_slot(void)
{
    stile__thread.slot = slot;
    stile__thread.region = region;
    stile__thread.id = 5ull << 32;
    stile__thread.tid = (uint32_t)gettid();
    stile__thread.surplus = stile__thread.unsettled = 0;
    stile__thread.kernel_ns = 0;
}

static const struct stile__record *record_at(uint64_t cell)
{
    return (const void *)(stile__region_ring(region, made.size, 0) + cell);
}

static void test_record(void **state)
{
    ucontext_t uc;
    (void)state;
    errno = 1234;
    tick(5ull << 32, 2, &uc);
    assert_int_equal(errno, 1234);
    assert_int_equal(atomic_load(&slot->head), stile__record_cells(STILE__REG_COUNT));
    assert_int_equal(atomic_load(&slot->signals), 1);
    assert_int_equal(atomic_load(&slot->stack_lock), 0);
    const struct stile__record *r = record_at(0);
    assert_int_equal(r->ticks, 3);
    assert_int_equal(r->unloads, 0);
    assert_int_equal(r->kind, STILE__RECORD_SNAPSHOT);
    assert_int_equal(r->n_new, 0);
    assert_int_equal(r->kept, 0);
    assert_int_equal(r->reason, STILE__REASON_NONE);
    assert_true(r->block < made.size.block_max && r->stack_len > 128);
    assert_int_equal(r->words[STILE__REG_RIP], (uintptr_t)&tick);
    assert_int_equal(r->words[STILE__REG_RSP], uc.uc_mcontext.gregs[REG_RSP]);
    assert_int_equal(r->words[STILE__REG_RBP], uc.uc_mcontext.gregs[REG_RBP]);
    assert_int_equal(r->words[3], uc.uc_mcontext.gregs[REG_RBX]); /* in the order of DWARF */
    assert_int_equal(r->words[15], uc.uc_mcontext.gregs[REG_R15]);
    assert_int_equal(r->stack_start, r->words[STILE__REG_RSP] - 128);
    assert_int_equal(r->stack_start + r->stack_len, stile__thread.stack.hi);
    assert_int_equal(atomic_load(&made.shards[stile__thread_shard() % STILE__SHARDS].inside), 0);
}

static void test_leaf_only(void **state)
{
    ucontext_t uc;
    (void)state;
    atomic_store(&slot->stack_lock, (uint32_t)gettid()); /* as if the tick came while we held it */
    tick(5ull << 32, 0, &uc);
    assert_int_equal(record_at(0)->reason, STILE__REASON_STACK_LOCKED);
    assert_int_equal(record_at(0)->block, STILE__BLOCK_NONE);
    assert_int_equal(record_at(0)->n_new, 1);
    assert_int_equal(record_at(0)->words[0], (uintptr_t)&tick);
    assert_int_equal(atomic_load(&slot->stack_lock), gettid()); /* still ours */
    atomic_store(&slot->stack_lock, 0);

    atomic_store(&region->blocks_used[0], ~0ull);
    tick(5ull << 32, 0, &uc);
    assert_int_equal(record_at(2)->reason, STILE__REASON_BUFFER_FULL);
    assert_int_equal(record_at(2)->n_new, 1);
    assert_int_equal(record_at(2)->words[0], (uintptr_t)&tick);

    stile__thread.stack = (struct stile__bounds){4096, 8192};
    tick(5ull << 32, 0, &uc);
    assert_int_equal(record_at(4)->reason, STILE__REASON_UNKNOWN_STACK);
    assert_int_equal(record_at(4)->n_new, 1);
    assert_int_equal(record_at(4)->words[0], (uintptr_t)&tick);
}

/* Periods are long here, so that a test's own time does not matter. The slot's thread has used n of them. */
static void used(uint32_t n, enum stile__clock_kind kind)
{
    made.period_ns = 10000000;
    made.tick_ns = 10000000;
    clocks[0].kind = (uint8_t)kind;
    clocks[0].perf_fd = 77;
    slot->first_due_ns = stile__clock_read((uint32_t)gettid(), true) - (n - 1) * made.period_ns;
}

static void signal_arrives(siginfo_t *info, ucontext_t *uc)
{
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)&signal_arrives;
    stile__handle_tick(SIGPROF, info, uc);
}

static void perf_tick(int fd)
{
    siginfo_t info;
    ucontext_t uc;
    memset(&info, 0, sizeof info);
    info.si_code = POLL_IN;
    info.si_fd = fd;
    getcontext(&uc);
    uc.uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    signal_arrives(&info, &uc);
}

static void timer_tick(uint64_t id, bool in_kernel)
{
    siginfo_t info;
    ucontext_t uc;
    memset(&info, 0, sizeof info);
    info.si_code = SI_TIMER;
    info.si_value.sival_ptr = (void *)(uintptr_t)id;
    getcontext(&uc);
    uc.uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    uc.uc_mcontext.gregs[REG_RCX] = in_kernel ? (greg_t)(uintptr_t)&signal_arrives : 0;
    uc.uc_mcontext.gregs[REG_R11] = uc.uc_mcontext.gregs[REG_EFL];
    signal_arrives(&info, &uc);
}

#define RECORD stile__record_cells(STILE__REG_COUNT)

static void test_perf_ticks(void **state)
{
    (void)state;
    bind_to_slot();
    used(10, STILE__CLOCK_PERF);
    perf_tick(77);
    perf_tick(77);
    assert_int_equal(atomic_load(&slot->head), 2 * RECORD);
    assert_int_equal(record_at(0)->ticks, 1);
    assert_int_equal(record_at(0)->flags & STILE__IN_KERNEL, 0);
    perf_tick(78); /* of somebody else's event */
    assert_int_equal(atomic_load(&region->stale_signals), 1);
    assert_int_equal(atomic_load(&slot->ticks), 2);
    clocks[0].perf_fd = -1;
    perf_tick(77); /* of one that is gone */
    assert_int_equal(atomic_load(&region->stale_signals), 2);
}

static void test_perf_before_the_thread_is_bound(void **state)
{
    (void)state;
    used(3, STILE__CLOCK_PERF);
    perf_tick(77);
    assert_int_equal(atomic_load(&region->stale_signals), 1);
    timer_tick(5ull << 32, false); /* what went by until now was not in the kernel */
    assert_int_equal(record_at(0)->ticks, 3);
    assert_int_equal(record_at(0)->flags & STILE__IN_KERNEL, 0);
}

/* The timer beside perf's clock takes what is due in the kernel at once, and elsewhere when it has grown. */
static void test_time_in_the_kernel(void **state)
{
    (void)state;
    bind_to_slot();
    used(3, STILE__CLOCK_PERF);
    perf_tick(77);
    timer_tick(5ull << 32, false);
    assert_int_equal(atomic_load(&slot->head), RECORD);
    timer_tick(5ull << 32, true);
    assert_int_equal(atomic_load(&slot->head), 2 * RECORD);
    assert_int_equal(record_at(RECORD)->ticks, 2);
    assert_int_equal(record_at(RECORD)->flags & STILE__IN_KERNEL, STILE__IN_KERNEL);
    timer_tick(5ull << 32, true); /* nothing is due */
    assert_int_equal(atomic_load(&slot->head), 2 * RECORD);
    used(6, STILE__CLOCK_PERF);
    timer_tick(5ull << 32, false); /* three */
    assert_int_equal(atomic_load(&slot->head), 2 * RECORD);
    used(7, STILE__CLOCK_PERF);
    timer_tick(5ull << 32, false); /* four */
    assert_int_equal(record_at(2 * RECORD)->ticks + record_at(3 * RECORD)->ticks, 4);
}

static void test_more_ticks_than_time(void **state)
{
    (void)state;
    bind_to_slot();
    used(2, STILE__CLOCK_PERF);
    for (int i = 0; i < 6; i++)
        perf_tick(77);
    timer_tick(5ull << 32, false); /* four too many: one may be early, three are let go by */
    for (int i = 0; i < 3; i++)
        perf_tick(77);
    assert_int_equal(atomic_load(&slot->ticks), 6);
    perf_tick(77);
    assert_int_equal(atomic_load(&slot->ticks), 7);
}

static void test_perf_alone_settles_itself(void **state)
{
    (void)state;
    bind_to_slot();
    used(100, STILE__CLOCK_PERF_ALONE);
    for (int i = 0; i < 64; i++) {
        perf_tick(77);
        atomic_store(&slot->tail, atomic_load(&slot->head));
        atomic_store(&region->blocks_used[0], 0);
    }
    assert_int_equal(atomic_load(&slot->ticks), 100);
    const struct stile__record *settled =
        record_at((atomic_load(&slot->head) - 1) % stile__slot_cells(made.size, 0));
    assert_int_equal(settled->ticks, 36);
    assert_int_equal(settled->flags & STILE__IN_KERNEL, STILE__IN_KERNEL);
    assert_int_equal(settled->n_new, 0); /* where, nobody knows */
    assert_int_equal(settled->block, STILE__BLOCK_NONE);
}

static void test_the_timer_of_the_process(void **state)
{
    (void)state;
    atomic_store(&slot->tid, 1);
    timer_tick(STILE__PROCESS_TICK, false); /* nobody's slot */
    assert_int_equal(atomic_load(&region->stale_signals), 1);
    atomic_store(&slot->tid, gettid());
    bind_to_slot();
    used(5, STILE__CLOCK_PROCESS);
    timer_tick(STILE__PROCESS_TICK, false); /* all that this thread has used, whoever else ran */
    assert_int_equal(record_at(0)->ticks, 5);
    assert_int_equal(record_at(0)->flags & STILE__IN_KERNEL, 0);
    used(9, STILE__CLOCK_TIMER);
    timer_tick(STILE__PROCESS_TICK, false); /* it has a clock of its own */
    assert_int_equal(atomic_load(&slot->ticks), 5);
}

static void test_signals_kept_from_us(void **state)
{
    ucontext_t uc;
    (void)state;
    bind_to_slot();
    made.period_ns = 10000000;
    made.tick_ns = 4000000;
    stile__thread.kernel_ns = 1ull << 60; /* none of it was in the kernel */
    tick(5ull << 32, 2, &uc);             /* late, as it may be */
    assert_int_equal(record_at(0)->ticks, 3);
    assert_int_equal(record_at(0)->reason, STILE__REASON_NONE);
    atomic_store(&region->blocks_used[0], 0);
    tick(5ull << 32, 3, &uc); /* a busy machine */
    assert_int_equal(record_at(RECORD)->ticks, 4);
    assert_int_equal(record_at(RECORD)->reason, STILE__REASON_NONE);
    atomic_store(&region->blocks_used[0], 0);
    tick(5ull << 32, 19, &uc); /* a very busy one, or one that stands still at times */
    assert_int_equal(record_at(2 * RECORD)->ticks, 20);
    assert_int_equal(record_at(2 * RECORD)->reason, STILE__REASON_NONE);
    atomic_store(&region->blocks_used[0], 0);
    tick(5ull << 32, 59, &uc);
    assert_int_equal(record_at(3 * RECORD)->ticks, 59);
    assert_int_equal(record_at(3 * RECORD)->reason, STILE__REASON_SIGNAL_BLOCKED);
    assert_int_equal(record_at(3 * RECORD)->flags & STILE__IN_KERNEL, 0);
    assert_int_equal(record_at(4 * RECORD)->ticks, 1);
    assert_int_equal(record_at(4 * RECORD)->reason, STILE__REASON_NONE);
    atomic_store(&region->blocks_used[0], 0);
    leaving = true; /* the system call that opened our signal */
    tick(5ull << 32, 19, &uc);
    leaving = false;
    assert_int_equal(record_at(5 * RECORD)->ticks, 19);
    assert_int_equal(record_at(5 * RECORD)->reason, STILE__REASON_SIGNAL_BLOCKED);
}

static uint64_t in_kernel_ns(void)
{
    struct rusage use;
    getrusage(RUSAGE_THREAD, &use);
    return (uint64_t)use.ru_stime.tv_sec * 1000000000u + (uint64_t)use.ru_stime.tv_usec * 1000u;
}

/* One long system call is no fault of the program's. */
static void test_a_long_system_call(void **state)
{
    static char bytes[1 << 20];
    (void)state;
    bind_to_slot();
    uint64_t before = in_kernel_ns();
    stile__thread.kernel_ns = before; /* that much is booked */
    while (in_kernel_ns() - before < 250000000)
        assert_int_equal(getrandom(bytes, sizeof bytes, 0), sizeof bytes);
    used(20, STILE__CLOCK_PERF);
    timer_tick(5ull << 32, true);
    assert_int_equal(record_at(0)->ticks, 20);
    assert_int_equal(record_at(0)->flags & STILE__IN_KERNEL, STILE__IN_KERNEL);
    assert_int_equal(record_at(0)->reason, STILE__REASON_NONE);
    assert_int_equal(stile__thread.kernel_ns, before + 200000000);
}

static void test_a_thread_is_found_by_its_number(void **state)
{
    (void)state;
    atomic_store(&region->slots_used, 1);
    used(4, STILE__CLOCK_PROCESS);
    timer_tick(STILE__PROCESS_TICK, false);
    assert_int_equal(record_at(0)->ticks, 4);
    assert_int_equal(stile__thread.id, 5ull << 32);

    stile__thread.slot = NULL;
    stile__thread.searched_in = NULL;
    atomic_store(&slot->tid, 1);
    for (int i = 0; i < 100; i++)
        perf_tick(77);
    assert_int_equal(stile__thread.searches, 8); /* it has none, and does not look for ever */
    assert_int_equal(atomic_load(&region->stale_signals), 100);
}

static void test_on_the_way_out_of_a_system_call(void **state)
{
    (void)state;
    bind_to_slot();
    used(1, STILE__CLOCK_TIMER);
    timer_tick(5ull << 32, true);
    assert_int_equal(record_at(0)->flags & STILE__IN_KERNEL, STILE__IN_KERNEL);
    timer_tick(5ull << 32, false);
    assert_int_equal(record_at(RECORD)->flags & STILE__IN_KERNEL, 0);
}

static void test_full_ring_counts(void **state)
{
    ucontext_t uc;
    (void)state;
    uint32_t fit = stile__slot_cells(made.size, 0) / stile__record_cells(STILE__REG_COUNT);
    for (uint32_t i = 0; i < fit + 4; i++) {
        tick(5ull << 32, 1, &uc);
        atomic_store(&region->blocks_used[0], 0);
    }
    assert_int_equal(atomic_load(&slot->head), fit * stile__record_cells(STILE__REG_COUNT));
    assert_int_equal(atomic_load(&slot->signals), fit + 4);
    assert_int_equal(atomic_load(&slot->lost_ticks), 8);
    assert_int_equal(atomic_load(&slot->lost_ns), 8000);
}

static void stale(uint64_t id, uint64_t expected)
{
    ucontext_t uc;
    tick(id, 0, &uc);
    assert_int_equal(atomic_load(&region->stale_signals), expected);
    assert_int_equal(atomic_load(&slot->head), 0);
    assert_int_equal(atomic_load(&slot->signals), 0);
}

static void test_signals_that_are_not_ours(void **state)
{
    siginfo_t info = {.si_code = SI_USER};
    ucontext_t uc;
    (void)state;
    stale(4ull << 32, 1);              /* of an earlier thread in this slot */
    stale(5ull << 32 | 1, 2);          /* of a slot that nobody has */
    stale(5ull << 32 | UINT32_MAX, 3); /* of no slot at all */
    atomic_store(&slot->tid, 1);
    stale(5ull << 32, 4); /* of another thread */
    atomic_store(&slot->tid, gettid());
    atomic_store(&slot->state, STILE__SLOT_EXITED);
    stale(5ull << 32, 5);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    getcontext(&uc);
    uc.uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    info.si_value.sival_ptr = (void *)(uintptr_t)(5ull << 32);
    stile__handle_tick(SIGPROF, &info, &uc); /* somebody's kill() */
    assert_int_equal(atomic_load(&region->stale_signals), 6);
    assert_int_equal(atomic_load(&slot->head), 0);
}

static void test_without_a_session(void **state)
{
    ucontext_t uc;
    (void)state;
    errno = 1234;
    atomic_store(&made.region, NULL);
    tick(5ull << 32, 0, &uc);
    stile__session = NULL;
    tick(5ull << 32, 0, &uc);
    assert_int_equal(errno, 1234);
    assert_int_equal(atomic_load(&slot->signals), 0);
    assert_int_equal(atomic_load(&region->stale_signals), 0);
    assert_int_equal(atomic_load(&made.shards[stile__thread_shard() % STILE__SHARDS].inside), 0);
    assert_null(stile__thread.slot);
}

static const char *location_name(struct stile__profile *p, const Perftools__Profiles__Location *l)
{
    return l->n_line == 0
               ? ""
               : stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
}

static bool in_kernel(struct stile__profile *p, const Perftools__Profiles__Sample *s)
{
    size_t leaf = stile__profile_location_index(p, s->location_id[0]);
    return strcmp(location_name(p, p->pb->location[leaf]), STILE__KERNEL_NAME) == 0;
}

/* Samples by whether they lie under [stack locked]; every one of those has a leaf besides. */
static void locked_ticks(const char *path, int64_t *locked, int64_t *all)
{
    struct stile__profile *p;
    char err[512];
    *locked = *all = 0;
    if (stile__profile_read(path, &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    for (size_t i = 0; i < p->pb->n_sample; i++) {
        const Perftools__Profiles__Sample *s = p->pb->sample[i];
        assert_true(s->n_location_id > 0);
        size_t root = stile__profile_location_index(p, s->location_id[s->n_location_id - 1]);
        const char *name = location_name(p, p->pb->location[root]);
        *all += s->value[0];
        if (strcmp(name, "[stack locked]") == 0) {
            *locked += s->value[0];
            assert_true(s->n_location_id == 2 || (s->n_location_id == 3 && in_kernel(p, s)));
        } else if (name[0] != '[') {
            assert_true(s->n_location_id > 2);
        }
    }
    stile__profile_free(p);
}

static void test_locked_half_of_the_time(void **state)
{
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("locked.pb"), .hz = 200};
    int64_t locked, all;
    (void)state;
    assert_int_equal(stile_profile_start(&o), 0);
    handler_install_raw(SIGPROF, stile__handle_tick);
    struct stile__slot *own = stile__thread.slot;
    assert_non_null(own);
    /* A tick may hold it for a moment, but only inside our own thread: never when we look. */
    assert_true(stile__stack_trylock(&own->stack_lock, stile__thread.tid));
    spin_ns(400000000);
    stile__stack_unlock(&own->stack_lock);
    spin_ns(400000000);
    assert_int_equal(stile_profile_stop(), 0);
    locked_ticks(scratch_path("locked.pb"), &locked, &all);
    /* 80 ticks each; what starting and stopping take besides is not locked. */
    assert_true(locked >= 64 && locked <= 96);
    assert_true(all - locked >= 64 && all - locked <= 160);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_record),
        TEST(test_leaf_only),
        TEST(test_perf_ticks),
        TEST(test_perf_before_the_thread_is_bound),
        TEST(test_time_in_the_kernel),
        TEST(test_more_ticks_than_time),
        TEST(test_perf_alone_settles_itself),
        TEST(test_the_timer_of_the_process),
        TEST(test_signals_kept_from_us),
        TEST(test_a_long_system_call),
        TEST(test_a_thread_is_found_by_its_number),
        TEST(test_on_the_way_out_of_a_system_call),
        TEST(test_full_ring_counts),
        TEST(test_signals_that_are_not_ours),
        TEST(test_without_a_session),
        cmocka_unit_test_setup_teardown(test_locked_half_of_the_time, scratch_set_up, scratch_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
