/* The self-test: libgcc passes it, whoever asks; unwinders that do not do as they should are found out. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "barriers/chain.h"
#include "barriers/stub.h"
#include "barriers/unwind/personality.h"
#include "barriers/unwind/self_test.h"
#include "profiler/region/raw_syscall.h"

#define THREADS 8u
#define RUNS    300u

static struct stile__unwinder gcc;
extern const char stile__self_test_returned[];

static int on_start(void **state)
{
    void *libgcc = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_GLOBAL);
    (void)state;
    assert_non_null(libgcc);
    *(void **)&gcc.get_ip = dlsym(libgcc, "_Unwind_GetIP");
    *(void **)&gcc.set_ip = dlsym(libgcc, "_Unwind_SetIP");
    *(void **)&gcc.set_gr = dlsym(libgcc, "_Unwind_SetGR");
    *(void **)&gcc.raise = dlsym(libgcc, "_Unwind_RaiseException");
    *(void **)&gcc.backtrace = dlsym(libgcc, "_Unwind_Backtrace");
    stile__barrier_personality_set();
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void test_libgcc_passes(void **state)
{
    const uint64_t before = stile__raw_sigmask(SIG_BLOCK, 1ull << (SIGUSR2 - 1));
    uint64_t first = 0, best = UINT64_MAX;
    (void)state;
    for (unsigned i = 0; i < RUNS; i++) {
        errno = 4711;
        const uint64_t from = now_ns();
        const bool list = stile__self_test_list(&gcc), throw = stile__self_test_throw(&gcc);
        const uint64_t took = now_ns() - from;
        assert_int_equal(errno, 4711);
        assert_true(list && throw);
        first = i == 0 ? took : first;
        best = took < best ? took : best;
    }
    assert_int_equal(stile__raw_sigmask(SIG_SETMASK, before), before | 1ull << (SIGUSR2 - 1));
    print_message("%lu ns the first time, %lu at best\n", first, best);
    if (!UNDER_SANITIZER)
        assert_true(best < 20000);
    assert_int_equal(stile__barriers_off_why(), 0);
}

static void *many_times(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < RUNS; i++)
        if (!stile__self_test_throw(&gcc) || !stile__self_test_list(&gcc))
            return (void *)1;
    return NULL;
}

static void test_threads_at_once(void **state)
{
    pthread_t threads[THREADS];
    void *failed;
    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_times, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

static int status_of(void (*what)(void))
{
    int status;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        what();
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void pass_in_child(void)
{
    stile__barrier_personality_forked();
    const bool passes = many_times(NULL) == NULL;
    dlsym(RTLD_DEFAULT, "no_such_function");
    dlerror();
    stile__barrier_unwinder_test();
    _exit(passes && dlerror() == NULL ? (int)stile__barriers_off_why() : 98);
}

static void test_forked_child(void **state)
{
    (void)state;
    assert_int_equal(status_of(pass_in_child), 0);
}

/* Those that do not pass. */

static _Unwind_Reason_Code raise_nothing(struct _Unwind_Exception *exception)
{
    (void)exception;
    return _URC_END_OF_STACK;
}

/* Come to the landing without asking: the first one with the cookie that the landing looks for. */
__attribute__((naked)) static _Unwind_Reason_Code raise_unasked(struct _Unwind_Exception *exception)
{
    (void)exception;
    __asm__("mov $0x5711e, %ebx\n\t"
            "lea -16(%rbp), %rsp\n\t"
            "jmp stile__self_test_landing");
}

__attribute__((naked)) static _Unwind_Reason_Code raise_unrestored(struct _Unwind_Exception *exception)
{
    (void)exception;
    __asm__("lea -16(%rbp), %rsp\n\t"
            "jmp stile__self_test_landing");
}

/* Asks properly, in both phases, then forgets a register, or is off by one on the stack. */
static bool restores;
__attribute__((used)) static uint64_t landing;

static void fake_set_ip(struct _Unwind_Context *context, _Unwind_Word ip)
{
    (void)context;
    landing = ip;
}

_Unwind_Reason_Code stile__self_test_personality(int version, _Unwind_Action actions,
                                                 _Unwind_Exception_Class exception_class,
                                                 struct _Unwind_Exception *exception,
                                                 struct _Unwind_Context *context);

