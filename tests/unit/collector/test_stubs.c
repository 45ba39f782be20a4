/* collector/unwinder.c: walks through the stubs of barriers, by their own unwind information. The stacks are copies of real
 * ones, in which stubs were put into the places of return addresses. */
#include "tests/unit/support.h"
#include "tests/unit/collector/place.h"
#include "tests/unit/collector/stub_pool.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 13

static struct mapping_table mappings;
static struct unwinder *unwinder;
static struct place here, in_handler;
static uint64_t slots[SLOTS]; /* of return addresses, the leaf's first */
static unsigned n_slots;
static uint64_t interrupted_rip, rip_at; /* where the kernel has the interrupted rip */
static volatile int sink;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context, uc;
    (void)signal;
    (void)info;
    rip_at = (uintptr_t)&interrupted->uc_mcontext.gregs[REG_RIP];
    interrupted_rip = (uint64_t)interrupted->uc_mcontext.gregs[REG_RIP];
    getcontext(&uc);
    place_fill(&in_handler, &uc);
}

#define SLOT_HERE ((uintptr_t)__builtin_frame_address(0) + 8)

__attribute__((noinline)) static void leaf(void)
{
    ucontext_t uc;
    slots[n_slots++] = SLOT_HERE;
    getcontext(&uc);
    place_fill(&here, &uc);
    raise(SIGUSR1);
    sink++;
}

__attribute__((noinline)) static void recursive(int n)
{
    volatile char room[100];
    room[n] = 1;
    if (n > 0)
        recursive(n - 1);
    else
        leaf();
    slots[n_slots++] = SLOT_HERE; /* on the way back: from the leaf on */
    sink += room[n];
}

/* A function of code that nobody knows, with a frame pointer, that calls another. */
static void (*without_cfi)(void (*called)(void));

static int set_up(void **state)
{
    static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
    (void)state;
    uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    memcpy(page, code, sizeof code);
    memcpy(&without_cfi, &page, sizeof page);
    const stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    handler_install_raw(SIGUSR1, on_signal);
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

static int each(void **state)
{
    (void)state;
    n_slots = 0;
    recursive(SLOTS - 2);
    here.snapshot.stubs = in_handler.snapshot.stubs = stub_pool_places();
    return n_slots != SLOTS;
}

struct walked {
    uint64_t addresses[PLACE_FRAMES];
    size_t n;
    enum stile__reason reason;
};

static struct walked walk(const struct snapshot *s)
{
    struct walked w;
    w.n = unwinder_walk(unwinder, s, w.addresses, PLACE_FRAMES, &w.reason);
    return w;
}

static void expect(const struct snapshot *s, const struct walked *want)
{
    struct walked w = walk(s);
    assert_int_equal(w.reason, STILE__REASON_NONE);
    assert_int_equal(w.n, want->n);
    assert_memory_equal(w.addresses, want->addresses, w.n * sizeof *w.addresses);
    assert_false(unwinder_at_barrier(unwinder));
}

/* Puts stubs where `mask` has bits; stub i for slot i, and others far apart. */
static size_t barriers_place(struct place *p, unsigned mask, struct stile__barrier_seen *barriers)
{
    size_t n = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if ((mask >> i & 1) != 0)
            barriers[n++] =
                stub_pool_place(&p->snapshot, p->bytes, slots[i], i == 3 ? STILE__STUBS - 1 : i * 1000ull);
    p->snapshot.barriers = barriers;
    p->snapshot.n_barriers = n;
    return n;
}

static void test_through_stubs(void **state)
{
    static const unsigned masks[] = {1, 2, 1u << 3, 3, 0x155, 0x1fff, 1u << (SLOTS - 1)};
    struct stile__barrier_seen barriers[SLOTS];
    (void)state;
    struct walked plain = walk(&here.snapshot);
    assert_int_equal(plain.reason, STILE__REASON_NONE);
    assert_true(plain.n > SLOTS);
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        struct place p = here;
        p.snapshot.bytes = p.bytes;
        assert_true(barriers_place(&p, masks[i], barriers) > 0);
        expect(&p.snapshot, &plain);
        expect(&p.snapshot, &plain); /* by the rows that libunwind has kept */
        unwinder_flush(unwinder);
    }
    expect(&here.snapshot, &plain);
}

