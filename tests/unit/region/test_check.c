/* region/check.c: every error, and random bytes that are refused or keep every bound. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/region/check.h"

#define ROUNDS (UNDER_SANITIZER ? 200000u : 2000000u)

static struct stile__region region;
static struct stile__region_size size;

static void region_good(void)
{
    memset(&region, 0, sizeof region);
    region.magic = STILE__REGION_MAGIC;
    region.version = STILE__REGION_VERSION;
    region.size.slot_max = 64;
    region.size.block_max = 128;
    region.size.ring_cells = STILE__RING_CELLS_MIN;
    region.size.rule_pages = 16;
    region.hz = 100;
    region.depth = 1000;
    region.period_ns = 10000000;
}

static uint64_t good_size(void)
{
    return stile__region_layout((struct stile__region_size){64, 128, STILE__RING_CELLS_MIN, 16, 0, 0}).size;
}

static void refused(const char *why)
{
    const char *said = stile__region_check(&region, good_size(), &size);
    assert_non_null(said);
    assert_string_equal(said, why);
    region_good();
}

static void test_good_region(void **state)
{
    (void)state;
    region_good();
    memset(&size, 0, sizeof size);
    assert_null(stile__region_check(&region, good_size(), &size));
    assert_int_equal(size.slot_max, 64);
    assert_int_equal(size.block_max, 128);
    assert_int_equal(size.ring_cells, STILE__RING_CELLS_MIN);
    region.size.slot_max = STILE__SLOT_MAX;
    region.size.block_max = STILE__BLOCK_MAX;
    region.size.ring_cells = STILE__RING_CELLS_MAX;
    assert_null(stile__region_check(&region, stile__region_layout(region.size).size, &size));
    assert_non_null(stile__region_check(&region, stile__region_layout(region.size).size - 1, &size));
}

static void test_region_errors(void **state)
{
    static const char slots[] = "the region's number of thread slots is out of range";
    static const char blocks[] = "the region's number of snapshot blocks is out of range";
    static const char small[] = "the region is smaller than its parts";
    static const char period[] = "the region's sampling rate is out of range";

    (void)state;
    region_good();
    assert_string_equal(stile__region_check(&region, sizeof region - 1, &size),
                        "the region is smaller than its header");
    assert_string_equal(stile__region_check(&region, good_size() - 1, &size), small);
    region.magic++;
    refused("the region has not our magic number");
    region.version++;
    refused("the region is of another version of libstile");
    region.size.slot_max = 0;
    refused(slots);
    region.size.slot_max = 17;
    refused(slots);
    region.size.slot_max = STILE__SLOT_MAX + 16;
    refused(slots);
    region.size.slot_max = UINT32_MAX & ~15u;
    refused(slots);
    region.size.block_max = 0;
    refused(blocks);
    region.size.block_max = STILE__BLOCK_MAX + 1;
    refused(blocks);
    static const uint32_t odd_rings[] = {
        0,         64, STILE__RING_CELLS_MIN - 1, STILE__RING_CELLS_MIN + 1, 3072, STILE__RING_CELLS_MAX * 2,
        UINT32_MAX};
    for (size_t i = 0; i < sizeof odd_rings / sizeof *odd_rings; i++) {
        region.size.ring_cells = odd_rings[i];
        refused("the region's size of rings is out of range");
    }
    region.size.ring_cells = STILE__RING_CELLS_MIN * 2;
    refused(small);
    region.size.block_max = 129;
    refused(small);
    region.size.slot_max = 80;
    refused(small);
    region.size.rule_pages = STILE__RULES_PAGES_MAX + 1;
    refused("the region's room for unwind rules is out of range");
    region.size.rule_pages = 17;
    refused(small);
    region.size.waits = 2;
    refused("the region's room for waits is out of range");
    region.size.waits = 1; /* a page more for each slot */
    refused(small);
    region.size.report = STILE__REPORT_BYTES + STILE__PAGE;
    refused("the region's room for a report is out of range");
    region.size.report = STILE__PAGE / 2;
    refused("the region's room for a report is out of range");
    region.size.report = STILE__PAGE;
    refused(small);
    region.block_rate_ns = STILE__BLOCK_RATE_MAX + 1ull;
    refused("the region's rate of waits is out of range");
    region.advance_ns = STILE__ADVANCE_NS_MAX + 1;
    refused("the region's rate of waits is out of range");
    region.depth = 0;
    refused("the region's depth is out of range");
    region.depth = STILE__DEPTH_MAX + 1;
    refused("the region's depth is out of range");
    region.barriers = STILE__BARRIERS_WISHES;
    refused("the region's wish for barriers is out of range");
    region.period_ns = 0;
    refused(period);
    region.hz = 0;
    refused(period);
    region.interval_ns = STILE__INTERVAL_NS_MIN - 1;
    refused("the region's interval is out of range");
    region.interval_ns = STILE__INTERVAL_NS_MAX + 1;
    refused("the region's interval is out of range");
}

