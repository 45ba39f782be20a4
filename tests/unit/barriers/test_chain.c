/* barriers/chain.c on a stack that the test makes up: frames come and go, samples are what a walk would do. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "barriers/chain.h"
#include "profiler/agent/session.h"

#define STACK      (1u << 20)
#define FRAME      64u /* bytes */
#define FRAMES_MAX (STACK / FRAME / 2)
#define QUARANTINE 32u
#define INSIDE_MAX 4u

static struct stile__barriers b;
static uint8_t *memory;
static struct stile__bounds bounds;

/* The stack, outermost first: each frame with a name that no other frame ever has. */
static struct frame {
    uint64_t name;
} stack[FRAMES_MAX];
static uint32_t n_frames;
static uint64_t names;

/* What the collector would have: the last base. */
static uint64_t base[FRAMES_MAX];
static uint32_t n_base;

/* Contexts that were interrupted inside a stub, by a handler whose frames lie above. */
static struct {
    uint32_t frames, stub;
    uint64_t ra;
} inside[INSIDE_MAX];
static uint32_t n_inside;
static uint32_t wanted; /* barriers are proposed at so many frames from one another; 0: none */

static uint64_t slot_of(uint32_t frame)
{
    return bounds.hi - (uint64_t)frame * FRAME - 8;
}

static uint64_t *at_slot(uint32_t frame)
{
    return (uint64_t *)slot_of(frame);
}

static uint64_t ra_of(uint32_t frame)
{
    return 0x500000 + 16 * stack[frame].name;
}

static struct stile__barrier_place place(void)
{
    return (struct stile__barrier_place){&bounds, bounds.hi - (uint64_t)n_frames * FRAME};
}

static struct stile__stub_entry *entry(uint32_t stub)
{
    return &stile__stub_entries[stub];
}

static uint32_t stub_at(uint32_t frame)
{
    return stile__stub_of(*at_slot(frame));
}

/* Whoever unwinds this stack finds its callers. */
static void stack_is_right(void)
{
    for (uint32_t i = 0; i < n_frames; i++) {
        uint64_t word = *at_slot(i);
        if (stile__stub_of(word) != STILE__STUB_NONE)
            word = stile__stub_ra(stile__stub_of(word));
        if (word != ra_of(i))
            fail_msg("frame %u of %u returns elsewhere", i, n_frames);
    }
    for (uint32_t i = 0; i < n_inside; i++)
        if (stile__stub_ra(inside[i].stub) != inside[i].ra)
            fail_msg("who is inside a stub goes elsewhere");
}

static void push(uint32_t n)
{
    for (; n > 0 && n_frames < FRAMES_MAX; n--) {
        stack[n_frames].name = ++names;
        *at_slot(n_frames) = ra_of(n_frames);
        n_frames++;
    }
}

/* Returns, through whatever lies in the slot. */
static void pop(uint32_t n)
{
    for (; n > 0 && n_frames > 1; n--) {
        uint32_t stub = stub_at(n_frames - 1);
        n_frames--;
        if (stub != STILE__STUB_NONE) {
            assert_int_equal(stile__stub_ra(stub), ra_of(n_frames));
            atomic_store(&entry(stub)->hit, 1);
        }
        while (n_inside > 0 && inside[n_inside - 1].frames >= n_frames)
            n_inside--; /* the handler has returned to it */
    }
}

/* Leaves frames without a return, as longjmp does. */
static void leave(uint32_t n)
{
    n_frames = n < n_frames ? n_frames - n : 1;
    while (n_inside > 0 && inside[n_inside - 1].frames >= n_frames)
        n_inside--;
}

struct sample {
    uint32_t n, kept;
};