static void test_a_pair_is_missing(void **state)
{
    struct stile__barrier_seen barriers[SLOTS];
    (void)state;
    struct walked plain = walk(&here.snapshot);
    for (unsigned missing = 0; missing < SLOTS; missing++) {
        struct place p = here;
        p.snapshot.bytes = p.bytes;
        barriers_place(&p, 0x1fff, barriers);
        barriers[missing].stub = missing % 2 == 0 ? STILE__STUBS + barriers[missing].stub : 5;
        struct walked w = walk(&p.snapshot);
        assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
        assert_int_equal(w.n, missing + 1); /* what is below it is true */
        assert_memory_equal(w.addresses, plain.addresses, w.n * sizeof *w.addresses);
    }
}

/* One that was there in the last snapshot is not in this. */
static void test_pairs_are_forgotten(void **state)
{
    struct stile__barrier_seen barriers[SLOTS];
    struct place p = here;
    (void)state;
    struct walked plain = walk(&here.snapshot);
    p.snapshot.bytes = p.bytes;
    barriers_place(&p, 4, barriers);
    expect(&p.snapshot, &plain);
    p.snapshot.n_barriers = 0;
    assert_int_equal(walk(&p.snapshot).reason, STILE__REASON_NO_UNWIND_INFO);
}

/* Stubs that lead to each other, as no program's do. */
static void test_a_circle(void **state)
{
    struct stile__barrier_seen barriers[SLOTS];
    struct place p = here;
    (void)state;
    p.snapshot.bytes = p.bytes;
    assert_int_equal(barriers_place(&p, 6, barriers), 2);
    for (unsigned round = 0; round < 2; round++) {
        barriers[0].ra = stub_pool_address(barriers[1].stub);
        barriers[1].ra = stub_pool_address(barriers[0].stub);
        struct walked w = walk(&p.snapshot);
        assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
        assert_int_equal(w.n, 2);
        p.snapshot.regs[STILE__REG_RIP] = barriers[0].ra;
        w = walk(&p.snapshot);
        assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
        assert_int_equal(w.n, 0);
        p = here;
        p.snapshot.bytes = p.bytes;
        barriers_place(&p, 6, barriers);
    }
}

/* The program is interrupted in a stub: at its first instruction, or its second. It stands for where it goes on, and nothing
 * is subtracted from that. */
static void test_interrupted_at_the_leaf(void **state)
{
    (void)state;
    struct walked plain = walk(&here.snapshot);
    for (uint64_t at = 0; at <= 7; at += 7) {
        struct snapshot s = here.snapshot;
        const struct stile__barrier_seen b = {77, s.regs[STILE__REG_RIP]};
        s.regs[STILE__REG_RIP] = stub_pool_address(77) + at;
        s.barriers = &b;
        s.n_barriers = 1;
        expect(&s, &plain);
        s.n_barriers = 0;
        struct walked w = walk(&s);
        assert_int_equal(w.n, 0);
        assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
    }
}

static void test_interrupted_by_a_signal(void **state)
{
    (void)state;
    struct walked plain = walk(&in_handler.snapshot);
    assert_int_equal(plain.reason, STILE__REASON_NONE);
    size_t found = 0;
    while (found < plain.n && plain.addresses[found] != interrupted_rip)
        found++;
    assert_true(found < plain.n);
    for (uint64_t at = 0; at <= 7; at += 7) {
        struct place p = in_handler;
        p.snapshot.bytes = p.bytes;
        struct stile__barrier_seen barriers[2] = {
            stub_pool_place(&p.snapshot, p.bytes, rip_at, 9),
            stub_pool_place(&p.snapshot, p.bytes, slots[4], 10), /* and a return to one, further up */
        };
        p.bytes[rip_at - p.snapshot.start] += (uint8_t)at;
        p.snapshot.barriers = barriers;
        p.snapshot.n_barriers = 2;
        assert_int_equal(barriers[0].ra, interrupted_rip);
        expect(&p.snapshot, &plain);
    }
}