static void test_random_regions(void **state)
{
    uint64_t numbers = 1;
    unsigned accepted = 0;

    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t pick = next_number(&numbers);
        uint64_t file_size = next_number(&numbers) >> (pick % 48);
        region_good();
        fill_random(&region, offsetof(struct stile__region, start_unix_ns), &numbers);
        if (pick & 5u << 8)
            region.magic = STILE__REGION_MAGIC;
        if (pick & 5u << 9)
            region.version = STILE__REGION_VERSION;
        if (pick & 1u << 10)
            region.size.slot_max %= STILE__SLOT_MAX * 2;
        if (pick & 1u << 11)
            region.size.block_max %= STILE__BLOCK_MAX * 2;
        if (pick & 7u << 21)
            region.size.rule_pages %= STILE__RULES_PAGES_MAX * 5 / 4;
        if (pick & 7u << 18)
            region.size.ring_cells = 64u << region.size.ring_cells % 8;
        if (pick & 7u << 12)
            region.hz %= STILE__REGION_HZ_MAX * 5 / 4;
        if (pick & 7u << 15)
            region.period_ns %= 1250000000;
        if (pick & 15ull << 48)
            region.size.waits &= 1;
        if (pick & 31ull << 43)
            region.size.report = region.size.report % 64 * STILE__PAGE;
        if (pick & 15ull << 52)
            region.block_rate_ns %= STILE__BLOCK_RATE_MAX * 9ull / 8;
        if (pick & 15ull << 56)
            region.advance_ns %= STILE__ADVANCE_NS_MAX / 8 * 9;
        if (stile__region_check(&region, file_size, &size) != NULL)
            continue;
        accepted++;
        assert_true(region.magic == STILE__REGION_MAGIC && region.version == STILE__REGION_VERSION);
        assert_true(size.slot_max > 0 && size.slot_max <= STILE__SLOT_MAX && size.slot_max % 16 == 0);
        assert_true(size.block_max > 0 && size.block_max <= STILE__BLOCK_MAX);
        assert_true(size.ring_cells >= STILE__RING_CELLS_MIN && size.ring_cells <= STILE__RING_CELLS_MAX &&
                    (size.ring_cells & (size.ring_cells - 1)) == 0);
        assert_true(size.rule_pages <= STILE__RULES_PAGES_MAX && size.waits <= 1);
        assert_true(size.report <= STILE__REPORT_BYTES && size.report % STILE__PAGE == 0);
        assert_true(region.block_rate_ns <= STILE__BLOCK_RATE_MAX &&
                    region.advance_ns <= STILE__ADVANCE_NS_MAX);
        assert_true(stile__region_layout(size).size <= file_size);
        assert_true(region.period_ns != 0 && region.period_ns <= 1000000000);
        assert_true(region.hz != 0 && region.hz <= STILE__REGION_HZ_MAX);
    }
    assert_true(accepted > ROUNDS / 10000); /* otherwise the rounds say nothing */
}

/* No ring overlaps the next one, and the last one ends where the blocks begin. */
static void test_rings(void **state)
{
    struct stile__region_size s = {STILE__SLOTS_LARGE * 2, 16, STILE__RING_CELLS_MIN, 16, 0, 0};
    (void)state;
    for (; s.ring_cells <= STILE__RING_CELLS_MAX; s.ring_cells *= 2) {
        assert_int_equal(stile__ring_offset(s, 0), 0);
        for (uint32_t i = 0; i < s.slot_max; i++) {
            uint32_t cells = stile__slot_cells(s, i);
            assert_true(cells >= STILE__RING_CELLS_MIN && cells <= s.ring_cells &&
                        (cells & (cells - 1)) == 0);
            assert_int_equal(stile__ring_offset(s, i + 1),
                             stile__ring_offset(s, i) + cells * STILE__CELL_BYTES);
        }
        assert_int_equal(stile__region_layout(s).blocks - stile__region_layout(s).rings,
                         stile__ring_offset(s, s.slot_max));
    }
}

