/* agent/alt_stack.c and on_stack.c: ticks run on a stack of ours, the program sees its own, and nothing leaks. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/threads.h"

static stack_t kernels(void)
{
    stack_t now;
    assert_int_equal(syscall(SYS_sigaltstack, NULL, &now), 0);
    return now;
}

static stack_t shown(void)
{
    stack_t now;
    assert_int_equal(sigaltstack(NULL, &now), 0);
    return now;
}

static bool ours(const stack_t *stack)
{
    return stack->ss_flags == 0 && stack->ss_size >= 65536 &&
           stack->ss_sp == stile__thread.alt_stack + STILE__PAGE;
}

static bool none(const stack_t *stack)
{
    return stack->ss_flags == SS_DISABLE && stack->ss_sp == NULL && stack->ss_size == 0;
}

static void write_below(void *unused)
{
    (void)unused;
    stack_t k = kernels(); /* a forked child keeps its stack */
    CHILD_CHECK(ours(&k));
    memset(k.ss_sp, 1, k.ss_size);
    ((volatile char *)k.ss_sp)[-1] = 1;
}

static void test_guarded(void **state)
{
    (void)state;
    stack_t k = kernels(), s = shown();
    assert_true(ours(&k) && none(&s));
    int status = in_child(write_below, NULL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static char programs[65536];

static void test_the_program_sees_its_own(void **state)
{
    stack_t own = {.ss_sp = programs, .ss_size = sizeof programs}, off = {.ss_flags = SS_DISABLE}, old, k;
    stack_t bad = own, small = own;

    (void)state;
    stack_t *volatile both = &own;
    bad.ss_flags = 77;
    small.ss_size = 100;
    assert_int_equal(sigaltstack(&bad, NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(sigaltstack(&small, NULL), -1);
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(sigaltstack(&off, &old), 0);
    k = kernels();
    assert_true(none(&old) && ours(&k));

    assert_int_equal(sigaltstack(&own, &old), 0);
    assert_true(none(&old));
    k = kernels();
    assert_true(k.ss_sp == programs && k.ss_size == sizeof programs);
    old = shown();
    assert_true(old.ss_sp == programs && old.ss_flags == 0);
    own.ss_size = 32768;
    assert_int_equal(sigaltstack(&own, both), 0); /* one structure for both */
    assert_true(own.ss_sp == programs && own.ss_size == sizeof programs);
    assert_int_equal(sigaltstack(&off, &old), 0);
    assert_true(old.ss_sp == programs && old.ss_size == 32768);
    k = kernels();
    old = shown();
    assert_true(ours(&k) && none(&old));
}

/* In a function of its own, so that nothing else is where it looks. */
static __attribute__((noinline)) bool below_stays_as_it_is(void)
{
    enum { RED_ZONE = 128, ROOM = 3000 };
    uintptr_t rsp;
    bool intact = true;
    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    volatile unsigned char *below = (volatile unsigned char *)(rsp - RED_ZONE - ROOM);
    for (int i = 0; i < ROOM; i++)
        below[i] = 0xa5;
    for (volatile uint64_t i = 0; i < 300000000; i++)
        ;
    for (int i = 0; i < ROOM; i++)
        intact = intact && below[i] == 0xa5;
    return intact;
}

static void *tick_on_it(void *intact)
{
    uint64_t before = atomic_load(&stile__thread.slot->signals);
    *(bool *)intact = below_stays_as_it_is();
    assert_true(atomic_load(&stile__thread.slot->signals) > before + 3);
    return NULL;
}

static void test_ticks_run_on_it(void **state)
{
    pthread_attr_t attr;
    pthread_t thread;
    bool intact = false;

    (void)state;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN), 0);
    assert_int_equal(pthread_create(&thread, &attr, tick_on_it, &intact), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    assert_true(intact);
}

static volatile uintptr_t ran_at;

static bool ran_on(const void *stack, size_t size)
{
    return ran_at - (uintptr_t)stack < size;
}

static void large_frame(int signal)
{
    volatile char room[150 << 10];
    (void)signal;
    for (size_t i = 0; i < sizeof room; i += 512)
        room[i] = 1;
    ran_at = (uintptr_t)&room[sizeof room - 1];
}

/* A handler with SA_ONSTACK in a program that has set no stack runs on what is there, which is large. */
static void test_handlers_on_our_stack(void **state)
{
    struct sigaction act = {.sa_handler = large_frame, .sa_flags = SA_ONSTACK | SA_RESTART}, old;
    stack_t k = kernels();
    (void)state;
    assert_true(ours(&k));
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
    assert_int_equal(old.sa_flags & (SA_ONSTACK | SA_RESTART), SA_ONSTACK | SA_RESTART);
    raise(SIGUSR1);
    assert_true(ran_on(k.ss_sp, k.ss_size));
    signal(SIGUSR1, SIG_DFL);
}

/* On a stack of the classic size there may be no room for a tick, and none for one beside a handler of the program's:
 * ours stands for it. */
static void test_a_small_stack_of_the_programs(void **state)
{
    static char small[8192 + 64];
    struct sigaction act = {.sa_handler = large_frame, .sa_flags = SA_ONSTACK};
    stack_t own = {.ss_sp = small, .ss_size = 8192}, off = {.ss_flags = SS_DISABLE}, old, k;
    (void)state;
    memset(small, 0x5a, sizeof small);
    assert_int_equal(sigaltstack(&own, &old), 0);
    assert_true(none(&old));
    k = kernels();
    assert_true(ours(&k));
    assert_int_equal(sigaltstack(NULL, &old), 0);
    assert_ptr_equal(old.ss_sp, small);
    assert_int_equal(old.ss_size, 8192);
    assert_int_equal(old.ss_flags, 0);
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    raise(SIGUSR1);
    assert_true(ran_on(k.ss_sp, k.ss_size));
    spin_ns(50000000);
    for (size_t i = 0; i < sizeof small; i++)
        assert_int_equal(small[i], 0x5a);
    own.ss_size = 100; /* the kernel's own check comes first */
    errno = 0;
    assert_int_equal(sigaltstack(&own, NULL), -1);
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(sigaltstack(NULL, &old), 0);
    assert_int_equal(old.ss_size, 8192);
    assert_int_equal(sigaltstack(&off, &old), 0);
    assert_ptr_equal(old.ss_sp, small);
    assert_int_equal(sigaltstack(NULL, &old), 0);
    assert_true(none(&old));
    signal(SIGUSR1, SIG_DFL);
}

static void *nothing(void *had)
{
    stack_t k = kernels();
    *(bool *)had = ours(&k);
    return NULL;
}

/* As Rust does: a stack of its own if there is none, taken away and unmapped at the end. */
static void *as_rust_does(void *had)
{
    stack_t found = shown(), off = {.ss_flags = SS_DISABLE};
    *(bool *)had = none(&found);
    if (!none(&found))
        return NULL;
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(stack, MAP_FAILED);
    stack_t own = {.ss_sp = stack, .ss_size = 65536};
    assert_int_equal(sigaltstack(&own, NULL), 0);
    spin_ns(20000000);
    assert_int_equal(sigaltstack(&off, NULL), 0);
    munmap(stack, 65536);
    spin_ns(20000000);
    return NULL;
}

static void one_after_another(void *(*start)(void *), int n)
{
    for (int i = 0; i < n; i++) {
        pthread_t thread;
        bool had = false;
        assert_int_equal(pthread_create(&thread, NULL, start, &had), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(had);
    }
}

static void at_once(int n)
{
    pthread_t threads[256];
    bool had[256];
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, nothing, &had[i]), 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void test_nothing_leaks(void **state)
{
    (void)state;
    at_once(200); /* what is kept: libc's stacks, and up to 64 of ours, of two lines each */
    one_after_another(nothing, 100);
    unsigned before = count_map_lines();
    one_after_another(nothing, 10000);
    one_after_another(as_rust_does, 20);
    at_once(200);
    unsigned after = count_map_lines();
    assert_true(after < before + 160);
}

static void ends_here(int signal)
{
    (void)signal;
    pthread_exit(NULL);
}

static void *end_on_it(void *unused)
{
    raise(SIGUSR1);
    return unused;
}

/* A handler that was there before us runs on our stack, and the thread ends in it. */
static void test_a_thread_that_ends_on_it(void **state)
{
    int (*libc_sigaction)(int, const struct sigaction *, struct sigaction *);
    struct sigaction act = {.sa_handler = ends_here, .sa_flags = SA_ONSTACK};

    (void)state;
    *(void **)&libc_sigaction = dlsym(RTLD_NEXT, "sigaction");
    assert_int_equal(libc_sigaction(SIGUSR1, &act, NULL), 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, end_on_it, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    signal(SIGUSR1, SIG_DFL);
}

static void test_after_the_session(void **state)
{
    (void)state;
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("x.pb"), .hz = 200};
    assert_int_equal(stile_profile_stop(), 0);
    stack_t k = kernels();
    assert_true(none(&k));
    assert_int_equal(stile_profile_start(&o), 0);
    k = kernels();
    assert_true(ours(&k));
}

static int set_up(void **state)
{
    (void)state;
    scratch_make();
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path("x.pb"), .hz = 200};
    return stile_profile_start(&o);
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
        cmocka_unit_test(test_guarded),
        cmocka_unit_test(test_handlers_on_our_stack),
        cmocka_unit_test(test_a_small_stack_of_the_programs),
        cmocka_unit_test(test_the_program_sees_its_own),
        cmocka_unit_test(test_ticks_run_on_it),
        cmocka_unit_test(test_nothing_leaks),
        cmocka_unit_test(test_a_thread_that_ends_on_it),
        cmocka_unit_test(test_after_the_session),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