/* What a walk does, up to where it is published or not. */
static struct sample walk(uint64_t session)
{
    const struct stile__barrier_place at = place();
    struct sample s = {n_frames, 0};
    stile__barriers_begin(&b, session, &at);
    bool may = wanted != 0;
    uint32_t next = wanted, in = n_inside;
    for (uint32_t i = n_frames; i-- > 0;) {
        while (in > 0 && inside[in - 1].frames == i + 1) {
            in--;
            assert_int_equal(stile__barrier_inside(&b, inside[in].stub), inside[in].ra);
            may = false;
        }
        uint32_t stub = stub_at(i), depth = n_frames - i;
        if (stub != STILE__STUB_NONE && stile__barrier_trusted(&b, stub, slot_of(i))) {
            b.stop = stub;
            s.n = depth;
            s.kept = entry(stub)->kept;
            break;
        }
        if (may && stub == STILE__STUB_NONE && i > 0 && depth >= next) {
            may = stile__barrier_propose(&b, slot_of(i), ra_of(i), depth);
            next = depth + wanted;
        }
    }
    return s;
}

static void commit(struct sample s, enum stile__barriers_wish wish)
{
    const struct stile__barrier_place at = place();
    assert_int_equal(s.n + s.kept, n_frames);
    assert_true(s.kept <= n_base);
    for (uint32_t i = 0; i < s.kept; i++)
        if (base[i] != stack[i].name)
            fail_msg("frame %u of %u that were kept is another one now", i, s.kept);
    for (uint32_t i = 0; i < n_frames; i++)
        base[i] = stack[i].name;
    n_base = n_frames;
    stile__barriers_commit(&b, s.n, wish, &at);
    stack_is_right();
}

static struct sample sample(enum stile__barriers_wish wish)
{
    struct sample s = walk(1);
    commit(s, wish);
    return s;
}

/* The lists have each stub once, and what they say of it is so. */
static void lists_are_sound(void)
{
    static uint8_t seen[STILE__STUBS];
    uint32_t n = 0, live = 0, held = 0;
    memset(seen, 0, sizeof seen);
    for (uint32_t s = b.idle; s != STILE__STUB_NONE; s = entry(s)->next, n++) {
        assert_int_equal(entry(s)->state, STILE__STUB_IDLE);
        assert_false(seen[s]++);
        if (entry(s)->next == STILE__STUB_NONE)
            assert_int_equal(s, b.idle_last);
    }
    assert_int_equal(n, b.n_idle);
    uint64_t last = 0;
    for (uint32_t s = b.first; s != STILE__STUB_NONE; s = entry(s)->next, live++) {
        assert_int_equal(entry(s)->state, STILE__STUB_LIVE);
        assert_false(seen[s]++);
        assert_true(entry(s)->slot > last); /* youngest first */
        last = entry(s)->slot;
    }
    assert_int_equal(live, b.n_live);
    for (uint32_t s = b.leaving; s != STILE__STUB_NONE; s = entry(s)->next, held++) {
        assert_int_equal(entry(s)->state, STILE__STUB_LEAVING);
        assert_false(seen[s]++);
    }
    assert_int_equal(b.pending, STILE__STUB_NONE);
    /* The first two are nobody's. */
    assert_true((n + live + held) % STILE__STUB_CHUNK == 0 ||
                (n + live + held + STILE__STUB_SELF_TEST + 1) % STILE__STUB_CHUNK == 0);
}

static uint32_t stubs_on_stack(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_frames; i++)
        n += stub_at(i) != STILE__STUB_NONE;
    return n;
}

static int set_up(void **state)
{
    (void)state;
    memory = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    bounds = (struct stile__bounds){(uintptr_t)memory, (uintptr_t)memory + STACK};
    memset(&b, 0, sizeof b);
    stile__stub_chunks_forked();
    n_frames = n_base = n_inside = 0;
    wanted = 1;
    push(1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(memory, STACK);
}

static void test_placed_and_trusted(void **state)
{
    (void)state;
    push(19);
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.kept, 0);
    assert_int_equal(stubs_on_stack(), 19); /* the outermost returns nowhere */
    assert_int_equal(b.placed, 19);
    for (uint32_t i = 1; i < n_frames; i++)
        assert_int_equal(entry(stub_at(i))->kept, i);
    lists_are_sound();
    /* Nothing has happened: the leaf alone is new. */
    s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.kept, 19);
    assert_int_equal(b.placed, 19);
    push(5);
    s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 6);
    assert_int_equal(b.placed, 24);
    pop(10);
    s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.kept, 14);
    assert_int_equal(b.hit, 10);
    assert_int_equal(b.retired, 0);
    assert_int_equal(b.restored, 10); /* the memory is as it was left */
    assert_int_equal(b.n_live, 14);
    lists_are_sound();
}

