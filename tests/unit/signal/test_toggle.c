/* signal/toggle.c and toggle_clock.c: each signal starts or stops the clocks of all threads, whoever takes it. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/agent/clock.h"
#include "profiler/agent/region_make.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#define PERIOD 1000000u

static struct stile__session made; /* stands in for the page that the agent makes */
static struct stile__region *region;
static struct stile__slot *own;
static int region_fd;
static struct stile__clock clocks[2];

static struct stile__slot *slot_add(uint32_t i, uint32_t tid)
{
    struct stile__slot *slot = stile__region_slot(region, i);
    atomic_store(&slot->tid, tid);
    stile__stack_begin(&slot->status);
    atomic_store(&slot->generation, 5 + i);
    slot->first_due_ns = STILE__NEVER_DUE;
    stile__clock_reserve(&made, region, i);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    if (atomic_load(&region->slots_used) <= i)
        atomic_store(&region->slots_used, i + 1);
    return slot;
}

static int set_up(void **state)
{
    (void)state;
    if (stile__region_make(&region, &region_fd, 1000, false, false) != 0)
        return -1;
    region->debug = STILE__DEBUG_OWNERSHIP;
    memset(&made, 0, sizeof made);
    stile__session_size_set(&made, region->size);
    made.tick_ns = 4000000;
    made.clocks = clocks;
    made.period_ns = PERIOD;
    made.signal = SIGPROF;
    made.toggle = SIGUSR2;
    made.pid = getpid();
    atomic_store(&made.region, region);
    own = slot_add(0, (uint32_t)gettid());
    stile__thread.slot = own;
    stile__thread.region = region;
    stile__thread.id = 5ull << 32;
    stile__thread.tid = (uint32_t)gettid();
    stile__session = &made;
    handler_install_raw(SIGPROF, stile__handle_tick);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stile__session = NULL;
    stile__thread.slot = NULL;
    stile__thread.region = NULL;
    for (uint32_t i = 0; i < atomic_load(&region->slots_used); i++)
        stile__clock_stop(&clocks[i]);
    stile__region_unmake(region);
    return close(region_fd);
}

static void toggle(void)
{
    siginfo_t info;
    ucontext_t uc;
    memset(&info, 0, sizeof info);
    getcontext(&uc);
    uc.uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    stile__handle_toggle(SIGUSR2, &info, &uc);
}

static uint32_t piece_state(uint32_t k)
{
    return atomic_load(&region->pieces[k % STILE__PIECES].state);
}

/* Records in slot 0's ring; all of them carry the piece. */
static uint64_t records_of(uint32_t piece)
{
    uint64_t ticks = 0, at = 0;
    while (at < atomic_load(&own->head) && at < made.size.ring_cells) {
        const struct stile__record *r = (const void *)(stile__region_ring(region, made.size, 0) + at);
        if (r->kind != STILE__RECORD_PAD && r->piece == piece)
            ticks += r->ticks;
        at += r->cells;
    }
    return ticks;
}

static void test_on_and_off(void **state)
{
    (void)state;
    errno = 1234;
    toggle();
    assert_int_equal(piece_state(1), STILE__PIECE_RUNNING);
    assert_int_equal(atomic_load(&region->pieces_started), 1);
    assert_true(clocks[0].timer_id >= 0);
    assert_int_equal(atomic_load(&own->piece), 1);
    spin_ns(20 * PERIOD);
    toggle();
    assert_int_equal(errno, 1234);
    assert_int_equal(piece_state(1), STILE__PIECE_STOPPED);
    assert_true(region->pieces[1].stop_mono_ns - region->pieces[1].start_mono_ns >= 20 * PERIOD);
    assert_int_equal(clocks[0].timer_id, -1);
    assert_int_equal(atomic_load(&own->piece), 0);
    assert_int_equal(own->first_due_ns, STILE__NEVER_DUE);
    assert_int_equal(atomic_load(&own->clock_lock), 0);
    /* What was due at the stop and not delivered was taken there: every period has its tick. */
    uint64_t ticks = atomic_load(&own->ticks);
    assert_true(ticks >= 20);
    assert_int_equal(records_of(1) + atomic_load(&own->lost_ticks), ticks);
    spin_ns(20 * PERIOD);
    assert_int_equal(atomic_load(&own->ticks), ticks);
    assert_int_equal(atomic_load(&own->missed_ticks), 0);
    assert_int_equal(atomic_load(&made.shards[stile__thread_shard() % STILE__SHARDS].inside), 0);
}

/* A tick that was made for an earlier piece. */
static void test_late_tick_is_stale(void **state)
{
    siginfo_t info;
    ucontext_t uc;
    (void)state;
    made.period_ns = 1000000000; /* none of the clock's own */
    toggle();
    toggle();
    memset(&info, 0, sizeof info);
    info.si_code = SI_TIMER;
    info.si_value.sival_ptr = (void *)(uintptr_t)(5ull << 32 | stile__id_piece_bits(1));
    getcontext(&uc);
    uc.uc_stack = (stack_t){.ss_flags = SS_DISABLE}; /* which getcontext leaves as it was */
    uint64_t head = atomic_load(&own->head);
    stile__handle_tick(SIGPROF, &info, &uc);
    assert_int_equal(atomic_load(&region->stale_signals), 1);
    toggle(); /* the next piece does not get it either */
    stile__handle_tick(SIGPROF, &info, &uc);
    assert_int_equal(atomic_load(&region->stale_signals), 2);
    assert_int_equal(atomic_load(&own->head), head);
    info.si_value.sival_ptr = (void *)(uintptr_t)(5ull << 32 | stile__id_piece_bits(2));
    stile__handle_tick(SIGPROF, &info, &uc);
    assert_int_equal(atomic_load(&region->stale_signals), 2);
    assert_true(records_of(2) >= 1);
    toggle();
}