__attribute__((used)) static uint64_t asks(struct _Unwind_Exception *exception)
{
    const _Unwind_Exception_Class class = exception->exception_class;
    stile__self_test_personality(1, _UA_SEARCH_PHASE, class, exception, NULL);
    stile__self_test_personality(1, _UA_CLEANUP_PHASE | _UA_HANDLER_FRAME, class, exception, NULL);
    return restores ? 0x5711e : 0;
}

__attribute__((naked)) static _Unwind_Reason_Code raise_asking(struct _Unwind_Exception *exception)
{
    (void)exception;
    __asm__("sub $8, %rsp\n\t"
            "call asks\n\t"
            "test %rax, %rax\n\t"
            "cmovne %rax, %rbx\n\t"
            "lea -16(%rbp), %rsp\n\t"
            "jmp *landing(%rip)");
}

static void test_throws_that_fail(void **state)
{
    struct stile__unwinder u = gcc;
    (void)state;
    u.raise = raise_nothing;
    assert_false(stile__self_test_throw(&u));
    u.raise = raise_unasked;
    assert_false(stile__self_test_throw(&u));
    u.raise = raise_unrestored;
    assert_false(stile__self_test_throw(&u));
    u.raise = raise_asking;
    u.set_ip = fake_set_ip;
    restores = false;
    assert_false(stile__self_test_throw(&u));
    restores = true; /* that was all that was wrong */
    assert_true(stile__self_test_throw(&u));
}

static uint64_t ips[8];
static unsigned n_ips, at_ip;

static _Unwind_Word fake_get_ip(struct _Unwind_Context *context)
{
    (void)context;
    return ips[at_ip];
}

static _Unwind_Reason_Code fake_backtrace(_Unwind_Trace_Fn fn, void *arg)
{
    for (at_ip = 0; at_ip < n_ips; at_ip++)
        if (fn(NULL, arg) != _URC_NO_REASON)
            break;
    return _URC_END_OF_STACK;
}

static bool lists(unsigned n, uint64_t a, uint64_t b, uint64_t c)
{
    const struct stile__unwinder u = {.get_ip = fake_get_ip, .backtrace = fake_backtrace};
    ips[0] = a;
    ips[1] = b;
    ips[2] = c;
    n_ips = n;
    return stile__self_test_list(&u);
}

static void test_lists_that_fail(void **state)
{
    const uint64_t other = (uintptr_t)test_lists_that_fail;
    const uint64_t stub = stile__stub_address(STILE__STUB_SELF_TEST);
    const uint64_t above = (uintptr_t)stile__self_test_returned;
    (void)state;
    assert_true(lists(3, other, stub, above));
    assert_false(lists(0, 0, 0, 0));
    assert_false(lists(2, other, stub, 0));
    assert_false(lists(3, other, stub, other));
    assert_false(lists(3, other, above, stub));
    assert_false(lists(3, other, stub + STILE__STUB_BYTES, above));
    assert_false(lists(3, other, stub, stub));
}

static _Unwind_Reason_Code no_personality(int version, _Unwind_Action actions,
                                          _Unwind_Exception_Class exception_class,
                                          struct _Unwind_Exception *exception,
                                          struct _Unwind_Context *context)
{
    (void)version;
    (void)actions;
    (void)exception_class;
    (void)exception;
    (void)context;
    return _URC_FATAL_PHASE1_ERROR;
}

static void fail_in_child(void)
{
    stile__barrier_personality_at = no_personality;
    const bool list = stile__self_test_list(&gcc), throw = stile__self_test_throw(&gcc);
    stile__barrier_unwinder_test();
    _exit(list && !throw ? (int)stile__barriers_off_why() : 98);
}

/* A real unwinder, which the stub stops. No barrier is placed then. */
static void test_stub_that_fails(void **state)
{
    (void)state;
    assert_int_equal(status_of(fail_in_child), STILE__BARRIERS_OFF_SELF_TEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* Before any other has tested it by name. */
        cmocka_unit_test(test_stub_that_fails),  cmocka_unit_test(test_libgcc_passes),
        cmocka_unit_test(test_threads_at_once),  cmocka_unit_test(test_forked_child),
        cmocka_unit_test(test_throws_that_fail), cmocka_unit_test(test_lists_that_fail),
    };
    return cmocka_run_group_tests(tests, on_start, NULL);
}
