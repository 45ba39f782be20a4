/* collector/records.c: records that keep frames of earlier ones, whatever becomes of these. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"
#include "tests/unit/collector/place.h"
#include "tests/unit/collector/stub_pool.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/collector/pieces.h"

static struct hand_made h;
static struct process *p;

static int set_up(void **state)
{
    (void)state;
    hand_made_new(&h);
    p = h.process;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    return 0;
}

/* Frame i of a stack, which is in this program's text. */
static uint64_t frame(uint64_t i)
{
    return (uintptr_t)&set_up + i;
}

struct what {
    uint32_t kept;
    bool base;
    enum stile__reason reason;
    enum stile__record_kind kind;
    uint32_t piece;
    const struct snapshot *snapshot;
};

/* A record of a kind with a snapshot: in blocks from the first on. The pairs begin where the stack ends. */
static void snapshot_write(struct stile__record *r, const struct snapshot *s)
{
    size_t pairs = s->n_barriers * sizeof *s->barriers, len = s->len + pairs, at = 0;
    uint8_t *bytes = malloc(len + 1);
    assert_non_null(bytes);
    memcpy(bytes, s->bytes, s->len);
    if (pairs != 0)
        memcpy(bytes + s->len, s->barriers, pairs);
    memcpy(r->words + r->n_inline, s->regs, sizeof s->regs);
    r->stack_start = s->start;
    r->stack_len = (uint32_t)s->len;
    r->n_barriers = (uint32_t)s->n_barriers;
    r->block = 0;
    for (uint32_t i = 0; at < len || i == 0; i++) {
        struct stile__block *b = stile__region_block(h.region, p->size, i);
        b->used = len - at < STILE__BLOCK_DATA ? (uint32_t)(len - at) : STILE__BLOCK_DATA;
        memcpy(b->data, bytes + at, b->used);
        at += b->used;
        b->next = at < len ? i + 1 : STILE__BLOCK_NONE;
        atomic_fetch_or(&h.region->blocks_used[0], 1ull << i);
    }
    free(bytes);
}

/* Writes a record of frames, leaf first, and drains it. */
static void record(const uint64_t *frames, uint32_t n, struct what what)
{
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(&h, n + STILE__REG_COUNT, &commit);
    r->n_new = r->n_inline = n;
    r->kept = what.kept;
    r->flags = what.base ? STILE__IS_BASE : 0;
    r->reason = (uint8_t)what.reason;
    r->kind = (uint8_t)(what.snapshot == NULL            ? STILE__RECORD_WALKED
                        : what.kind != STILE__RECORD_PAD ? what.kind
                                                         : STILE__RECORD_SNAPSHOT);
    r->piece = what.piece;
    if (n != 0)
        memcpy(r->words, frames, n * sizeof *frames);
    if (what.snapshot != NULL)
        snapshot_write(r, what.snapshot);
    stile__ring_commit(&h.slot->head, commit);
    process_drain(p);
    assert_int_equal(atomic_load(&h.region->blocks_used[0]), 0);
}

/* Frames by number, the leaf's first. */
#define FRAMES(...)                                                                                          \
    (const uint64_t[]){__VA_ARGS__}, (uint32_t)(sizeof(uint64_t[]){__VA_ARGS__} / sizeof(uint64_t))

/* Writes a record of frames by number. */
static void tick(const uint64_t *numbers, uint32_t n, struct what what)
{
    uint64_t frames[64];
    for (uint32_t i = 0; i < n; i++)
        frames[i] = frame(numbers[i]);
    record(frames, n, what);
}

/* The samples of a tree whose stack is this one, leaf first, under a reason if there is one. */
static uint64_t ticks_of(const struct call_tree *t, const uint64_t *frames, size_t n,
                         enum stile__reason reason)
{
    uint64_t ticks = 0;
    for (uint32_t i = 0; i < t->n_samples; i++) {
        uint32_t node = t->samples[i].node;
        size_t k = 0;
        for (; k < n && t->nodes[node].address == frames[k] &&
               t->nodes[node].mapping == mappings_find(&p->mappings, frames[k]);
             k++)
            node = t->nodes[node].parent;
        bool same = k == n;
        if (same && reason != STILE__REASON_NONE) {
            same = t->nodes[node].mapping == CALL_TREE_REASON && t->nodes[node].address == reason;
            node = t->nodes[node].parent;
        }
        if (same && node == CALL_TREE_ROOT)
            ticks += t->samples[i].ticks;
    }
    return ticks;
}

