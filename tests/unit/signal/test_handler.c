/* signal/handler.c and walk.c: one record for a tick, whatever state the thread is in; and the lock, in a profile. */
#include "tests/unit/support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "barriers/stack_lock.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "proto/reader.h"

static struct stile__session made; /* stands in for the page that the agent makes */
static struct stile__region *region;
static struct stile__slot *slot;
static struct stile__bounds real_stack;
static int region_fd;

/* Slot 0 of a fresh region is this thread's. */
static int set_up(void **state)
{
    (void)state;
    if (stile__region_make(&region, &region_fd) != 0)
        return -1;
    memset(&made, 0, sizeof made);
    made.slot_max = region->slot_max;
    made.block_max = region->block_max;
    made.period_ns = 1000;
    atomic_store(&made.region, region);
    slot = stile__region_slot(region, 0);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    atomic_store(&slot->tid, gettid());
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

/* A tick as the kernel delivers it, for code that was interrupted right here. */
static void tick(uint64_t id, int overruns, ucontext_t *uc)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_TIMER;
    info.si_overrun = overruns;
    info.si_value.sival_ptr = (void *)(uintptr_t)id;
    getcontext(uc);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)&tick;
    stile__handle_tick(SIGPROF, &info, uc);
}

static const struct stile__record *record_at(uint64_t cell)
{
    return (const void *)(stile__region_ring(region, made.slot_max, 0) + cell);
}

static void test_record(void **state)
{
    ucontext_t uc;
    (void)state;
    errno = 1234;
    tick(5ull << 32, 2, &uc);
    assert_int_equal(errno, 1234);
    assert_int_equal(atomic_load(&slot->head), stile__record_cells(STILE__WALK_WORDS));
    assert_int_equal(atomic_load(&slot->signals), 1);
    assert_int_equal(atomic_load(&slot->stack_lock), 0);
    const struct stile__record *r = record_at(0);
    assert_int_equal(r->ticks, 3);
    assert_int_equal(r->weight_ns, 3000);
    assert_int_equal(r->n_new, 0);
    assert_int_equal(r->kept, 0);
    assert_int_equal(r->reason, STILE__REASON_NONE);
    assert_true(r->block < made.block_max && r->stack_len > 128);
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
    assert_int_equal(record_at(3)->reason, STILE__REASON_BUFFER_FULL);
    assert_int_equal(record_at(3)->n_new, 1);
    assert_int_equal(record_at(3)->words[0], (uintptr_t)&tick);

    stile__thread.stack = (struct stile__bounds){4096, 8192};
    tick(5ull << 32, 0, &uc);
    assert_int_equal(record_at(6)->reason, STILE__REASON_UNKNOWN_STACK);
    assert_int_equal(record_at(6)->n_new, 1);
    assert_int_equal(record_at(6)->words[0], (uintptr_t)&tick);
}

static void test_full_ring_counts(void **state)
{
    ucontext_t uc;
    (void)state;
    uint32_t fit = STILE__RING_CELLS / stile__record_cells(STILE__WALK_WORDS);
    for (uint32_t i = 0; i < fit + 4; i++)
        tick(5ull << 32, 1, &uc);
    assert_int_equal(atomic_load(&slot->head), fit * stile__record_cells(STILE__WALK_WORDS));
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
        const Perftools__Profiles__Location *l = p->pb->location[root];
        const char *name =
            l->n_line == 0
                ? ""
                : stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
        *all += s->value[0];
        if (strcmp(name, "[stack locked]") == 0) {
            *locked += s->value[0];
            assert_int_equal(s->n_location_id, 2);
        } else {
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

static int scratch_set_up(void **state)
{
    (void)state;
    scratch_make();
    return 0;
}

static int scratch_tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_record),
        TEST(test_leaf_only),
        TEST(test_full_ring_counts),
        TEST(test_signals_that_are_not_ours),
        TEST(test_without_a_session),
        cmocka_unit_test_setup_teardown(test_locked_half_of_the_time, scratch_set_up, scratch_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
