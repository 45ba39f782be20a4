/* Walks of real stacks, against the compiler's unwinder; and of broken ones, which end. */
#include "tests/unit/support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "barriers/stub.h"
#include "tests/unit/crash/compare.h"
#include "tests/unit/crash/work.h"

#define BODY  (UNDER_SANITIZER ? 4096u : 256u) /* bytes of a function here, at most */
#define STORM (UNDER_SANITIZER ? 1500u : 6000u)

void cfi_kill(pid_t process, pid_t thread, int signal);
void no_cfi_frame(void (*fn)(void));
void no_cfi_kill(pid_t process, pid_t thread, int signal);
void no_cfi_lost(void (*fn)(void));
void no_cfi_restorer(void);

static volatile sig_atomic_t keep; /* so that calls are none in tail position */

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    compare_at(context);
}

static void handler_set(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | flags};
    sigfillset(&sa.sa_mask);
    assert_int_equal(sigaction(signal, &sa, NULL), 0);
}

static int set_up(void **state)
{
    (void)state;
    compare_init();
    memset(&compare_counts, 0, sizeof compare_counts);
    handler_set(SIGALRM, on_signal, 0);
    handler_set(SIGUSR1, on_signal, 0);
    return 0;
}

static __attribute__((noinline)) void raise_here(void)
{
    syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
    keep++;
}

/* The last walk was the reference's, to the root. */
static void walk_was_right(void)
{
    if (compare_counts.differ != 0)
        compare_explain();
    assert_int_equal(compare_counts.differ, 0);
    assert_int_equal(compare_walk.end, STILE__FRAMES_END_ROOT);
}

static bool inside(uint64_t pc, void (*fn)(void), unsigned size)
{
    return pc - (uint64_t)fn < size;
}

static bool walk_has(void (*fn)(void), unsigned size)
{
    for (unsigned i = 0; i < compare_walk.n && i < STILE__FRAMES_LEAF; i++)
        if (inside(compare_walk.leaf[i], fn, size))
            return true;
    return false;
}

static void storm(void (*fn)(const char *module))
{
    const struct itimerval often = {{0, 170}, {0, 170}}, never = {{0, 0}, {0, 0}};
    const char *module = test_setting("STILE_TEST_LAZY");
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (__atomic_load_n(&compare_counts.walks, __ATOMIC_RELAXED) < STORM)
        fn(module);
    setitimer(ITIMER_REAL, &never, NULL);
    if (compare_counts.differ != 0)
        compare_explain();
    print_message("%u walks, %u frames, %u beyond, %u differ\n", compare_counts.walks, compare_counts.frames,
                  compare_counts.beyond, compare_counts.differ);
    assert_int_equal(compare_counts.differ, 0);
    assert_true(compare_counts.frames > 4 * compare_counts.walks);
    assert_true(compare_counts.beyond <= compare_counts.walks / 100);
}

static void test_any_instant(void **state)
{
    (void)state;
    storm(work);
}

/* The same, from inside a handler on an alternate stack. */
static const char *module_of_handler;

static void on_work(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    work(module_of_handler);
}

static __attribute__((noinline)) void work_in_handler(const char *module)
{
    module_of_handler = module;
    raise(SIGUSR2);
    keep++;
}