/* An entry is believed in its own slot only, on the chain, and as long as nobody has returned through it. */
static void test_what_is_not_trusted(void **state)
{
    (void)state;
    push(9);
    sample(STILE__BARRIERS_ALL);
    uint32_t stub = stub_at(5);
    assert_true(stile__barrier_trusted(&b, stub, slot_of(5)));
    assert_false(stile__barrier_trusted(&b, stub, slot_of(6)));
    assert_false(stile__barrier_trusted(&b, stub, slot_of(5) + 1));
    assert_false(stile__barrier_trusted(NULL, stub, slot_of(5)));
    atomic_store(&entry(stub)->hit, 1);
    assert_false(stile__barrier_trusted(&b, stub, slot_of(5)));
    atomic_store(&entry(stub)->hit, 0);
    for (int s = STILE__STUB_IDLE; s <= STILE__STUB_LEAVING; s++) {
        entry(stub)->state = (uint8_t)s;
        assert_int_equal(stile__barrier_trusted(&b, stub, slot_of(5)), s == STILE__STUB_LIVE);
    }
    entry(stub)->state = STILE__STUB_LIVE;
    /* A frame that is where another one was, with the stub left behind in its slot. */
    pop(6);
    push(4);
    *at_slot(5) = stile__stub_address(stub);
    atomic_store(&entry(stub)->ra, ra_of(5));
    struct sample s = walk(1);
    assert_int_equal(s.kept, 3);
    commit(s, STILE__BARRIERS_ALL);
}

static void test_counts(void **state)
{
    struct stile__barrier_counts counts = {0};
    (void)state;
    push(30);
    sample(STILE__BARRIERS_ALL);
    pop(4);   /* hit, the stub left in memory */
    leave(6); /* not hit; */
    for (uint32_t i = n_frames; i < n_frames + 3; i++)
        *at_slot(i) = 0x1234; /* of three of them the memory is another's */
    *at_slot(n_frames + 3) = stile__stub_address(stub_at(n_frames - 1));
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    assert_int_equal(b.placed, 30);
    assert_int_equal(b.hit, 4);
    assert_int_equal(b.retired, 6);
    assert_int_equal(b.restored, 10 - 4);
    /* What does not hold its own stub was left alone. */
    for (uint32_t i = n_frames; i < n_frames + 3; i++)
        assert_int_equal(*at_slot(i), 0x1234);
    assert_int_equal(*at_slot(n_frames + 3), stile__stub_address(stub_at(n_frames - 1)));
    stile__barriers_count(&b, &counts);
    stile__barriers_count(&b, &counts); /* nothing since */
    assert_int_equal(atomic_load(&counts.placed), 30);
    assert_int_equal(atomic_load(&counts.hit), 4);
    assert_int_equal(atomic_load(&counts.retired), 6);
    assert_int_equal(atomic_load(&counts.restored), 6);
    assert_int_equal(b.placed + b.hit + b.retired + b.restored, 0);
    lists_are_sound();
}

/* What was proposed is in no slot before the commit, and never if there is none. */
static void test_abandoned(void **state)
{
    (void)state;
    push(20);
    sample(STILE__BARRIERS_ALL);
    push(10);
    uint32_t before = stubs_on_stack();
    walk(1);
    assert_int_not_equal(b.pending, STILE__STUB_NONE);
    for (uint32_t s = b.pending; s != STILE__STUB_NONE; s = entry(s)->next)
        assert_int_equal(entry(s)->state, STILE__STUB_PENDING);
    assert_int_equal(stubs_on_stack(), before);
    stile__barriers_abandon(&b);
    assert_int_equal(stubs_on_stack(), before);
    lists_are_sound();
    /* Hits that happened are nobody's before the next base. */
    pop(15);
    walk(1);
    stile__barriers_abandon(&b);
    assert_int_equal(b.hit, 0);
    assert_int_equal(b.n_live, 20);
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    assert_int_equal(b.hit, 5);
    lists_are_sound();
}