static void expect_in(const struct call_tree *t, const uint64_t *numbers, uint32_t n,
                      enum stile__reason reason, uint64_t ticks)
{
    uint64_t frames[64];
    for (uint32_t i = 0; i < n; i++)
        frames[i] = frame(numbers[i]);
    assert_null(p->damage);
    assert_int_equal(ticks_of(t, frames, n, reason), ticks);
}

static void expect(const uint64_t *numbers, uint32_t n, enum stile__reason reason, uint64_t ticks)
{
    expect_in(&p->tree, numbers, n, reason, ticks);
}

static void test_base_and_kept(void **state)
{
    (void)state;
    tick(FRAMES(4, 3, 2, 1), (struct what){.base = true});
    tick(FRAMES(5), (struct what){.kept = 3, .base = true}); /* 5 3 2 1 */
    tick(FRAMES(7, 6), (struct what){.kept = 4});            /* no base: it is as before */
    tick(FRAMES(8), (struct what){.kept = 4, .base = true});
    tick(NULL, 0, (struct what){.kept = 2});
    tick(NULL, 0, (struct what){.kept = 5});
    tick(FRAMES(9), (struct what){0}); /* leaf only */
    tick(FRAMES(8), (struct what){.kept = 4});
    tick(NULL, 0, (struct what){.kept = 1, .base = true});
    tick(FRAMES(4), (struct what){.kept = 1, .base = true});
    expect(FRAMES(4, 3, 2, 1), 0, 1);
    expect(FRAMES(5, 3, 2, 1), 0, 1);
    expect(FRAMES(7, 6, 5, 3, 2, 1), 0, 1);
    expect(FRAMES(8, 5, 3, 2, 1), 0, 3);
    expect(FRAMES(2, 1), 0, 1);
    expect(FRAMES(9), 0, 1);
    expect(FRAMES(1), 0, 1);
    expect(FRAMES(4, 1), 0, 1);
    assert_int_equal(p->ticks, 10);
    assert_int_equal(p->frames_saved, 3 + 4 + 4 + 2 + 5 + 4 + 1 + 1);
    assert_int_equal(p->frames_by_rules, 4 + 1 + 2 + 1 + 1 + 1 + 1);
    assert_int_equal(p->threads[0].mirror.n, 2);
}

static void test_kept_too_much(void **state)
{
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true});
    tick(FRAMES(9, 8, 7, 6), (struct what){0}); /* no base */
    uint64_t ticks = p->ticks;
    tick(FRAMES(4), (struct what){.kept = 4});
    assert_string_equal(p->damage, "a record keeps more frames than there were");
    assert_int_equal(p->ticks, ticks);
}

static void test_damage_is_not_forgotten(void **state)
{
    uint64_t commit, one = frame(1);
    (void)state;
    struct stile__record *r = hand_made_reserve(&h, 1, &commit);
    r->kind = STILE__RECORD_WALKED;
    r->kept = 1;
    stile__ring_commit(&h.slot->head, commit);
    hand_made_tick(&h, &one, 1, STILE__REASON_NONE, 1); /* nothing is wrong with this one */
    process_drain(p);
    assert_string_equal(p->damage, "a record keeps more frames than there were");
    assert_int_equal(p->ticks, 0);
}