static void test_any_instant_of_a_handler(void **state)
{
    const stack_t alt = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
    const stack_t off = {.ss_flags = SS_DISABLE};
    stack_t old;
    struct sigaction sa = {.sa_sigaction = on_work, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    (void)state;
    assert_int_equal(sigaltstack(&alt, &old), 0);
    sigaction(SIGUSR2, &sa, NULL);
    storm(work_in_handler);
    assert_int_equal(sigaltstack((old.ss_flags & SS_DISABLE) != 0 ? &off : &old, NULL), 0);
    free(alt.ss_sp);
}

static void on_nested(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    raise_here();
    keep++;
}

/* As of who makes the system call himself. */
static void test_restorer_without_cfi(void **state)
{
    const struct {
        void (*handler)(int, siginfo_t *, void *);
        unsigned long flags;
        void (*restorer)(void);
        uint64_t mask;
    } raw = {on_nested, SA_SIGINFO | 0x04000000 /* SA_RESTORER */, no_cfi_restorer, 0};
    (void)state;
    assert_int_equal(syscall(SYS_rt_sigaction, SIGUSR2, &raw, NULL, sizeof raw.mask), 0);
    raise(SIGUSR2);
    walk_was_right();
    assert_true(walk_has((void (*)(void))on_nested, BODY));
    assert_true(walk_has((void (*)(void))test_restorer_without_cfi, BODY));
}

static void test_frame_pointer(void **state)
{
    (void)state;
    no_cfi_frame(raise_here);
    keep++;
    walk_was_right();
    assert_int_equal(compare_counts.beyond, 1);
    assert_true(walk_has((void (*)(void))test_frame_pointer, BODY));
    assert_true(walk_has((void (*)(void))no_cfi_frame, 16));
}

static void test_leaf_without_cfi(void **state)
{
    (void)state;
    no_cfi_kill(getpid(), gettid(), SIGUSR1);
    keep++;
    assert_int_equal(compare_walk.end, STILE__FRAMES_END_ROOT);
    assert_true(inside(compare_walk.leaf[0], (void (*)(void))no_cfi_kill, 16));
    assert_true(inside(compare_walk.leaf[1], (void (*)(void))test_leaf_without_cfi, BODY));
}

static void test_return_address_in_a_register(void **state)
{
    (void)state;
    cfi_kill(getpid(), gettid(), SIGUSR1);
    keep++;
    walk_was_right();
    assert_true(inside(compare_walk.leaf[0], (void (*)(void))cfi_kill, 32));
    assert_true(inside(compare_walk.leaf[1], (void (*)(void))test_return_address_in_a_register, BODY));
}

static void test_frame_pointer_that_leads_nowhere(void **state)
{
    (void)state;
    no_cfi_lost(raise_here);
    keep++;
    assert_int_equal(compare_walk.end, STILE__FRAMES_END_NO_CFI);
    assert_true(walk_has((void (*)(void))no_cfi_lost, 16));
    assert_false(walk_has((void (*)(void))test_frame_pointer_that_leads_nowhere, BODY));
}

/* Calls of what is no code. */
static sigjmp_buf back;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    (void)signal;
    (void)info; /* the reference reads what is not there */
    stile__frames_walk(&compare_walk, (const uint64_t *)uc->uc_mcontext.gregs, stile__frames_read_own, NULL);
    siglongjmp(back, 1);
}

static void wild_call(uint64_t address)
{
    void (*volatile fn)(void) = (void (*)(void))address;
    handler_set(SIGSEGV, on_fault, 0);
    if (sigsetjmp(back, 1) == 0)
        fn();
    keep++;
    signal(SIGSEGV, SIG_DFL);
}

static void test_call_of_null(void **state)
{
    static uint64_t data[64] = {1};
    const uint64_t wild[] = {0, 8, (uint64_t)data, 0x123456789000, 0x4141414141414140};
    (void)state;
    /* The last is not canonical: the processor faults at the call, with no return address pushed. */
    for (unsigned i = 0; i < 4; i++) {
        wild_call(wild[i]);
        assert_int_equal(compare_walk.leaf[0], wild[i]);
        assert_true(inside(compare_walk.leaf[1], (void (*)(void))wild_call, BODY));
        assert_int_equal(compare_walk.end, STILE__FRAMES_END_ROOT);
        assert_true(compare_walk.n > 4);
    }
    wild_call(wild[4]);
    assert_true(inside(compare_walk.leaf[0], (void (*)(void))wild_call, BODY) ||
                inside(compare_walk.leaf[1], (void (*)(void))wild_call, BODY));
}

/* Deep recursions. */
static __attribute__((noinline, noclone)) unsigned recurse(unsigned n)
{
    if (n == 0)
        raise_here();
    unsigned below = n == 0 ? 0 : recurse(n - 1);
    keep++;
    return below + 1;
}

static struct stile__frames walks[3];

static void *recursions(void *arg)
{
    static const unsigned depths[] = {10, 100000, 100013};
    (void)arg;
    handler_set(SIGUSR1, on_signal, SA_ONSTACK);
    for (unsigned i = 0; i < 3; i++) {
        recurse(depths[i]);
        walks[i] = compare_walk;
    }
    return NULL;
}