/* A slot that was changed between the walk and the commit is not written. */
static void test_a_slot_that_changed(void **state)
{
    (void)state;
    push(10);
    struct sample s = walk(1);
    stack[4].name = ++names;
    *at_slot(4) = ra_of(4);
    commit(s, STILE__BARRIERS_ALL);
    assert_int_equal(stub_at(4), STILE__STUB_NONE);
    assert_int_equal(stubs_on_stack(), 9);
    lists_are_sound();
}

/* The leaf returns, and a handler interrupts it inside the stub. */
static uint32_t interrupt_inside(bool hit)
{
    uint32_t stub = stub_at(n_frames - 1);
    assert_int_not_equal(stub, STILE__STUB_NONE);
    inside[n_inside].stub = stub;
    inside[n_inside].ra = ra_of(n_frames - 1);
    inside[n_inside++].frames = n_frames - 1;
    n_frames--;
    atomic_store(&entry(stub)->hit, hit);
    return stub;
}

/* Whoever is inside a stub keeps it from use, as long as walks see him. */
static void test_inside(void **state)
{
    (void)state;
    for (int hit = 0; hit < 2; hit++) {
        pop(n_frames);
        push(20);
        sample(STILE__BARRIERS_ALL);
        uint32_t stub = interrupt_inside(hit), was = n_frames;
        uint64_t ra = stile__stub_ra(stub);
        for (int i = 0; i < 100; i++) { /* samples there, and in handlers above, without barriers */
            wanted = 0;
            n_frames = was;
            if (i != 0)
                push(1 + (uint32_t)i % 3);
            sample(STILE__BARRIERS_ALL);
            assert_int_equal(entry(stub)->state, STILE__STUB_LEAVING);
            assert_int_equal(stile__stub_ra(stub), ra);
            lists_are_sound();
        }
        n_frames = was;
        n_inside = 0;
        wanted = 1;
        sample(STILE__BARRIERS_ALL);
        assert_int_equal(entry(stub)->state, STILE__STUB_IDLE);
        assert_int_equal(b.leaving, STILE__STUB_NONE);
        lists_are_sound();
    }
}

/* A walk that ends at a barrier has not seen who is inside a stub beyond it. */
static void test_inside_beyond_a_barrier(void **state)
{
    (void)state;
    push(20);
    sample(STILE__BARRIERS_ALL);
    uint32_t stub = interrupt_inside(true), was = n_frames;
    uint64_t ra = stile__stub_ra(stub);
    push(30); /* the handler's */
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 30 + 1);
    assert_int_equal(entry(stub)->state, STILE__STUB_LEAVING);
    assert_int_not_equal(stub_at(n_frames - 1), STILE__STUB_NONE);
    for (int i = 0; i < 300; i++) { /* within the handler: far more stubs are used than rest */
        pop(5);
        push(5);
        s = sample(STILE__BARRIERS_ALL);
        assert_true(s.kept > was);
        assert_int_equal(stile__stub_ra(stub), ra);
        assert_int_equal(entry(stub)->state, STILE__STUB_LEAVING);
    }
    pop(30); /* it goes on */
    assert_int_equal(n_frames, was);
    assert_int_equal(n_inside, 0);
    sample(STILE__BARRIERS_ALL);
    assert_int_equal(b.leaving, STILE__STUB_NONE);
    lists_are_sound();
}