static struct stile__record *record_good(void)
{
    static union {
        struct stile__record record;
        struct stile__cell cells[5];
    } r;
    memset(&r, 0, sizeof r);
    r.record.cells = 4;
    r.record.ticks = 1;
    r.record.kind = STILE__RECORD_SNAPSHOT;
    r.record.n_new = r.record.n_inline = 1;
    r.record.frames_block = STILE__BLOCK_NONE;
    r.record.block = 5;
    r.record.stack_len = STILE__SNAPSHOT_MAX;
    return &r.record;
}

static void record_refused(struct stile__record *r, const char *why)
{
    const char *said = stile__record_check(r, 5, 64);
    assert_non_null(said);
    assert_string_equal(said, why);
}

static void test_records(void **state)
{
    static const char frames[] = "a record's frames exceed it";
    static const char snapshot[] = "a record's snapshot is out of range";
    struct stile__record *r = record_good();

    (void)state;
    assert_null(stile__record_check(r, 4, 64));
    assert_string_equal(stile__record_check(r, 3, 64), "a record is longer than what was written");
    r->cells = 0;
    record_refused(r, "a record is longer than what was written");
    r = record_good();
    r->n_new = r->n_inline = 8; /* four cells hold 24 words: 17 registers and 7 frames */
    record_refused(r, frames);
    r->kind = STILE__RECORD_WALKED;
    r->block = STILE__BLOCK_NONE;
    r->n_new = r->n_inline = 24;
    assert_null(stile__record_check(r, 5, 64));
    r->n_new = r->n_inline = 25;
    record_refused(r, frames);
    r->n_new = r->n_inline = UINT32_MAX;
    record_refused(r, frames);
    r->n_inline = 24;
    r->n_new = 23;
    record_refused(r, "a record's frames are out of range");
    r->n_new = 25; /* one more, in no block */
    record_refused(r, "a record's frames are out of range");
    r->frames_block = 63;
    assert_null(stile__record_check(r, 5, 64));
    r->n_new = STILE__DEPTH_MAX + 1;
    record_refused(r, "a record's frames are out of range");
    r = record_good();
    r->kind = STILE__RECORD_KINDS;
    record_refused(r, "a record's kind is unknown");
    r->kind = STILE__RECORD_WALKED; /* and has a snapshot */
    record_refused(r, snapshot);
    r->kind = STILE__RECORD_VERIFY; /* and has none */
    r->block = STILE__BLOCK_NONE;
    record_refused(r, snapshot);
    r = record_good();
    r->ticks = 0;
    record_refused(r, "a record stands for no time");
    r = record_good();
    r->reason = STILE__REASON_COUNT;
    record_refused(r, "a record's reason is unknown");
    r = record_good();
    r->block = 64;
    record_refused(r, snapshot);
    r = record_good();
    r->stack_len++;
    record_refused(r, snapshot);
    r->kind = STILE__RECORD_PAD; /* nothing else of a pad is looked at */
    assert_null(stile__record_check(r, 5, 64));
    r = record_good();
    r->n_barriers = STILE__STUBS;
    assert_null(stile__record_check(r, 5, 64));
    r->n_barriers++;
    record_refused(r, "a record's barriers are out of range");
    r = record_good();
    r->kept = STILE__DEPTH_MAX + 1;
    record_refused(r, "a record's barriers are out of range");
    r->kept = STILE__DEPTH_MAX;
    assert_null(stile__record_check(r, 5, 64));
}

/* A wait has three words more, may stand for none, and is nothing else besides. */
static void test_waits(void **state)
{
    struct stile__record *r = record_good();

    (void)state;
    r->kind = STILE__RECORD_WALKED;
    r->block = STILE__BLOCK_NONE;
    r->flags = STILE__IS_WAIT;
    r->ticks = 0;
    r->n_new = r->n_inline = 24 - STILE__WAIT_WORDS;
    assert_null(stile__record_check(r, 5, 64));
    r->n_new = r->n_inline = 25 - STILE__WAIT_WORDS;
    record_refused(r, "a record's frames exceed it");
    static const uint8_t others[] = {STILE__IS_BASE, STILE__IN_KERNEL};
    for (size_t i = 0; i < sizeof others; i++) {
        r->n_new = r->n_inline = 1;
        r->flags = STILE__IS_WAIT | others[i];
        record_refused(r, "a wait's record is a tick's, too");
    }
    r->flags = STILE__IS_WAIT;
    r->kept = 1;
    record_refused(r, "a wait's record is a tick's, too");
}

