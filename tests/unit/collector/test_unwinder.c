/* collector/unwinder.c: stacks of this very program, walked as if from outside. */
#include "tests/unit/support.h"
#include "tests/unit/collector/place.h"

#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "profiler/collector/unwinder.h"

static struct mapping_table mappings;
static struct unwinder *unwinder;

static struct place here, in_handler, interrupted;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t uc;
    (void)signal;
    (void)info;
    place_fill(&interrupted, context);
    in_handler.n_expected = backtrace(in_handler.expected, PLACE_FRAMES);
    getcontext(&uc);
    place_fill(&in_handler, &uc);
}

static volatile int sink;

__attribute__((noinline)) static void leaf(void)
{
    ucontext_t uc;
    here.n_expected = backtrace(here.expected, PLACE_FRAMES);
    getcontext(&uc);
    place_fill(&here, &uc);
    raise(SIGUSR1);
    sink++;
}

__attribute__((noinline)) static void with_array(int n)
{
    volatile char room[1000];
    room[n] = 1;
    leaf();
    sink += room[n];
}

__attribute__((noinline)) static void recursive(int n)
{
    if (n > 0)
        recursive(n - 1);
    else
        with_array(7);
    sink++;
}

static int set_up(void **state)
{
    (void)state;
    void *warm[4];
    backtrace(warm, 4);                            /* loads libgcc_s, so that the maps have it */
    const stack_t none = {.ss_flags = SS_DISABLE}; /* sanitizers bring one: one stack is enough here */
    sigaltstack(&none, NULL);
    handler_install_raw(SIGUSR1, on_signal);
    recursive(10);
    int err = place_mappings(&mappings);
    unwinder = unwinder_new(&mappings);
    return err != 0 || unwinder == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    unwinder_free(unwinder);
    mappings_free(&mappings);
    return 0;
}

/* backtrace() as it would be without a sanitizer's own frame in front of it. */
static void *const *expected(const struct place *p, size_t n)
{
    size_t more = (size_t)p->n_expected - n;
    assert_true(more == 0 || (UNDER_SANITIZER && more == 1));
    return p->expected + more;
}

static size_t walk(const struct place *p, uint64_t *addresses, enum stile__reason *reason)
{
    return unwinder_walk(unwinder, &p->snapshot, addresses, PLACE_FRAMES, reason);
}

static void test_nested_calls(void **state)
{
    uint64_t addresses[PLACE_FRAMES];
    enum stile__reason reason;

    (void)state;
    size_t n = walk(&here, addresses, &reason);
    assert_int_equal(reason, STILE__REASON_NONE);
    assert_true(n > 14);
    void *const *by_backtrace = expected(&here, n);
    assert_int_equal(addresses[0], here.snapshot.regs[STILE__REG_RIP]);
    for (size_t i = 1; i < n; i++)
        assert_int_equal(addresses[i] + 1, (uintptr_t)by_backtrace[i]);
    /* Eleven of the same function, called from two places. */
    for (size_t i = 3; i < 12; i++)
        assert_int_equal(addresses[i], addresses[4]);
}

static void test_from_a_handler(void **state)
{
    uint64_t addresses[PLACE_FRAMES], rip = interrupted.snapshot.regs[STILE__REG_RIP];
    enum stile__reason reason;
    unsigned interruptions = 0;

    (void)state;
    size_t n = walk(&in_handler, addresses, &reason);
    assert_int_equal(reason, STILE__REASON_NONE);
    void *const *by_backtrace = expected(&in_handler, n);
    for (size_t i = 1; i < n; i++)
        if ((uintptr_t)by_backtrace[i] == rip) {
            assert_int_equal(addresses[i], rip); /* not a return address: nothing to subtract */
            interruptions++;
        } else {
            assert_int_equal(addresses[i] + 1, (uintptr_t)by_backtrace[i]);
        }
    assert_int_equal(interruptions, 1);
}

static void test_what_a_handler_interrupted(void **state)
{
    uint64_t addresses[PLACE_FRAMES], from_handler[PLACE_FRAMES];
    enum stile__reason reason;

    (void)state;
    size_t all = walk(&in_handler, from_handler, &reason);
    size_t n = walk(&interrupted, addresses, &reason);
    assert_int_equal(reason, STILE__REASON_NONE);
    assert_true(n < all);
    assert_memory_equal(addresses, from_handler + (all - n), n * sizeof *addresses);
}

static void test_truncated_snapshot(void **state)
{
    uint64_t whole[PLACE_FRAMES], addresses[PLACE_FRAMES];
    enum stile__reason reason;
    struct place cut;

    (void)state;
    size_t all = walk(&here, whole, &reason), longest = 0;
    cut.snapshot = here.snapshot;
    for (size_t len = 0; len < here.snapshot.len; len += len < 4096 ? 8 : 800) {
        uint8_t *bytes = malloc(len + 1); /* of its length, for the address sanitizer */
        assert_non_null(bytes);
        memcpy(bytes, here.bytes, len);
        cut.snapshot.bytes = bytes;
        cut.snapshot.len = len;
        size_t n = walk(&cut, addresses, &reason);
        free(bytes);
        assert_true(n >= 1 && n <= all);
        assert_true(reason == STILE__REASON_NO_UNWIND_INFO || n == all);
        assert_memory_equal(addresses, whole, n * sizeof *whole);
        assert_true(n >= longest); /* more memory, more frames */
        longest = n;
    }
    assert_true(longest > 10);
}