/* A stub that was in use is not used again before many others. */
static void test_quarantine(void **state)
{
    static uint32_t used[STILE__STUBS]; /* when, counted by uses */
    uint32_t uses = 0, again = 0;
    (void)state;
    memset(used, 0, sizeof used);
    push(40);
    for (int i = 0; i < 500; i++) {
        uint32_t n = 1 + (uint32_t)i % 3;
        push(n);
        sample(STILE__BARRIERS_ALL);
        for (uint32_t k = 0; k < n; k++) {
            uint32_t stub = stub_at(n_frames - 1 - k);
            assert_int_not_equal(stub, STILE__STUB_NONE);
            uses++;
            if (used[stub] != 0) {
                again++;
                assert_true(uses - used[stub] > QUARANTINE - n);
            }
        }
        for (uint32_t k = 0; k < n; k++)
            used[stub_at(n_frames - 1 - k)] = uses;
        pop(n);
        if (i % 7 == 0) { /* those that were proposed in vain do not shorten it */
            push(n);
            walk(1);
            stile__barriers_abandon(&b);
            pop(n);
        }
        sample(STILE__BARRIERS_ALL);
        assert_true(b.n_idle >= QUARANTINE);
    }
    assert_true(again > 500);
    lists_are_sound();
}

/* Far more barriers than there need be: those at doubling distances stay, the slots of the others are put right. */
static void test_thinned(void **state)
{
    (void)state;
    wanted = 1;
    push(50);
    sample(STILE__BARRIERS_ON);
    for (uint32_t depth = 100; depth < 6000; depth += depth / 20) {
        push(depth - n_frames);
        struct sample s = sample(STILE__BARRIERS_ON);
        assert_true(b.n_live <= 64);
        assert_int_equal(stubs_on_stack(), b.n_live);
        lists_are_sound();
        s = sample(STILE__BARRIERS_ON);
        assert_true(s.n <= 2);
        /* From each depth up a sample costs at most twice what it must, and a little. */
        uint32_t last = 0;
        for (uint32_t stub = b.first; stub != STILE__STUB_NONE; stub = entry(stub)->next) {
            uint32_t distance = n_frames - entry(stub)->kept;
            assert_true(last == 0 || distance <= 2 * last + 1 + depth / 10);
            last = distance;
        }
    }
    uint32_t from = n_frames;
    while (n_frames > 10) { /* back down again */
        pop(7);
        struct sample s = sample(STILE__BARRIERS_ON);
        assert_true(s.n <= from);
    }
    lists_are_sound();
}

/* In AUTO shallow stacks have none; in ON some, in ALL all. */
static void test_wishes(void **state)
{
    (void)state;
    push(60);
    sample(STILE__BARRIERS_AUTO);
    assert_int_equal(stubs_on_stack(), 0);
    push(38);
    sample(STILE__BARRIERS_AUTO);
    assert_int_equal(stubs_on_stack(), 0);
    push(1);
    sample(STILE__BARRIERS_AUTO);
    assert_true(stubs_on_stack() > 0);
    lists_are_sound();
}

static void test_another_session(void **state)
{
    (void)state;
    push(20);
    sample(STILE__BARRIERS_ALL);
    assert_int_equal(stubs_on_stack(), 20);
    struct sample s = walk(2); /* whose collector knows nothing of this stack */
    assert_int_equal(s.kept, 0);
    assert_int_equal(s.n, n_frames);
    assert_int_equal(stubs_on_stack(), 0);
    n_base = 0;
    commit(s, STILE__BARRIERS_ALL);
    assert_int_equal(stubs_on_stack(), 20);
    assert_int_equal(b.restored, 20);
    lists_are_sound();
}

static void test_removed_and_given_back(void **state)
{
    const uint32_t chunks = STILE__STUBS / STILE__STUB_CHUNK;
    (void)state;
    for (int round = 0; round < 3; round++) {
        push(300);
        sample(STILE__BARRIERS_ALL);
        pop(20);
        leave(20);
        walk(1);
        const struct stile__barrier_place at = place();
        stile__barriers_remove(&b, &at);
        assert_int_equal(stubs_on_stack(), 0);
        assert_int_equal(b.n_live, 0);
        assert_int_equal(b.session, 0);
        stack_is_right();
        lists_are_sound();
        stile__barriers_remove(&b, &at); /* nothing left to do */
        stile__barriers_give_back(&b);
        assert_int_equal(b.n_idle, 0);
        n_base = 0;
        pop(n_frames);
    }
    for (uint32_t i = 0; i < chunks; i++)
        assert_true(stile__stub_chunk_take() < chunks);
    assert_int_equal(stile__stub_chunk_take(), UINT32_MAX);
}