/* Each thread has its own; one that takes another's slot has none. */
static void test_threads(void **state)
{
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true});
    assert_non_null(p->threads[0].mirror.frames);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(p);
    assert_int_equal(atomic_load(&h.slot->state), STILE__SLOT_FREE);
    assert_null(p->threads[0].mirror.frames); /* ended */
    atomic_store(&h.slot->generation, 2);
    atomic_store(&h.slot->state, STILE__SLOT_LIVE);
    tick(FRAMES(2, 1), (struct what){.base = true});
    tick(FRAMES(5), (struct what){.kept = 2});
    expect(FRAMES(5, 2, 1), 0, 1);
    atomic_store(&h.slot->generation, 3); /* without an end */
    tick(FRAMES(6), (struct what){0});
    assert_int_equal(p->n_threads, 3);
    assert_null(p->threads[1].mirror.frames);
    tick(FRAMES(4), (struct what){.kept = 1});
    assert_non_null(p->damage);
    tick(NULL, 0, (struct what){0});
    process_end(p);
}

static void test_an_end_frees(void **state)
{
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true});
    process_end(p);
    assert_null(p->threads[0].mirror.frames);
}

static void test_reasons(void **state)
{
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true, .reason = STILE__REASON_SIGNAL_BLOCKED});
    tick(FRAMES(5, 4), (struct what){.kept = 2, .reason = STILE__REASON_NO_UNWIND_INFO});
    tick(FRAMES(4), (struct what){.kept = 2, .base = true, .reason = STILE__REASON_SIGNAL_BLOCKED});
    tick(FRAMES(6), (struct what){.kept = 3});
    /* The last frame is none of code; but it is not the last of its stack. */
    record((const uint64_t[]){frame(7), 0x123}, 2,
           (struct what){.kept = 1, .reason = STILE__REASON_UNKNOWN_STACK});
    record((const uint64_t[]){frame(7), 0x123}, 2, (struct what){.reason = STILE__REASON_UNKNOWN_STACK});
    expect(FRAMES(3, 2, 1), STILE__REASON_SIGNAL_BLOCKED, 1);
    expect(FRAMES(5, 4, 2, 1), STILE__REASON_NO_UNWIND_INFO, 1);
    expect(FRAMES(4, 2, 1), STILE__REASON_SIGNAL_BLOCKED, 1);
    expect(FRAMES(6, 4, 2, 1), STILE__REASON_NONE, 1);
    assert_int_equal(
        ticks_of(&p->tree, (const uint64_t[]){frame(7), 0x123, frame(1)}, 3, STILE__REASON_UNKNOWN_STACK), 1);
    expect(FRAMES(7), STILE__REASON_UNKNOWN_STACK, 1);
    assert_int_equal(p->reason_ticks[STILE__REASON_SIGNAL_BLOCKED], 2);
}

/* The leaf-most frames are shown; what is kept is all of them. */
static void test_depth(void **state)
{
    (void)state;
    p->depth = 3;
    tick(FRAMES(5, 4, 3, 2, 1), (struct what){.base = true});
    tick(FRAMES(6), (struct what){.kept = 4});
    tick(FRAMES(9, 8, 7, 6), (struct what){.kept = 1});
    tick(FRAMES(9), (struct what){.kept = 5, .reason = STILE__REASON_SIGNAL_BLOCKED});
    tick(FRAMES(6), (struct what){.kept = 2});
    tick(FRAMES(8, 7), (struct what){.kept = 2, .base = true});
    p->depth = STILE__DEPTH_MAX;
    tick(NULL, 0, (struct what){.kept = 4});
    expect(FRAMES(5, 4, 3), STILE__REASON_TRUNCATED, 1);
    expect(FRAMES(6, 4, 3), STILE__REASON_TRUNCATED, 1);
    expect(FRAMES(9, 8, 7), STILE__REASON_TRUNCATED, 1);
    expect(FRAMES(9, 5, 4), STILE__REASON_SIGNAL_BLOCKED, 1);
    expect(FRAMES(6, 2, 1), STILE__REASON_NONE, 1);
    expect(FRAMES(8, 7, 2), STILE__REASON_TRUNCATED, 1);
    expect(FRAMES(8, 7, 2, 1), STILE__REASON_NONE, 1);
}

