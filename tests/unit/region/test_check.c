/* region/check.c: every error, and random bytes that are refused or keep every bound. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/region/check.h"

#define ROUNDS (UNDER_SANITIZER ? 200000u : 2000000u)

static struct stile__region region;
static uint32_t slot_max, block_max;

static void region_good(void)
{
    memset(&region, 0, sizeof region);
    region.magic = STILE__REGION_MAGIC;
    region.version = STILE__REGION_VERSION;
    region.slot_max = 64;
    region.block_max = 128;
    region.hz = 100;
    region.period_ns = 10000000;
}

static uint64_t good_size(void)
{
    return stile__region_layout(64, 128).size;
}

static void refused(const char *why)
{
    const char *said = stile__region_check(&region, good_size(), &slot_max, &block_max);
    assert_non_null(said);
    assert_string_equal(said, why);
    region_good();
}

static void test_good_region(void **state)
{
    (void)state;
    region_good();
    slot_max = block_max = 0;
    assert_null(stile__region_check(&region, good_size(), &slot_max, &block_max));
    assert_int_equal(slot_max, 64);
    assert_int_equal(block_max, 128);
    region.slot_max = STILE__SLOT_MAX;
    region.block_max = STILE__BLOCK_MAX;
    uint64_t size = stile__region_layout(STILE__SLOT_MAX, STILE__BLOCK_MAX).size;
    assert_null(stile__region_check(&region, size, &slot_max, &block_max));
}

static void test_region_errors(void **state)
{
    static const char slots[] = "the region's number of thread slots is out of range";
    static const char blocks[] = "the region's number of snapshot blocks is out of range";
    static const char small[] = "the region is smaller than its parts";
    static const char period[] = "the region's sampling rate is out of range";

    (void)state;
    region_good();
    assert_string_equal(stile__region_check(&region, sizeof region - 1, &slot_max, &block_max),
                        "the region is smaller than its header");
    assert_string_equal(stile__region_check(&region, good_size() - 1, &slot_max, &block_max), small);
    region.magic++;
    refused("the region has not our magic number");
    region.version++;
    refused("the region is of another version of libstile");
    region.slot_max = 0;
    refused(slots);
    region.slot_max = 17;
    refused(slots);
    region.slot_max = STILE__SLOT_MAX + 16;
    refused(slots);
    region.slot_max = UINT32_MAX & ~15u;
    refused(slots);
    region.block_max = 0;
    refused(blocks);
    region.block_max = STILE__BLOCK_MAX + 1;
    refused(blocks);
    region.block_max = 129;
    refused(small);
    region.slot_max = 80;
    refused(small);
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
        fill_random(&region, 48, &numbers);
        if (pick & 1u << 8)
            region.magic = STILE__REGION_MAGIC;
        if (pick & 1u << 9)
            region.version = STILE__REGION_VERSION;
        if (pick & 1u << 10)
            region.slot_max %= STILE__SLOT_MAX * 2;
        if (pick & 1u << 11)
            region.block_max %= STILE__BLOCK_MAX * 2;
        if (pick & 7u << 12)
            region.hz %= STILE__REGION_HZ_MAX * 5 / 4;
        if (pick & 7u << 15)
            region.period_ns %= 1250000000;
        if (stile__region_check(&region, file_size, &slot_max, &block_max) != NULL)
            continue;
        accepted++;
        assert_true(region.magic == STILE__REGION_MAGIC && region.version == STILE__REGION_VERSION);
        assert_true(slot_max > 0 && slot_max <= STILE__SLOT_MAX && slot_max % 16 == 0);
        assert_true(block_max > 0 && block_max <= STILE__BLOCK_MAX);
        assert_true(stile__region_layout(slot_max, block_max).size <= file_size);
        assert_true(region.period_ns != 0 && region.period_ns <= 1000000000);
        assert_true(region.hz != 0 && region.hz <= STILE__REGION_HZ_MAX);
    }
    assert_true(accepted > ROUNDS / 10000); /* otherwise the rounds say nothing */
}

static struct stile__record *record_good(void)
{
    static union {
        struct stile__record record;
        struct stile__cell cells[4];
    } r;
    memset(&r, 0, sizeof r);
    r.record.cells = 3;
    r.record.n_new = 1;
    r.record.block = 5;
    r.record.stack_len = STILE__SNAPSHOT_MAX;
    return &r.record;
}

static void record_refused(struct stile__record *r, const char *why)
{
    const char *said = stile__record_check(r, 4, 64);
    assert_non_null(said);
    assert_string_equal(said, why);
}

static void test_records(void **state)
{
    static const char frames[] = "a record's frames exceed it";
    static const char snapshot[] = "a record's snapshot is out of range";
    struct stile__record *r = record_good();

    (void)state;
    assert_null(stile__record_check(r, 3, 64));
    assert_string_equal(stile__record_check(r, 2, 64), "a record is longer than what was written");
    r->cells = 0;
    record_refused(r, "a record is longer than what was written");
    r = record_good();
    r->n_new = 2; /* three cells hold 18 words: 17 registers and one address */
    record_refused(r, frames);
    r->block = STILE__BLOCK_NONE;
    r->n_new = 18;
    assert_null(stile__record_check(r, 4, 64));
    r->n_new = 19;
    record_refused(r, frames);
    r->n_new = UINT32_MAX;
    record_refused(r, frames);
    r = record_good();
    r->reason = STILE__REASON_COUNT;
    record_refused(r, "a record's reason is unknown");
    r = record_good();
    r->block = 64;
    record_refused(r, snapshot);
    r = record_good();
    r->stack_len++;
    record_refused(r, snapshot);
    r->is_pad = 1; /* nothing else of a pad is looked at */
    assert_null(stile__record_check(r, 4, 64));
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
        if (pick & 1u << 20)
            r->cells %= 8;
        if (pick & 1u << 21)
            r->n_new %= 64;
        if (pick & 1u << 22)
            r->reason %= STILE__REASON_COUNT + 1;
        if (pick & 1u << 23)
            r->block = pick & 1u << 24 ? STILE__BLOCK_NONE : r->block % STILE__BLOCK_MAX;
        if (pick & 1u << 25)
            r->stack_len %= STILE__SNAPSHOT_MAX * 2;
        r->is_pad = (pick & 1u << 26) != 0;
        if (stile__record_check(r, room, blocks) == NULL) {
            assert_true(r->cells > 0 && r->cells <= room);
            if (!r->is_pad) {
                accepted++;
                uint64_t words = r->n_new + (r->block != STILE__BLOCK_NONE ? 17ull : 0);
                assert_true(sizeof *r + words * 8 <= (uint64_t)r->cells * STILE__CELL_BYTES);
                assert_true(r->reason < STILE__REASON_COUNT);
                assert_true(r->block == STILE__BLOCK_NONE ||
                            (r->block < blocks && r->stack_len <= STILE__SNAPSHOT_MAX));
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
        cmocka_unit_test(test_good_region),    cmocka_unit_test(test_region_errors),
        cmocka_unit_test(test_random_regions), cmocka_unit_test(test_records),
        cmocka_unit_test(test_random_records), cmocka_unit_test(test_reason_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