/* A return address that was overwritten: what lies below it is true all the same. */
static void test_a_caller_that_is_no_code(void **state)
{
    const uint64_t no_code = 0x123456789000;
    uint64_t whole[PLACE_FRAMES], addresses[PLACE_FRAMES];
    enum stile__reason reason;

    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* built with frame pointers, which lead on from anywhere */
    size_t all = walk(&here, whole, &reason);
    assert_true(all > 4);
    for (size_t caller = 1; caller < 4; caller++) {
        struct place p = here;
        p.snapshot.bytes = p.bytes;
        uint64_t *words = (uint64_t *)(void *)p.bytes;
        unsigned found = 0; /* copies that earlier calls have left count, too */
        for (size_t i = 0; i < p.snapshot.len / sizeof *words; i++)
            if (words[i] == whole[caller] + 1) {
                words[i] = no_code;
                found++;
            }
        assert_true(found > 0);
        assert_int_equal(walk(&p, addresses, &reason), caller);
        assert_int_equal(reason, STILE__REASON_NO_UNWIND_INFO);
        assert_memory_equal(addresses, whole, caller * sizeof *whole);
    }
}

/* Code without CFI that has nothing above it is where the process began: _dl_start_user. */
static void test_the_loaders_first_frame(void **state)
{
    uint8_t bytes[32] = {0};
    uint64_t addresses[4];
    enum stile__reason reason;
    struct snapshot s = {.start = 0x7000, .bytes = bytes, .len = sizeof bytes};
    (void)state;
    s.regs[STILE__REG_RIP] = 0x123456; /* in nothing that is known */
    s.regs[STILE__REG_RSP] = 0x7000 + sizeof bytes - 8;
    assert_int_equal(unwinder_walk(unwinder, &s, addresses, 4, &reason), 1);
    assert_int_equal(reason, STILE__REASON_NONE);
    s.regs[STILE__REG_RSP] = 0x7000;
    assert_int_equal(unwinder_walk(unwinder, &s, addresses, 4, &reason), 1);
    assert_int_equal(reason, STILE__REASON_NO_UNWIND_INFO);
}

static void test_no_more_than_asked(void **state)
{
    uint64_t whole[PLACE_FRAMES], addresses[8];
    enum stile__reason reason;

    (void)state;
    walk(&here, whole, &reason);
    for (size_t max = 1; max < 7; max++) {
        addresses[max] = 42;
        assert_int_equal(unwinder_walk(unwinder, &here.snapshot, addresses, max, &reason), max);
        assert_int_equal(reason, STILE__REASON_TRUNCATED);
        assert_int_equal(addresses[max], 42);
        assert_memory_equal(addresses, whole, max * sizeof *whole);
    }
}

static void test_random_stacks(void **state)
{
    static struct place p;
    uint64_t addresses[PLACE_FRAMES], numbers = 9;
    enum stile__reason reason;

    (void)state;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 1000u : 10000u); round++) {
        size_t len = next_number(&numbers) % 4096;
        p = here;
        p.snapshot.bytes = p.bytes;
        p.snapshot.len = len;
        uint64_t *words = (uint64_t *)(void *)p.bytes;
        for (size_t i = 0; i < len / 8; i++) { /* some look like stacks, and some like code */
            uint64_t r = next_number(&numbers);
            words[i] = r % 4 == 0   ? p.snapshot.start + r / 4 % 4096
                       : r % 4 == 1 ? mappings.all[r / 4 % mappings.n_all].start + r / 1024 % 65536
                       : r % 4 == 2 ? words[i]
                                    : next_number(&numbers);
        }
        for (int i = 0; i < STILE__REG_COUNT; i++)
            if (next_number(&numbers) % 4 == 0)
                p.snapshot.regs[i] = words[next_number(&numbers) % 512];
        size_t n = walk(&p, addresses, &reason);
        assert_true(n >= 1 && n <= PLACE_FRAMES);
        assert_true(reason == STILE__REASON_NONE || reason == STILE__REASON_NO_UNWIND_INFO ||
                    reason == STILE__REASON_TRUNCATED);
    }
    /* And it still knows how to walk. */
    expected(&here, walk(&here, addresses, &reason));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested_calls),
        cmocka_unit_test(test_from_a_handler),
        cmocka_unit_test(test_what_a_handler_interrupted),
        cmocka_unit_test(test_truncated_snapshot),
        cmocka_unit_test(test_a_caller_that_is_no_code),
        cmocka_unit_test(test_the_loaders_first_frame),
        cmocka_unit_test(test_no_more_than_asked),
        cmocka_unit_test(test_random_stacks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