/* A chain shorter than it says: what is there is the stack. */
static void test_frames_in_blocks(void **state)
{
    uint64_t commit;
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        struct stile__block *b = stile__region_block(h.region, p->size, 2);
        b->next = STILE__BLOCK_NONE;
        b->used = 16;
        memcpy(b->data, (const uint64_t[]){frame(2), frame(1)}, 16);
        atomic_store(&h.region->blocks_used[0], 4);
        struct stile__record *r = hand_made_reserve(&h, 1, &commit);
        r->kind = STILE__RECORD_WALKED;
        r->flags = STILE__IS_BASE;
        r->n_inline = 1;
        r->n_new = round == 0 ? 3 : 1000;
        r->words[0] = frame(3);
        r->frames_block = 2;
        stile__ring_commit(&h.slot->head, commit);
        process_drain(p);
        tick(FRAMES(4), (struct what){.kept = 3});
    }
    expect(FRAMES(3, 2, 1), 0, 2);
    expect(FRAMES(4, 3, 2, 1), 0, 2);
}

static void test_too_deep(void **state)
{
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true});
    struct mirror *m = &p->threads[0].mirror;
    assert_true(mirror_cut(m, 3, STILE__DEPTH_MAX));
    for (uint32_t i = 3; i < STILE__DEPTH_MAX; i++)
        mirror_push(m, frame(1), 0);
    tick(FRAMES(4), (struct what){.kept = STILE__DEPTH_MAX, .base = true});
    assert_string_equal(p->damage, "a record's frames are out of range");
}

/* A record of one cell may keep all that there is: so many look-ups, and the next one as many again. */
static void test_kept_beyond_a_round(void **state)
{
    enum { DEEP = 1 << 22, TICKS = 5 };
    uint64_t commit;
    (void)state;
    tick(FRAMES(3, 2, 1), (struct what){.base = true});
    struct mirror *m = &p->threads[0].mirror;
    assert_true(mirror_cut(m, 3, DEEP));
    for (uint32_t i = 3; i < DEEP; i++)
        mirror_push(m, frame(1), 0);
    for (uint32_t i = 0; i < TICKS; i++) {
        struct stile__record *r = hand_made_reserve(&h, 1, &commit);
        r->n_new = r->n_inline = 1;
        r->kept = DEEP;
        r->reason = STILE__REASON_SIGNAL_BLOCKED;
        r->words[0] = frame(9);
        stile__ring_commit(&h.slot->head, commit);
    }
    process_drain(p);
    expect(FRAMES(9), STILE__REASON_BUFFER_FULL, TICKS - 1);
    assert_int_equal(p->reason_ticks[STILE__REASON_SIGNAL_BLOCKED], 1);
    assert_true(p->tree.n_nodes < DEEP + 16);
    tick(FRAMES(9), (struct what){.kept = 3, .reason = STILE__REASON_SIGNAL_BLOCKED});
    expect(FRAMES(9, 3, 2, 1), STILE__REASON_SIGNAL_BLOCKED, 1);
}

static struct process *taken(void)
{
    struct process *piece = p->cut;
    assert_non_null(piece);
    assert_null(piece->next);
    p->cut = NULL;
    return piece;
}

/* A cut begins a new tree, in which the frames have other nodes. */
static void test_cut(void **state)
{
    (void)state;
    p->files[FILE_CPU].owns = p->numbered = true;
    strcpy(p->files[FILE_CPU].base, "/d/x.pb");
    p->interval_ns = 1000000000;
    tick(FRAMES(20, 10), (struct what){0});
    tick(FRAMES(4, 3, 2, 1), (struct what){.base = true});
    p->next_cut_ns = now_mono_ns();
    pieces_look(p, p->next_cut_ns);
    struct process *piece = taken();
    uint32_t n_nodes = piece->tree.n_nodes;
    assert_int_equal(p->tree.n_nodes, 1);
    tick(FRAMES(5), (struct what){.kept = 2});
    tick(FRAMES(6), (struct what){.kept = 3, .base = true});
    tick(FRAMES(7), (struct what){.kept = 4});
    assert_int_equal(piece->tree.n_nodes, n_nodes);
    expect_in(&piece->tree, FRAMES(4, 3, 2, 1), 0, 1);
    process_free(piece);
    expect(FRAMES(5, 2, 1), 0, 1);
    expect(FRAMES(6, 3, 2, 1), 0, 1);
    expect(FRAMES(7, 6, 3, 2, 1), 0, 1);
    assert_int_equal(p->tree.n_nodes, 1 + 3 + 2 + 1);
    p->next_cut_ns = now_mono_ns();
    pieces_look(p, p->next_cut_ns);
    process_free(taken());
    tick(NULL, 0, (struct what){.kept = 4});
    expect(FRAMES(6, 3, 2, 1), 0, 1);
}