static void test_wait_reason_names(void **state)
{
    (void)state;
    for (int i = 1; i < STILE__WAIT_REASONS; i++) {
        assert_true(stile__wait_reason_name((enum stile__wait_reason)i)[0] != '\0');
        for (int k = 1; k < i; k++)
            assert_string_not_equal(stile__wait_reason_name((enum stile__wait_reason)i),
                                    stile__wait_reason_name((enum stile__wait_reason)k));
    }
    assert_string_equal(stile__wait_reason_name(STILE__WAIT_REASONS), "unknown");
}

static void test_random_records(void **state)
{
    uint64_t numbers = 2;
    unsigned accepted = 0;

    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t pick = next_number(&numbers);
        uint64_t room = 1 + pick % 8;
        uint32_t blocks = 1 + (uint32_t)(pick >> 8) % STILE__BLOCK_MAX;
        /* Exactly as long as its room, for the address sanitizer. */
        struct stile__record *r = aligned_alloc(STILE__CELL_BYTES, room * STILE__CELL_BYTES);
        assert_non_null(r);
        fill_random(r, sizeof *r, &numbers);
        if (pick & 3u << 20)
            r->cells %= 8;
        if (pick & 3u << 21)
            r->n_new %= 64;
        if (pick & 3u << 22)
            r->reason %= STILE__REASON_COUNT + 1;
        if (pick & 1u << 23)
            r->block = pick & 1u << 24 ? STILE__BLOCK_NONE : r->block % STILE__BLOCK_MAX;
        if (pick & 1u << 25)
            r->stack_len %= STILE__SNAPSHOT_MAX * 2;
        r->kind = (uint8_t)(pick >> 26) % (STILE__RECORD_KINDS + 1);
        r->n_inline = pick & 1u << 30 ? r->n_new : r->n_inline % 64;
        if (pick & 1u << 29)
            r->frames_block %= STILE__BLOCK_MAX;
        if (pick & 7ull << 40)
            r->flags &= STILE__IN_KERNEL | STILE__IS_BASE | STILE__IS_WAIT;
        if ((r->flags & STILE__IS_DUMP) != 0 && pick & 1ull << 43)
            r->ticks = 0;
        if (pick & 7ull << 31)
            r->kept %= STILE__DEPTH_MAX + 1;
        if (pick & 7ull << 34)
            r->n_barriers = pick & 3ull << 37 ? 0 : r->n_barriers % (STILE__STUBS + 1);
        if (stile__record_check(r, room, blocks) == NULL) {
            assert_true(r->cells > 0 && r->cells <= room);
            if (r->kind != STILE__RECORD_PAD) {
                accepted++;
                bool snapshot = r->kind != STILE__RECORD_WALKED;
                uint64_t words = r->n_inline + (snapshot ? 17ull : 0) +
                                 (r->flags & STILE__IS_WAIT ? STILE__WAIT_WORDS : 0);
                assert_true(r->ticks != 0 || (r->flags & (STILE__IS_WAIT | STILE__IS_DUMP)) != 0);
                assert_true((r->flags & STILE__IS_DUMP) == 0 || (r->ticks == 0 && r->kept == 0));
                assert_true(r->n_inline == r->n_new || (r->n_inline < r->n_new && r->frames_block < blocks));
                assert_int_equal(snapshot, r->block != STILE__BLOCK_NONE);
                assert_true(sizeof *r + words * 8 <= (uint64_t)r->cells * STILE__CELL_BYTES);
                assert_true(r->reason < STILE__REASON_COUNT);
                assert_true(r->block == STILE__BLOCK_NONE ||
                            (r->block < blocks && r->stack_len <= STILE__SNAPSHOT_MAX));
                assert_true(r->kept <= STILE__DEPTH_MAX && r->n_barriers <= (snapshot ? STILE__STUBS : 0));
            }
        }
        free(r);
    }
    assert_true(accepted > 100);
}

static void test_reason_names(void **state)
{
    (void)state;
    assert_string_equal(stile__reason_name(STILE__REASON_NONE), "");
    for (int i = 1; i < STILE__REASON_COUNT; i++) {
        const char *name = stile__reason_name((enum stile__reason)i);
        assert_true(name != NULL && name[0] == '[' && name[strlen(name) - 1] == ']');
    }
    assert_string_equal(stile__reason_name(STILE__REASON_COUNT), "[unknown reason]");
    assert_string_equal(stile__reason_name((enum stile__reason)255), "[unknown reason]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_region),       cmocka_unit_test(test_region_errors),
        cmocka_unit_test(test_random_regions),    cmocka_unit_test(test_rings),
        cmocka_unit_test(test_records),           cmocka_unit_test(test_waits),
        cmocka_unit_test(test_wait_reason_names), cmocka_unit_test(test_random_records),
        cmocka_unit_test(test_reason_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
