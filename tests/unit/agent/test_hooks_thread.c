/* agent/hooks_thread.c: the program sees the masks that it set, ours stays open, and every thread is sampled. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <threads.h>
#include <unistd.h>

#include "profiler/agent/session.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

typedef int mask_fn(int how, const sigset_t *set, sigset_t *old);

static bool really_open(int signal)
{
    return (stile__raw_sigmask(SIG_BLOCK, 0) & 1ull << (signal - 1)) == 0;
}

static bool shown(mask_fn *fn, int signal)
{
    sigset_t now;
    sigemptyset(&now);
    return fn(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, signal) == 1;
}

static void masks(mask_fn *fn)
{
    sigset_t both, other, none, all, old;
    sigemptyset(&none);
    sigfillset(&all);
    other = both = none;
    sigaddset(&other, SIGUSR1);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGPROF);

    assert_int_equal(fn(SIG_SETMASK, &none, NULL), 0);
    assert_int_equal(fn(SIG_BLOCK, &both, &old), 0);
    assert_false(sigismember(&old, SIGPROF) || sigismember(&old, SIGUSR1));
    assert_true(shown(fn, SIGPROF) && shown(fn, SIGUSR1) && !shown(fn, SIGUSR2));
    assert_true(really_open(SIGPROF) && !really_open(SIGUSR1));
    assert_int_equal(sigismember(&both, SIGPROF), 1); /* the caller's set is the caller's */

    assert_int_equal(fn(SIG_UNBLOCK, &other, &old), 0);
    assert_true(sigismember(&old, SIGPROF) && sigismember(&old, SIGUSR1));
    assert_true(shown(fn, SIGPROF) && !shown(fn, SIGUSR1) && really_open(SIGUSR1));
    assert_int_equal(fn(SIG_BLOCK, &other, &old), 0);
    assert_true(sigismember(&old, SIGPROF) && !sigismember(&old, SIGUSR1));
    assert_true(shown(fn, SIGPROF));
    assert_int_equal(fn(SIG_UNBLOCK, &both, &old), 0);
    assert_true(sigismember(&old, SIGPROF));
    assert_true(!shown(fn, SIGPROF) && !shown(fn, SIGUSR1) && really_open(SIGPROF));

    assert_int_equal(fn(SIG_SETMASK, &all, &old), 0);
    assert_false(sigismember(&old, SIGPROF));
    assert_true(shown(fn, SIGPROF) && shown(fn, SIGTERM));
    assert_true(really_open(SIGPROF) && !really_open(SIGTERM));
    assert_int_not_equal(fn(99, &none, NULL), 0);
    assert_true(shown(fn, SIGPROF));
    assert_int_equal(fn(SIG_SETMASK, &other, &old), 0);
    assert_true(sigismember(&old, SIGPROF) && !shown(fn, SIGPROF) && shown(fn, SIGUSR1));
    assert_int_equal(fn(SIG_SETMASK, &none, NULL), 0);
    assert_true(!shown(fn, SIGPROF) && really_open(SIGPROF));
}

static void test_pthread_sigmask(void **state)
{
    (void)state;
    masks(pthread_sigmask);
}

static void test_sigprocmask(void **state)
{
    (void)state;
    masks(sigprocmask);
}

/* What a thread finds out about itself. */
struct found {
    bool has_slot, open, shown;
    uint64_t signals;
    struct stile__bounds learned, really;
    uintptr_t frame;
};

static void *look(void *to)
{
    struct found *f = to;
    pthread_attr_t attr;
    void *low;
    size_t size;

    f->has_slot = stile__thread.slot != NULL;
    f->open = really_open(SIGPROF);
    f->shown = shown(pthread_sigmask, SIGPROF);
    f->learned = stile__thread.stack;
    f->frame = (uintptr_t)__builtin_frame_address(0);
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        if (pthread_attr_getstack(&attr, &low, &size) == 0)
            f->really = (struct stile__bounds){(uintptr_t)low, (uintptr_t)low + size};
        pthread_attr_destroy(&attr);
    }
    for (int i = 0; i < 100 && f->has_slot && f->signals == 0; i++) {
        spin_ns(20000000);
        f->signals = atomic_load(&stile__thread.slot->signals);
    }
    return NULL;
}

static int look_c11(void *to)
{
    look(to);
    return 7;
}

/* asked: bytes of stack, 0 for as many as there are. libc may give a larger stack that it has from before. */
static void sampled(const struct found *f, size_t asked)
{
    assert_true(f->has_slot);
    assert_true(f->open);
    assert_true(f->signals > 0);
    if (UNDER_TSAN)
        return; /* it makes the stack larger than the program asked, behind our hook's back */
    assert_true(f->learned.lo < f->frame && f->frame < f->learned.hi);
    /* A walk within what was learned reads nothing but the stack. */
    assert_true(f->learned.lo >= f->really.lo && f->learned.hi <= f->really.hi);
    if (UNDER_SANITIZER)
        return; /* their own hooks make other stacks of ours */
    if (asked == 0)
        assert_int_equal(f->learned.lo, f->really.lo);
    else
        assert_true(f->learned.hi - f->learned.lo + 8192 > asked);
    assert_true(f->really.hi - f->learned.hi <= 4096);
}