/* There is no stub to be had: the walk goes on without. */
static void test_exhausted(void **state)
{
    (void)state;
    while (stile__stub_chunk_take() != UINT32_MAX)
        ;
    push(50);
    for (int i = 0; i < 10; i++) {
        struct sample s = sample(STILE__BARRIERS_ALL);
        assert_int_equal(s.kept, 0);
        assert_int_equal(stubs_on_stack(), 0);
    }
    assert_int_equal(b.placed, 0);
    stile__stub_chunk_give_back(7);
    sample(STILE__BARRIERS_ALL);
    /* All that there were were placed; and those that are not needed taken off for the next walks. */
    assert_int_equal(b.placed, STILE__STUB_CHUNK - QUARANTINE);
    assert_in_range(stubs_on_stack(), 2, STILE__STUB_CHUNK - QUARANTINE - 10);
    assert_int_equal(b.restored, b.placed - stubs_on_stack());
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    pop(40);
    sample(STILE__BARRIERS_ALL);
    push(40);
    sample(STILE__BARRIERS_ALL);
    stack_is_right();
}

/* More stubs than the pool has. */
static void test_more_frames_than_stubs(void **state)
{
    (void)state;
    push(FRAMES_MAX);
    sample(STILE__BARRIERS_ALL);
    struct sample s = sample(STILE__BARRIERS_ALL);
    assert_int_equal(s.n, 1);
    pop(FRAMES_MAX - 10);
    sample(STILE__BARRIERS_ALL);
    lists_are_sound();
}

/* Pages below the stack pointer are the program's. */
static void test_pages_that_are_gone(void **state)
{
    uint32_t per_page = STILE__PAGE / FRAME;
    (void)state;
    push(10 * per_page);
    sample(STILE__BARRIERS_ALL);
    uint32_t all = stubs_on_stack(), keep = 2 * per_page + 5;
    leave(n_frames - keep);
    uint8_t *sp = (uint8_t *)(place().sp & ~(uint64_t)(STILE__PAGE - 1));
    uint8_t *gone = sp - 3 * STILE__PAGE;
    assert_int_equal(mprotect(gone, 2 * STILE__PAGE, PROT_NONE), 0);
    uint32_t before = b.restored;
    sample(STILE__BARRIERS_ALL);
    assert_int_equal(b.retired, all - keep + 1);
    assert_int_equal(b.restored - before, all - keep + 1 - 2 * per_page);
    assert_int_equal(mprotect(gone, 2 * STILE__PAGE, PROT_READ | PROT_WRITE), 0);
    for (uint32_t i = 0; i < 2 * per_page; i++) /* what lies there goes where it went */
        assert_int_not_equal(
            stile__stub_of(*(uint64_t *)(void *)(gone + STILE__PAGE / per_page * i + FRAME - 8)),
            STILE__STUB_NONE);
    /* A thread that is on another stack when its barriers go: nothing is known to be a frame. */
    push(per_page);
    sample(STILE__BARRIERS_ALL);
    assert_int_equal(mprotect(memory, STACK, PROT_NONE), 0);
    stile__barriers_remove(&b, &(struct stile__barrier_place){&bounds, bounds.hi});
    assert_int_equal(mprotect(memory, STACK, PROT_READ | PROT_WRITE), 0);
    lists_are_sound();
}

/* Slots beside the stack are nobody's. */
static void test_bounds_that_moved(void **state)
{
    (void)state;
    push(20);
    sample(STILE__BARRIERS_ALL);
    struct stile__bounds other = {bounds.lo, slot_of(10)};
    stile__barriers_remove(&b, &(struct stile__barrier_place){&other, other.lo + STACK / 2});
    for (uint32_t i = 1; i < n_frames; i++)
        assert_int_equal(stub_at(i) != STILE__STUB_NONE, i <= 10);
    stack_is_right(); /* and what is left stays right */
}