static void test_deep(void **state)
{
    pthread_attr_t attributes;
    pthread_t thread;
    (void)state;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 20);
    assert_int_equal(pthread_create(&thread, &attributes, recursions, NULL), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    assert_int_equal(walks[1].n, walks[0].n + 99990);
    assert_int_equal(walks[2].n, walks[1].n + 13);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(walks[i].end, STILE__FRAMES_END_ROOT);
    /* From the leaf: the same, and then the recursion. From the root: as in the shallow one. */
    for (unsigned i = 0; i < STILE__FRAMES_LEAF; i++)
        assert_int_equal(walks[1].leaf[i], walks[2].leaf[i]);
    for (unsigned i = 6; i < STILE__FRAMES_LEAF; i++)
        assert_int_equal(walks[1].leaf[i], walks[1].leaf[5]);
    for (unsigned k = 1; k <= 8; k++) {
        const uint64_t root = walks[0].leaf[walks[0].n - k];
        assert_int_equal(walks[1].root[(walks[1].n - k) % STILE__FRAMES_ROOT], root);
        assert_int_equal(walks[2].root[(walks[2].n - k) % STILE__FRAMES_ROOT], root);
    }
}

/* A copy of a stack, and what is read of it. */
static struct {
    uint64_t regs[NGREG], from, n;
    uint8_t bytes[1 << 16];
    uint64_t stubbed[64]; /* return addresses that stubs stand for, from first_stub on */
    unsigned n_stubbed, first_stub;
} copy;

static void on_copy(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    on_signal(signal, info, context);
    memcpy(copy.regs, uc->uc_mcontext.gregs, sizeof copy.regs);
    copy.from = copy.regs[REG_RSP];
    for (copy.n = 0; copy.n < sizeof copy.bytes; copy.n += 8)
        if (!stile__frames_read_own(NULL, copy.from + copy.n, (uint64_t *)(copy.bytes + copy.n)))
            break;
}

static bool read_copy(void *arg, uint64_t address, uint64_t *word)
{
    (void)arg;
    if (address - copy.from >= copy.n || copy.n - (address - copy.from) < 8)
        return stile__frames_read_own(NULL, address, word);
    memcpy(word, copy.bytes + (address - copy.from), sizeof *word);
    for (unsigned i = 0; i < copy.n_stubbed; i++)
        if (*word == copy.stubbed[i])
            *word = stile__stub_address(copy.first_stub + i);
    return true;
}

static __attribute__((noinline)) int copy_compare(const void *a, const void *b)
{
    if (copy.n == 0)
        raise_here();
    return *(const int *)a - *(const int *)b;
}

static void copy_make(void)
{
    int numbers[] = {3, 1, 2};
    handler_set(SIGUSR1, on_copy, 0);
    copy.n = copy.n_stubbed = 0;
    qsort(numbers, 3, sizeof *numbers, copy_compare);
    assert_true(copy.n > 512);
    walk_was_right();
}

static void test_copy(void **state)
{
    struct stile__frames f;
    (void)state;
    copy_make();
    stile__frames_walk(&f, copy.regs, read_copy, NULL);
    assert_int_equal(f.n, compare_walk.n);
    assert_int_equal(f.end, STILE__FRAMES_END_ROOT);
    assert_memory_equal(f.leaf, compare_walk.leaf, f.n * sizeof *f.leaf);
}

/* Stubs of barriers in the place of return addresses, of every one and of the leaf's pc. */
static void test_stubs(void **state)
{
    struct stile__frames f;
    (void)state;
    copy_make();
    copy.first_stub = stile__stub_chunk_take() * STILE__STUB_CHUNK + 2;
    for (unsigned i = 1; i < compare_walk.n && i < STILE__STUB_CHUNK - 3; i++) {
        copy.stubbed[copy.n_stubbed] = compare_walk.leaf[i] + 1;
        atomic_store(&stile__stub_entries[copy.first_stub + copy.n_stubbed++].ra, compare_walk.leaf[i] + 1);
    }
    assert_true(copy.n_stubbed > 5);
    stile__frames_walk(&f, copy.regs, read_copy, NULL);
    assert_int_equal(f.n, compare_walk.n);
    assert_memory_equal(f.leaf, compare_walk.leaf, f.n * sizeof *f.leaf);
    const unsigned inside_one = copy.first_stub + copy.n_stubbed;
    atomic_store(&stile__stub_entries[inside_one].ra, copy.regs[REG_RIP]);
    copy.regs[REG_RIP] = stile__stub_address(inside_one);
    stile__frames_walk(&f, copy.regs, read_copy, NULL);
    assert_int_equal(f.n, compare_walk.n);
    assert_memory_equal(f.leaf, compare_walk.leaf, f.n * sizeof *f.leaf);
}