static void created(const pthread_attr_t *attr, struct found *f)
{
    pthread_t thread;
    memset(f, 0, sizeof *f);
    assert_int_equal(pthread_create(&thread, attr, look, f), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_default_stack(void **state)
{
    struct found f;
    (void)state;
    created(NULL, &f);
    sampled(&f, 0);
    assert_false(f.shown);
}

static void test_sized_stack(void **state)
{
    static const size_t sizes[] = {1u << 18, (1u << 20) + 4096, 123456, 16u << 20};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pthread_attr_t attr;
        struct found f;
        assert_int_equal(pthread_attr_init(&attr), 0);
        assert_int_equal(pthread_attr_setstacksize(&attr, sizes[i]), 0);
        created(&attr, &f);
        pthread_attr_destroy(&attr);
        sampled(&f, sizes[i]);
    }
}

static void test_stack_of_the_program(void **state)
{
    const size_t size = 1u << 20;
    pthread_attr_t attr;
    struct found f;

    (void)state;
    void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(stack, MAP_FAILED);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, size), 0);
    created(&attr, &f);
    pthread_attr_destroy(&attr);
    sampled(&f, 0);
    assert_int_equal(f.learned.lo, (uintptr_t)stack);
    assert_int_equal(f.learned.hi, (uintptr_t)stack + size);
    munmap(stack, size);
}

static void test_all_signals_blocked(void **state)
{
    sigset_t all, before;
    struct found f;

    (void)state;
    sigfillset(&all);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
    created(NULL, &f);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    sampled(&f, 0);
    assert_true(f.shown);
}

/* As a program does that blocked everything before it started the profile. */
static void test_really_blocked_before(void **state)
{
    struct found f;

    (void)state;
    uint64_t before = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    created(NULL, &f);
    stile__raw_sigmask(SIG_SETMASK, before);
    sampled(&f, 0);
    assert_true(f.shown);
}

static void test_c11_thread(void **state)
{
    struct found f = {0};
    thrd_t thread;
    int result = 0;

    (void)state;
    if (UNDER_TSAN)
        skip(); /* it knows no thrd_create and crashes in such threads */
    assert_int_equal(thrd_create(&thread, look_c11, &f), thrd_success);
    assert_int_equal(thrd_join(thread, &result), thrd_success);
    assert_int_equal(result, 7);
    sampled(&f, 0);
}

static void test_thread_that_cannot_be(void **state)
{
    pthread_attr_t attr;
    pthread_t thread;
    struct found f;

    (void)state;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, (size_t)1 << 46), 0);
    for (int i = 0; i < 1100; i++) /* more than there are births: each has to be given back */
        assert_int_not_equal(pthread_create(&thread, &attr, look, &f), 0);
    pthread_attr_destroy(&attr);
    created(NULL, &f);
    sampled(&f, 0);
}

/* How far a thread came that is cancelled already. */
static void *cancelled(void *steps)
{
    pthread_cancel(pthread_self());
    stile__thread_leave();
    stile__thread_enter(0);
    ++*(int *)steps;
    stile__session_drain();
    ++*(int *)steps;
    stile_profile_flush();
    ++*(int *)steps;
    pthread_testcancel();
    ++*(int *)steps;
    return NULL;
}

static void test_no_point_of_cancellation(void **state)
{
    pthread_t thread;
    void *result;
    int steps = 0;
    (void)state;
    if (UNDER_TSAN)
        skip(); /* it does not know threads that are cancelled in functions that it wraps */
    assert_int_equal(pthread_create(&thread, NULL, cancelled, &steps), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_true(result == PTHREAD_CANCELED);
    assert_int_equal(steps, 3);
}

/* With our perf event just made, its descriptor has to be closed: once a thread that was cancelled before it began waited
 * there for ever, with all signals blocked. */
static void *pausing(void *none)
{
    for (;;)
        pause();
    return none;
}

static void test_cancelled_at_birth(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip();
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        void *result;
        assert_int_equal(pthread_create(&thread, NULL, pausing, NULL), 0);
        assert_int_equal(pthread_cancel(thread), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_true(result == PTHREAD_CANCELED);
    }
    struct stile__region *r = atomic_load(&stile__session->region);
    uint32_t live = 0;
    for (uint32_t i = 0; i < atomic_load(&r->slots_used); i++)
        live += atomic_load(&stile__region_slot(r, i)->state) == STILE__SLOT_LIVE;
    assert_int_equal(live, 1); /* this one */
}

static int started(uint32_t hz)
{
    scratch_make();
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("x.pb"), .hz = hz};
    int err = stile_profile_start(&o);
    handler_install_raw(SIGPROF, stile__handle_tick);
    return err;
}

static int set_up(void **state)
{
    (void)state;
    return started(200);
}

static int set_up_fast(void **state)
{
    (void)state;
    return started(10000); /* beyond the kernel's tick: perf's clock */
}

static int tear_down(void **state)
{
    (void)state;
    int err = stile_profile_stop();
    scratch_remove();
    return err;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pthread_sigmask),       cmocka_unit_test(test_sigprocmask),
        cmocka_unit_test(test_default_stack),         cmocka_unit_test(test_sized_stack),
        cmocka_unit_test(test_stack_of_the_program),  cmocka_unit_test(test_all_signals_blocked),
        cmocka_unit_test(test_really_blocked_before), cmocka_unit_test(test_c11_thread),
        cmocka_unit_test(test_thread_that_cannot_be),
    };
    const struct CMUnitTest fast[] = {
        cmocka_unit_test(test_no_point_of_cancellation),
        cmocka_unit_test(test_cancelled_at_birth),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return failed + cmocka_run_group_tests(fast, set_up_fast, tear_down);
}