/* A snapshot that ends with a barrier's slot: what is above it is not there. */
static struct snapshot cut_at(struct place *p, unsigned slot, struct stile__barrier_seen *barrier)
{
    *barrier = stub_pool_place(&p->snapshot, p->bytes, slots[slot], slot);
    struct snapshot s = p->snapshot;
    s.bytes = p->bytes;
    s.len = slots[slot] + 8 - s.start;
    s.ends_at_barrier = true;
    return s;
}

static void test_ends_at_a_barrier(void **state)
{
    struct stile__barrier_seen barrier;
    (void)state;
    struct walked plain = walk(&here.snapshot);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        struct place p = here;
        struct snapshot s = cut_at(&p, slot, &barrier);
        uint8_t *bytes = malloc(s.len); /* of its length, for the address sanitizer */
        memcpy(bytes, s.bytes, s.len);
        s.bytes = bytes;
        struct walked w = walk(&s);
        assert_int_equal(w.reason, STILE__REASON_NONE);
        assert_true(unwinder_at_barrier(unwinder));
        assert_int_equal(w.n, slot + 1);
        assert_memory_equal(w.addresses, plain.addresses, w.n * sizeof *w.addresses);
        s.barriers = &barrier; /* the pair is no reason to go on */
        s.n_barriers = 1;
        w = walk(&s);
        assert_true(unwinder_at_barrier(unwinder));
        assert_int_equal(w.n, slot + 1);
        s.ends_at_barrier = false;
        walk(&s);
        assert_false(unwinder_at_barrier(unwinder));
        free(bytes);
    }
}

static void test_does_not_get_to_the_barrier(void **state)
{
    struct stile__barrier_seen barrier;
    struct place p = here;
    struct walked w;
    (void)state;
    struct walked plain = walk(&here.snapshot);
    struct snapshot s = cut_at(&p, 5, &barrier);
    s.len += 8; /* it ends elsewhere */
    w = walk(&s);
    assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
    assert_int_equal(w.n, 6);
    assert_false(unwinder_at_barrier(unwinder));
    s.len -= 16;
    w = walk(&s);
    assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
    assert_false(unwinder_at_barrier(unwinder));

    s = cut_at(&p, 5, &barrier); /* a stub on the way to it that is not known */
    stub_pool_place(&p.snapshot, p.bytes, slots[3], 30);
    w = walk(&s);
    assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
    assert_int_equal(w.n, 4);
    assert_false(unwinder_at_barrier(unwinder));

    p = here;
    s = cut_at(&p, 5, &barrier); /* no stub is there */
    memcpy(p.bytes + (slots[5] - s.start), &barrier.ra, sizeof barrier.ra);
    w = walk(&s);
    assert_int_not_equal(w.reason, STILE__REASON_NONE);
    assert_false(unwinder_at_barrier(unwinder));
    assert_memory_equal(w.addresses, plain.addresses, w.n * sizeof *w.addresses);

    memset(p.bytes + (slots[5] - s.start), 0, 8); /* the end by its words, but not the stack's */
    w = walk(&s);
    assert_false(unwinder_at_barrier(unwinder));
}

static void called_without_cfi(void)
{
    recursive(SLOTS - 2);
}

/* Not in the test: its variables would leave the copy no room. */
static int each_without_cfi(void **state)
{
    (void)state;
    n_slots = 0;
    without_cfi(called_without_cfi);
    here.snapshot.stubs = stub_pool_places();
    return n_slots != SLOTS;
}

/* By frame pointer, too. */
static void test_without_cfi(void **state)
{
    struct stile__barrier_seen barrier;
    uint64_t ret;
    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* the caller's slot is found by what it holds */
    struct walked plain = walk(&here.snapshot);
    assert_int_equal(plain.reason, STILE__REASON_NONE);
    uintptr_t code = (uintptr_t)without_cfi;
    size_t frame = 0;
    while (frame < plain.n && plain.addresses[frame] - code >= 4096)
        frame++;
    assert_true(frame + 1 < plain.n);
    uint64_t slot = slots[SLOTS - 1];
    do {
        slot += 8;
        memcpy(&ret, here.bytes + (slot - here.snapshot.start), sizeof ret);
    } while (ret != plain.addresses[frame + 1] + 1);
    slots[SLOTS - 1] = slot;

    struct place p = here;
    p.snapshot.bytes = p.bytes;
    barrier = stub_pool_place(&p.snapshot, p.bytes, slot, 40);
    p.snapshot.barriers = &barrier;
    p.snapshot.n_barriers = 1;
    expect(&p.snapshot, &plain);
    barrier.ra = stub_pool_address(3);
    struct walked w = walk(&p.snapshot);
    assert_int_equal(w.reason, STILE__REASON_NO_UNWIND_INFO);
    assert_true(w.n <= frame + 1);

    p = here;
    struct snapshot s = cut_at(&p, SLOTS - 1, &barrier);
    w = walk(&s);
    assert_int_equal(w.reason, STILE__REASON_NONE);
    assert_true(unwinder_at_barrier(unwinder));
    assert_int_equal(w.n, frame + 1);
}