/* What came too late for its piece was sampled all the same, and the agent keeps frames of it. */
static void test_dropped(void **state)
{
    uint8_t bytes[3] = {0};
    const struct snapshot s = {.start = 0x7000, .bytes = bytes, .len = sizeof bytes};
    (void)state;
    h.region->toggle = 1;
    pieces_init(p);
    p->piece = 2;
    atomic_store(&h.region->pieces_started, 2);
    tick(FRAMES(3, 2, 1), (struct what){.piece = 1, .base = true});
    tick(FRAMES(9, 8), (struct what){.piece = 1});
    tick(FRAMES(7), (struct what){.piece = 1, .snapshot = &s, .base = true, .kept = 1});
    assert_int_equal(p->ticks, 0);
    assert_int_equal(p->late_ticks, 3);
    assert_int_equal(p->tree.n_nodes, 1);
    tick(FRAMES(4), (struct what){.piece = 2, .kept = 3});
    expect(FRAMES(4, 3, 2, 1), 0, 1);
    tick(FRAMES(5), (struct what){.piece = 1, .kept = 2, .base = true});
    tick(FRAMES(6), (struct what){.piece = 2, .kept = 3});
    expect(FRAMES(6, 5, 2, 1), 0, 1);
    tick(FRAMES(6), (struct what){.piece = 1, .kept = 4});
    assert_string_equal(p->damage, "a record keeps more frames than there were");
}

/* Stacks of this very program, with stubs in the copies. */
static struct place here;
static uint64_t slots[3]; /* of return addresses, the leaf's first */
static volatile int sink;

__attribute__((noinline)) static void leaf(void)
{
    ucontext_t uc;
    slots[0] = (uintptr_t)__builtin_frame_address(0) + 8;
    getcontext(&uc);
    place_fill(&here, &uc);
    sink++;
}

__attribute__((noinline)) static void middle(void)
{
    slots[1] = (uintptr_t)__builtin_frame_address(0) + 8;
    leaf();
    sink++;
}

__attribute__((noinline)) static void root(void)
{
    slots[2] = (uintptr_t)__builtin_frame_address(0) + 8;
    middle();
    sink++;
}

/* What is there, without any stub. Returns how many frames. */
static uint32_t here_walk(uint64_t *frames)
{
    enum stile__reason reason;
    root();
    here.snapshot.barriers = NULL; /* an earlier test's */
    here.snapshot.n_barriers = 0;
    size_t n = unwinder_walk(p->unwinder, &here.snapshot, frames, PLACE_FRAMES, &reason);
    assert_int_equal(reason, STILE__REASON_NONE);
    assert_true(n > 4 && n < 60);
    p->stubs = stub_pool_places();
    return (uint32_t)n;
}

static void test_verify(void **state)
{
    uint64_t frames[PLACE_FRAMES];
    struct stile__barrier_seen barriers[3];
    (void)state;
    uint32_t n = here_walk(frames);
    p->debug = STILE__DEBUG_VERIFY | STILE__DEBUG_VERIFY_ALL;
    here.snapshot.len -= 3; /* the pairs lie where they lie */
    struct what what = {.kind = STILE__RECORD_VERIFY, .snapshot = &here.snapshot, .base = true};
    record(frames, n, what);
    assert_int_equal(p->verify.samples, 1);
    assert_int_equal(p->verify.differ, 0);

    for (int i = 2; i >= 0; i--)
        barriers[i] = stub_pool_place(&here.snapshot, here.bytes, slots[i], 11 + (uint64_t)i);
    here.snapshot.barriers = barriers;
    here.snapshot.n_barriers = 3;
    what.kept = n - 2;
    record(frames, 2, what);
    assert_int_equal(p->verify.samples, 2);
    assert_int_equal(p->verify.frames, 2 * n);
    assert_int_equal(p->verify.differ, 0);
    assert_int_equal(p->verify.unknown, 0);
    assert_int_equal(ticks_of(&p->tree, frames, n, STILE__REASON_NONE), 2);

    what.kept = n - 3; /* one is missing in the middle */
    record(frames, 2, what);
    assert_int_equal(p->verify.differ, 1);
    assert_int_equal(p->verify.frames, 3 * n - 1);

    what.kept = n - 3; /* and as things are now, this is the whole stack */
    record(frames, 3, what);
    assert_int_equal(p->verify.samples, 4);
    assert_int_equal(p->verify.differ, 1);
    here.snapshot.n_barriers = 2; /* no reference */
    record(frames, 3, what);
    assert_int_equal(p->verify.unknown, 1);
    assert_null(p->damage);
}

