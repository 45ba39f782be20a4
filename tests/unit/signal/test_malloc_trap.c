/* The handler allocates nothing: this program's own malloc aborts when it is called inside a tick. */
#include "tests/unit/support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/agent/signal/handler.h"
#include "profiler/agent/stile.h"

static _Thread_local volatile bool armed __attribute__((tls_model("initial-exec")));
static volatile bool planted;
static _Atomic uint64_t ticks;

/* A heap that only grows; each piece is preceded by its size. */
#define HEAP_BYTES ((size_t)1 << 32)
static _Atomic(char *) heap;
static _Atomic size_t heap_used;

static void trap(void)
{
    if (armed)
        abort();
}

/* Not inline, so that no compiler can conclude what they do. */
__attribute__((noinline, visibility("default"))) void *malloc(size_t n)
{
    trap();
    char *base = heap;
    if (base == NULL) {
        base = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                    0);
        char *none = NULL;
        if (base == MAP_FAILED)
            abort();
        if (!atomic_compare_exchange_strong(&heap, &none, base))
            base = none;
    }
    size_t whole = (n + 31) & ~(size_t)15;
    size_t at = atomic_fetch_add(&heap_used, whole);
    if (n > HEAP_BYTES || at + whole > HEAP_BYTES) {
        errno = ENOMEM;
        return NULL;
    }
    *(size_t *)(void *)(base + at) = n;
    return base + at + 16;
}

__attribute__((noinline, visibility("default"))) void free(void *p)
{
    (void)p;
    trap();
}

__attribute__((noinline, visibility("default"))) void *calloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return malloc(bytes); /* fresh pages are zero, and none is used twice */
}

__attribute__((noinline, visibility("default"))) void *realloc(void *p, size_t n)
{
    void *more = malloc(n);
    if (p != NULL && more != NULL) {
        size_t old = *(size_t *)(void *)((char *)p - 16);
        memcpy(more, p, old < n ? old : n);
    }
    return more;
}

static void *(*volatile allocate)(size_t) = malloc;

static void on_tick(int signal, siginfo_t *info, void *context)
{
    armed = true;
    stile__handle_tick(signal, info, context);
    if (planted)
        allocate(1);
    armed = false;
    ticks++;
}

/* CPU time in which the program allocates, at many depths. */
static __attribute__((noinline)) unsigned work(unsigned depth)
{
    volatile char *p = allocate(depth + 1);
    p[depth] = (char)depth;
    unsigned sum = depth == 0 ? 0 : work(depth - 1) + (unsigned)p[depth];
    free((void *)(uintptr_t)p);
    return sum;
}

static void session(const char *name)
{
    struct stile_profile_options o = {.size = sizeof o, .path = scratch_path(name), .hz = 1000};
    CHILD_CHECK(stile_profile_start(&o) == 0);
    handler_install_raw(SIGPROF, on_tick);
    uint64_t end = thread_cpu_ns() + 1000000000;
    for (unsigned i = 0; thread_cpu_ns() < end; i++)
        work(i % 200);
    CHILD_CHECK(stile_profile_stop() == 0);
    CHILD_CHECK(ticks >= 20);
}

static void quiet(void *unused)
{
    (void)unused;
    session("quiet.pb");
}

static void loud(void *unused)
{
    (void)unused;
    planted = true;
    session("loud.pb");
}

static void test_a_tick_allocates_nothing(void **state)
{
    (void)state;
    assert_int_equal(in_child(quiet, NULL), 0);
}

static void test_the_trap_closes(void **state)
{
    (void)state;
    int status = in_child(loud, NULL);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_true(file_awaited(scratch_path("loud.pb"))); /* the collector outlives it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tick_allocates_nothing),
        cmocka_unit_test(test_the_trap_closes),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