/* Whatever lies on a stack, a walk ends, and nothing faults. */
static void test_corrupted(void **state)
{
    static struct stile__frames f;
    static uint8_t whole[sizeof copy.bytes];
    uint64_t rng = 5, words[4], ends[STILE__FRAMES_END_LOCKED + 1] = {0}, regs[NGREG];
    (void)state;
    copy_make();
    memcpy(whole, copy.bytes, sizeof whole);
    memcpy(regs, copy.regs, sizeof regs);
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 4000 : 20000); round++) {
        memcpy(copy.bytes, whole, copy.n < 2048 ? copy.n : 2048);
        memcpy(copy.regs, regs, sizeof regs);
        for (unsigned k = 0; k < 1 + round % 20; k++) {
            fill_random(words, sizeof words, &rng);
            const uint64_t values[] = {words[0],
                                       copy.from + words[0] % 4096,
                                       (uint64_t)qsort + words[0] % 4096,
                                       (uint64_t)raise_here + words[0] % 4096,
                                       words[0] % 8192,
                                       words[0] >> 16,
                                       copy.from + words[0] % 512 * 8,
                                       (uint64_t)&copy + words[0] % 4096};
            memcpy(copy.bytes + words[1] % 128 * 8, &values[words[2] % 8], 8);
            if (words[3] % 8 == 0)
                copy.regs[words[3] / 8 % (REG_RIP + 1)] = values[words[2] % 8];
        }
        stile__frames_walk(&f, copy.regs, read_copy, NULL);
        assert_in_range(f.n, 1, STILE__FRAMES_MAX);
        assert_in_range(f.end, 0, STILE__FRAMES_END_LOCKED);
        ends[f.end]++;
    }
    print_message("root %lu, no CFI %lu, memory %lu, loop %lu, max %lu\n", ends[0], ends[1], ends[2], ends[3],
                  ends[4]);
    assert_true(ends[STILE__FRAMES_END_ROOT] > 0 && ends[STILE__FRAMES_END_NO_CFI] > 0 &&
                ends[STILE__FRAMES_END_MEMORY] > 0);
}

/* A signal's frame that says that it was interrupted itself. */
static void test_circle(void **state)
{
    static struct stile__frames f;
    static ucontext_t uc;
    greg_t *regs = uc.uc_mcontext.gregs;
    (void)state;
    regs[REG_RIP] = (greg_t)no_cfi_restorer;
    regs[REG_RSP] = (greg_t)&uc;
    stile__frames_walk(&f, (const uint64_t *)regs, stile__frames_read_own, NULL);
    assert_int_equal(f.end, STILE__FRAMES_END_LOOP);
    assert_in_range(f.n, 2, 100);
}

/* Memory that cannot be read, and what only just can. */
static void test_read_own(void **state)
{
    uint64_t word = 0;
    uint8_t *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_int_equal(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    pages[4088] = 7;
    assert_true(stile__frames_read_own(NULL, (uint64_t)pages + 4088, &word));
    assert_int_equal(word, 7);
    for (unsigned i = 1; i < 8; i++)
        assert_false(stile__frames_read_own(NULL, (uint64_t)pages + 4088 + i, &word));
    const uint64_t never[] = {
        0, 1, 4088, 0x7fffffffeff9, 0x800000000000, UINT64_MAX, UINT64_MAX - 7, 0xffffffffff600000};
    for (unsigned i = 0; i < sizeof never / sizeof *never; i++)
        assert_false(stile__frames_read_own(NULL, never[i], &word));
    munmap(pages, 8192);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_any_instant),
        TEST(test_any_instant_of_a_handler),
        TEST(test_restorer_without_cfi),
        TEST(test_frame_pointer),
        TEST(test_leaf_without_cfi),
        TEST(test_return_address_in_a_register),
        TEST(test_frame_pointer_that_leads_nowhere),
        TEST(test_call_of_null),
        TEST(test_deep),
        TEST(test_copy),
        TEST(test_stubs),
        TEST(test_corrupted),
        TEST(test_circle),
        TEST(test_read_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