static void test_places(void **state)
{
    const struct stubs none = {0}, s = {0x10000, 0x90000}, last = {UINT64_MAX - 15, 1};
    (void)state;
    assert_false(stubs_have(&none, 0));
    assert_false(stubs_have(&none, UINT64_MAX));
    assert_false(stubs_have(&s, 0xfffe));
    assert_true(stubs_have(&s, 0xffff));
    assert_true(stubs_have(&s, 0x10000 + STILE__STUBS * STILE__STUB_BYTES - 1));
    assert_false(stubs_have(&s, 0x10000 + STILE__STUBS * STILE__STUB_BYTES));
    assert_true(stubs_have(&last, UINT64_MAX)); /* and nothing worse */
}

/* Whatever the program says of its stubs, the walk ends. */
static void test_random_pairs(void **state)
{
    static struct stile__barrier_seen barriers[SLOTS + 64];
    uint64_t numbers = 21;
    (void)state;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 300u : 3000u); round++) {
        struct place p = here;
        p.snapshot.bytes = p.bytes;
        size_t n = barriers_place(&p, (unsigned)next_number(&numbers) & 0x1fff, barriers);
        for (size_t i = 0; i < n; i++)
            if (next_number(&numbers) % 4 == 0)
                barriers[i].ra = next_number(&numbers) >> next_number(&numbers) % 64;
            else if (next_number(&numbers) % 8 == 0)
                barriers[i].ra = stub_pool_address(next_number(&numbers) % STILE__STUBS);
        for (; n < SLOTS + 64; n++)
            barriers[n] = (struct stile__barrier_seen){next_number(&numbers) >> next_number(&numbers) % 64,
                                                       next_number(&numbers) >> next_number(&numbers) % 64};
        p.snapshot.n_barriers = n;
        p.snapshot.ends_at_barrier = next_number(&numbers) % 2 == 0;
        p.snapshot.len -= next_number(&numbers) % 4 == 0 ? next_number(&numbers) % p.snapshot.len : 0;
        uint64_t pick = next_number(&numbers);
        if (pick % 8 == 0) /* anything may be said to be stubs: functions whose rows are others' */
            p.snapshot.stubs.first = pick % 16 == 0 ? (uintptr_t)&memcpy - pick / 16 % 0x40000
                                                    : (uintptr_t)&leaf - pick / 16 % 0x40000;
        if (pick >> 32 & 1)
            p.snapshot.stubs.entries = pick >> 33 & 1 ? p.snapshot.start : UINT64_MAX - (pick >> 40);
        struct walked w = walk(&p.snapshot);
        assert_true(w.n <= PLACE_FRAMES);
        assert_true(w.reason == STILE__REASON_NONE || !unwinder_at_barrier(unwinder));
        for (size_t i = 0; i < w.n; i++)
            assert_false(stubs_have(&p.snapshot.stubs, w.addresses[i]));
    }
}

#define TEST(name) cmocka_unit_test_setup(name, each)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_through_stubs),
        TEST(test_a_pair_is_missing),
        TEST(test_pairs_are_forgotten),
        TEST(test_a_circle),
        TEST(test_interrupted_at_the_leaf),
        TEST(test_interrupted_by_a_signal),
        TEST(test_ends_at_a_barrier),
        TEST(test_does_not_get_to_the_barrier),
        cmocka_unit_test_setup(test_without_cfi, each_without_cfi),
        TEST(test_places),
        TEST(test_random_pairs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