static _Atomic uint32_t other_tid;
static _Atomic int other_stop;

static void *other_thread(void *unused)
{
    (void)unused;
    atomic_store(&other_tid, (uint32_t)gettid());
    while (!atomic_load(&other_stop))
        spin_ns(PERIOD);
    return NULL;
}

/* One that calls nothing is started and stopped from here; what is due there at the stop is booked without a stack. */
static void test_another_thread(void **state)
{
    pthread_t thread;
    (void)state;
    atomic_store(&other_tid, 0);
    atomic_store(&other_stop, 0);
    stile__session = NULL; /* our hook would give it a slot */
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    stile__session = &made;
    while (atomic_load(&other_tid) == 0)
        usleep(1000);
    struct stile__slot *slot = slot_add(1, atomic_load(&other_tid));
    toggle();
    assert_true(clocks[1].timer_id >= 0);
    assert_int_equal(atomic_load(&slot->piece), 1);
    uint64_t due = slot->first_due_ns;
    for (int i = 0; i < 10000 && atomic_load(&slot->ticks) < 20; i++)
        usleep(1000);
    toggle();
    assert_true(due != STILE__NEVER_DUE);
    assert_true(atomic_load(&slot->ticks) >= 20);
    assert_int_equal(clocks[1].timer_id, -1);
    uint64_t before = atomic_load(&slot->ticks);
    usleep(50000);
    assert_int_equal(atomic_load(&slot->ticks), before);
    atomic_store(&other_stop, 1);
    pthread_join(thread, NULL);
}

static void test_a_thread_that_is_gone(void **state)
{
    (void)state;
    struct stile__slot *slot = slot_add(1, 0x3ffffff0);
    toggle();
    assert_true(clocks[1].timer_id < 0);
    assert_int_equal(atomic_load(&region->timer_error), EAGAIN);
    toggle();
    assert_int_equal(atomic_load(&slot->piece), 0);
    assert_int_equal(atomic_load(&slot->missed_ticks), 0);
}

/* Who finds the flag taken leaves a wish, which its holder carries out. */
static void test_wishes_are_kept(void **state)
{
    (void)state;
    atomic_store(&made.toggle_busy, 1);
    toggle();
    toggle();
    toggle();
    assert_int_equal(atomic_load(&region->pieces_started), 0);
    atomic_store(&made.toggle_busy, 0);
    toggle();
    assert_int_equal(atomic_load(&region->pieces_started), 2); /* on, off, on, off */
    assert_int_equal(piece_state(1), STILE__PIECE_STOPPED);
    assert_int_equal(piece_state(2), STILE__PIECE_STOPPED);
    assert_int_equal(atomic_load(&made.toggles), 4);
}

/* The holder of a slot's clock looks again after it has let go; nobody waits for it. */
static void test_a_clock_that_is_held(void **state)
{
    (void)state;
    atomic_store(&own->clock_lock, 1);
    toggle();
    assert_int_equal(clocks[0].timer_id, -1);
    atomic_store(&own->clock_lock, 0);
    stile__toggle_look(&made, region, 0, NULL, NULL);
    assert_true(clocks[0].timer_id >= 0);
    toggle();
    stile__toggle_close(&made, own, 0, (uint32_t)gettid());
    toggle();
    assert_int_equal(clocks[0].timer_id, -1); /* closed for good */
}

/* More pieces than entries, and no collector: the last one goes on, and goes on being stopped and started. */
static void test_more_pieces_than_entries(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++)
        toggle();
    assert_int_equal(atomic_load(&region->pieces_started), STILE__PIECES);
    assert_int_equal(piece_state(STILE__PIECES), STILE__PIECE_STOPPED);
    toggle();
    assert_int_equal(piece_state(STILE__PIECES), STILE__PIECE_RUNNING);
    assert_int_equal(atomic_load(&own->piece), STILE__PIECES);
    toggle();
    /* The collector has taken all but the last, and then that one too. */
    atomic_store(&region->pieces_done, STILE__PIECES - 1);
    atomic_store(&region->pieces[0].state, STILE__PIECE_TAKEN);
    toggle();
    assert_int_equal(atomic_load(&region->pieces_started), STILE__PIECES + 1);
    toggle();
}

static void test_where_it_does_nothing(void **state)
{
    (void)state;
    made.pid++; /* a vfork child's memory */
    toggle();
    made.pid--;
    made.toggle = SIGUSR1; /* of an earlier session */
    toggle();
    made.toggle = SIGUSR2;
    atomic_store(&made.region, NULL);
    toggle();
    stile__session = NULL;
    toggle();
    stile__session = &made;
    assert_int_equal(atomic_load(&made.toggle_wishes), 0);
    atomic_store(&made.region, region);
    atomic_store(&made.signal_taken, true);
    toggle(); /* the program has the clocks' signal */
    assert_int_equal(clocks[0].timer_id, -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_on_and_off),
        TEST(test_late_tick_is_stale),
        TEST(test_another_thread),
        TEST(test_a_thread_that_is_gone),
        TEST(test_wishes_are_kept),
        TEST(test_a_clock_that_is_held),
        TEST(test_more_pieces_than_entries),
        TEST(test_where_it_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