/* The walk of a snapshot comes to the barrier with which it ends: what is above is kept. */
static void test_snapshot(void **state)
{
    uint64_t frames[PLACE_FRAMES];
    (void)state;
    uint32_t n = here_walk(frames);
    record(frames, n, (struct what){.base = true});
    record(frames + 1, n - 1, (struct what){.base = true}); /* the leaf was another one then */
    struct stile__barrier_seen inner = stub_pool_place(&here.snapshot, here.bytes, slots[1], 7);
    stub_pool_place(&here.snapshot, here.bytes, slots[2], 8);
    struct snapshot s = here.snapshot;
    s.len = slots[2] + 8 - s.start;
    s.barriers = &inner;
    s.n_barriers = 1;
    struct what what = {.snapshot = &s, .kept = n - 3, .base = true}; /* which it is not, whatever it says */
    uint64_t saved = p->frames_saved;
    record(NULL, 0, what);
    assert_int_equal(ticks_of(&p->tree, frames, n, STILE__REASON_NONE), 2);
    assert_int_equal(p->frames_by_libunwind, 3);
    assert_int_equal(p->frames_saved, saved + n - 3);
    assert_int_equal(p->threads[0].mirror.n, n - 1);

    what.reason = STILE__REASON_SIGNAL_BLOCKED;
    record(NULL, 0, what);
    assert_int_equal(ticks_of(&p->tree, frames, n, STILE__REASON_SIGNAL_BLOCKED), 1);
    what.reason = STILE__REASON_NONE;

    saved = p->frames_saved;
    s.n_barriers = 0; /* it does not get there */
    record(NULL, 0, what);
    assert_int_equal(ticks_of(&p->tree, frames, 2, STILE__REASON_NO_UNWIND_INFO), 1);
    assert_int_equal(p->frames_saved, saved);

    s = here.snapshot; /* it goes on to the end: nothing is kept */
    const struct stile__barrier_seen all[] = {inner, {8, frames[3] + 1}};
    s.barriers = all;
    s.n_barriers = 2;
    what.kept = 1;
    record(NULL, 0, what);
    assert_int_equal(ticks_of(&p->tree, frames, n, STILE__REASON_NONE), 3);
    assert_int_equal(p->frames_saved, saved);
}

/* Stubs are not walked by rules. They are no frames, either; but a program may say so. */
static void test_stubs_are_not_learned(void **state)
{
    const uint64_t stub = stub_pool_address(STILE__STUBS / 2);
    (void)state;
    p->stubs = stub_pool_places();
    record(&stub, 1, (struct what){.reason = STILE__REASON_UNKNOWN_STACK});
    assert_false(rule_table_has(&p->rules, stub));
    p->stubs = (struct stubs){0};
    record(&stub, 1, (struct what){.reason = STILE__REASON_UNKNOWN_STACK});
    assert_true(rule_table_has(&p->rules, stub));
}