/* Whatever a program does with its stack. */
static void test_any_program(void **state)
{
    uint64_t rng = 11;
    uint64_t kept = 0, samples = 0;
    (void)state;
    for (int round = 0; round < (UNDER_SANITIZER ? 10000 : 40000); round++) {
        uint64_t r = next_number(&rng);
        enum stile__barriers_wish wish = STILE__BARRIERS_AUTO + round / 500 % 3;
        uint32_t n = (uint32_t)(r >> 8) % (r >> 32 & 1 ? 4 : 40);
        wanted = 1 + (uint32_t)(r >> 33) % 3;
        switch (r % 16) {
        case 0 ... 4:
            push(n);
            break;
        case 5 ... 7:
            pop(n);
            break;
        case 8:
            leave(n);
            break;
        case 9: /* what lies below is another's */
            for (uint32_t i = n_frames; i < n_frames + n && i < FRAMES_MAX; i++)
                *at_slot(i) = next_number(&rng);
            break;
        case 10: { /* a sample that is no base: nothing was seen */
            walk(1);
            stile__barriers_abandon(&b);
            break;
        }
        case 12: /* a signal, right inside a stub */
            if (n_inside < INSIDE_MAX && n_frames > 1 && stub_at(n_frames - 1) != STILE__STUB_NONE) {
                interrupt_inside(r >> 40 & 1);
                push(1 + n);
            }
            break;
        case 11:
            if (round % 50 == 0 && n_inside == 0) {
                const struct stile__barrier_place at = place();
                stile__barriers_remove(&b, &at);
                assert_int_equal(stubs_on_stack(), 0);
                n_base = 0;
            }
            break;
        default: {
            struct sample s = sample(wish);
            kept += s.kept;
            samples += n_frames;
        }
        }
        stack_is_right();
        if (round % 64 == 0)
            lists_are_sound();
    }
    assert_true(kept > samples / 4);
}

/* The last of all tests: it is for the whole process. */
static void test_off(void **state)
{
    static struct stile__region region;
    (void)state;
    assert_int_equal(stile__barriers_off_why(), 0);
    assert_false(stile__barriers_go(&region));
    atomic_store(&region.barriers_state, STILE__BARRIERS_GO);
    assert_true(stile__barriers_go(&region));
    stile__barriers_off(&region, STILE__BARRIERS_OFF_SELF_TEST);
    assert_false(stile__barriers_go(&region));
    stile__barriers_off(&region, STILE__BARRIERS_OFF_UNWINDER_MET);
    assert_int_equal(atomic_load(&region.barriers_state), STILE__BARRIERS_OFF_SELF_TEST);
    assert_int_equal(stile__barriers_off_why(), STILE__BARRIERS_OFF_SELF_TEST);
    atomic_store(&region.barriers_state, STILE__BARRIERS_UNVETTED);
    stile__barriers_off(NULL, STILE__BARRIERS_OFF_UNWINDER_MET);
    assert_int_equal(atomic_load(&region.barriers_state), STILE__BARRIERS_UNVETTED);
    stile__barriers_state_off(&region, STILE__BARRIERS_OFF_COPIES);
    assert_int_equal(atomic_load(&region.barriers_state), STILE__BARRIERS_OFF_COPIES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_placed_and_trusted),
        TEST(test_what_is_not_trusted),
        TEST(test_counts),
        TEST(test_abandoned),
        TEST(test_a_slot_that_changed),
        TEST(test_inside),
        TEST(test_inside_beyond_a_barrier),
        TEST(test_quarantine),
        TEST(test_thinned),
        TEST(test_wishes),
        TEST(test_another_session),
        TEST(test_removed_and_given_back),
        TEST(test_exhausted),
        TEST(test_more_frames_than_stubs),
        TEST(test_pages_that_are_gone),
        TEST(test_bounds_that_moved),
        TEST(test_any_program),
        TEST(test_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