/* What was mapped is not known: neither is what the stub stands for. */
static void test_snapshot_of_the_past(void **state)
{
    uint64_t frames[PLACE_FRAMES];
    (void)state;
    uint32_t n = here_walk(frames);
    record(frames, n, (struct what){.base = true});
    struct stile__barrier_seen b = {3, here.snapshot.regs[STILE__REG_RIP]};
    here.snapshot.regs[STILE__REG_RIP] = stub_pool_address(3) + 7;
    here.snapshot.barriers = &b;
    here.snapshot.n_barriers = 1;
    record(NULL, 0, (struct what){.snapshot = &here.snapshot});
    assert_int_equal(ticks_of(&p->tree, frames, n, STILE__REASON_NONE), 2);
    p->mappings.now.unloads = 5; /* later than any that is known */
    atomic_store(&h.region->unloads, 5 * STILE__UNLOADS_ONE);
    record(NULL, 0, (struct what){.snapshot = &here.snapshot, .kept = 1});
    assert_int_equal(ticks_of(&p->tree, NULL, 0, STILE__REASON_NO_UNWIND_INFO), 1);
}

/* Most pairs that there can be, behind the longest stack. */
static void test_large(void **state)
{
    static uint8_t bytes[STILE__SNAPSHOT_MAX];
    static struct stile__barrier_seen barriers[STILE__STUBS];
    struct snapshot s = {.start = 0x10000, .bytes = bytes, .len = sizeof bytes};
    (void)state;
    p->stubs = stub_pool_places();
    process_blocks_grow(p, 64);
    s.regs[STILE__REG_RIP] = stub_pool_address(STILE__STUBS - 1);
    s.regs[STILE__REG_RSP] = s.start + s.len;
    for (uint64_t i = 0; i < STILE__STUBS; i++)
        barriers[i] = (struct stile__barrier_seen){i, frame(i % 16)};
    s.barriers = barriers;
    s.n_barriers = STILE__STUBS;
    record(NULL, 0, (struct what){.snapshot = &s});
    assert_int_equal(ticks_of(&p->tree, (const uint64_t[]){frame(15)}, 1, STILE__REASON_NO_UNWIND_INFO), 1);
}

/* Whatever is kept of whatever: the tree has as many ticks as there were. */
static void test_random_stacks(void **state)
{
    uint64_t numbers = 5, model[512], n_model = 0;
    (void)state;
    p->interval_ns = 1000000000;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 2000u : 20000u); round++) {
        uint64_t fresh[16], whole[528];
        uint64_t kept = n_model != 0 ? next_number(&numbers) % (n_model + 1) : 0;
        uint64_t n = next_number(&numbers) % 16;
        bool base = next_number(&numbers) % 2 == 0 && kept + n <= 512;
        for (uint64_t i = 0; i < n; i++)
            fresh[i] = frame(next_number(&numbers) % 50);
        for (uint64_t i = 0; i < kept + n; i++) /* leaf first */
            whole[i] = i < n ? fresh[i] : model[kept + n - 1 - i];
        uint64_t before = round % 16 == 0 ? ticks_of(&p->tree, whole, kept + n, STILE__REASON_NONE) : 0;
        record(fresh, (uint32_t)n, (struct what){.kept = (uint32_t)kept, .base = base});
        assert_null(p->damage);
        if (round % 16 == 0)
            assert_int_equal(ticks_of(&p->tree, whole, kept + n, STILE__REASON_NONE), before + 1);
        if (base) {
            n_model = kept + n;
            for (uint64_t i = 0; i < n; i++)
                model[kept + i] = fresh[n - 1 - i];
        }
        if (next_number(&numbers) % 512 == 0) {
            p->next_cut_ns = now_mono_ns();
            pieces_look(p, p->next_cut_ns);
            if (p->cut != NULL)
                process_free(taken());
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_base_and_kept),
        TEST(test_kept_too_much),
        TEST(test_damage_is_not_forgotten),
        TEST(test_threads),
        TEST(test_an_end_frees),
        TEST(test_reasons),
        TEST(test_depth),
        TEST(test_frames_in_blocks),
        TEST(test_kept_beyond_a_round),
        TEST(test_too_deep),
        TEST(test_cut),
        TEST(test_dropped),
        TEST(test_verify),
        TEST(test_snapshot),
        TEST(test_stubs_are_not_learned),
        TEST(test_snapshot_of_the_past),
        TEST(test_large),
        TEST(test_random_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
