/* agent/region_make.c: a sealed region of little memory, within the program's limits. */
#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/agent/region_make.h"
#include "profiler/region/check.h"

static struct stile__region *region;
static int region_fd;

static int make(void **state)
{
    (void)state;
    return stile__region_make(&region, &region_fd, 100, false,
                              false); /* no more blocks than at any low rate */
}

static int unmake(void **state)
{
    (void)state;
    stile__region_unmake(region);
    return close(region_fd);
}

static void test_region(void **state)
{
    struct stat st;
    struct stile__region_size size;

    (void)state;
    assert_int_equal(fstat(region_fd, &st), 0);
    assert_int_equal(st.st_size, stile__region_layout(region->size).size);
    assert_true(st.st_blocks * 512 <= 64 << 10);
    assert_int_equal(fcntl(region_fd, F_GETFD), FD_CLOEXEC);
    region->hz = 100;
    region->depth = 100;
    region->period_ns = 10000000;
    assert_null(stile__region_check(region, (uint64_t)st.st_size, &size));
    assert_int_equal(atomic_load(&region->blocks_ready), 2);
    /* What the handler may write is there: these may not be faults that fail later. */
    memset(stile__region_block(region, size, 0), 1, 2 * STILE__BLOCK_SIZE);
    assert_int_equal(fstat(region_fd, &st), 0);
    assert_true(st.st_blocks * 512 <= 64 << 10);
}

static void test_seals(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(fstat(region_fd, &st), 0);
    assert_int_equal(ftruncate(region_fd, st.st_size - 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(region_fd, 0), -1);
    assert_int_equal(ftruncate(region_fd, st.st_size + 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fcntl(region_fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
}

static void has_no_region(void *unused)
{
    (void)unused;
    CHILD_CHECK(msync(region, STILE__PAGE, MS_ASYNC) == -1 && errno == ENOMEM);
}

static void test_fork_does_not_inherit(void **state)
{
    (void)state;
    assert_int_equal(msync(region, STILE__PAGE, MS_ASYNC), 0);
    assert_int_equal(in_child(has_no_region, NULL), 0);
}

static void limit_file(uint64_t bytes, bool hard)
{
    struct rlimit limit;
    CHILD_CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    if (hard)
        limit.rlim_max = bytes;
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void fits(void *bytes)
{
    struct stat st;
    struct stile__region_size size;
    limit_file(*(uint64_t *)bytes, true);
    CHILD_CHECK(stile__region_make(&region, &region_fd, 100, false, false) == 0);
    CHILD_CHECK(fstat(region_fd, &st) == 0 && (uint64_t)st.st_size <= *(uint64_t *)bytes);
    region->hz = 100;
    region->depth = 100;
    region->period_ns = 1;
    CHILD_CHECK(stile__region_check(region, (uint64_t)st.st_size, &size) == NULL);
    stile__region_unmake(region);
}

static void does_not_fit(void *bytes)
{
    unsigned before = count_descriptors();
    limit_file(*(uint64_t *)bytes, true);
    CHILD_CHECK(stile__region_make(&region, &region_fd, 100, false, false) == -EFBIG);
    CHILD_CHECK(count_descriptors() == before);
}

/* The program's own limit is below what it may have: it is not asked, and is what it was. */
static void fits_all_the_same(void *bytes)
{
    struct rlimit limit;
    limit_file(*(uint64_t *)bytes, false);
    CHILD_CHECK(stile__region_make(&region, &region_fd, 100, false, false) == 0);
    CHILD_CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur == *(uint64_t *)bytes);
    CHILD_CHECK(limit.rlim_max > limit.rlim_cur);
    memset(stile__region_block(region, region->size, 0), 1, 2 * STILE__BLOCK_SIZE);
    stile__region_unmake(region);
}

static void test_file_size_limit(void **state)
{
    uint64_t least =
        stile__region_layout((struct stile__region_size){16, 64, STILE__RING_CELLS_MIN, 0, 0, 0}).size;
    uint64_t sizes[] = {least, 8u << 20, 100u << 20};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_int_equal(in_child(fits, &sizes[i]), 0);
    least--;
    assert_int_equal(in_child(does_not_fit, &least), 0);
    assert_int_equal(in_child(fits_all_the_same, &least), 0);
    least = 0;
    assert_int_equal(in_child(does_not_fit, &least), 0);
    assert_int_equal(in_child(fits_all_the_same, &least), 0);
}

static void little_address_space(void *unused)
{
    struct rlimit limit;
    unsigned long pages = 0;
    (void)unused;
    char *statm = file_text("/proc/self/statm");
    CHILD_CHECK(statm != NULL && sscanf(statm, "%lu", &pages) == 1);
    CHILD_CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = pages * 4096 + (32u << 20);
    CHILD_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHILD_CHECK(stile__region_make(&region, &region_fd, 100, false, false) == 0);
    CHILD_CHECK(region->size.slot_max == 256); /* what there is of address space is the program's */
    CHILD_CHECK(stile__region_layout(region->size).size < 8u << 20);
    CHILD_CHECK(fcntl(region_fd, F_GET_SEALS) & F_SEAL_SHRINK);
}

static void test_address_space_limit(void **state)
{
    (void)state;
    if (UNDER_SANITIZER)
        skip(); /* their shadows are larger than any limit */
    assert_int_equal(in_child(little_address_space, NULL), 0);
}

/* Rings hold a twentieth of a second's samples of eight cells, within what there is. */
static void test_rings_suit_the_rate(void **state)
{
    static const struct {
        unsigned hz;
        uint32_t cells;
    } rates[] = {{1, 512}, {1280, 512}, {2000, 1024}, {10000, 4096}, {20000, 8192}};
    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        assert_int_equal(stile__region_make(&region, &region_fd, rates[i].hz, false, false), 0);
        assert_int_equal(region->size.ring_cells, rates[i].cells);
        uint32_t blocks = atomic_load(&region->blocks_ready);
        assert_true(blocks >= 2 + rates[i].hz / 250);
        assert_int_equal(unmake(NULL), 0);
        assert_int_equal(stile__region_make(&region, &region_fd, rates[i].hz, true, false), 0);
        assert_true(atomic_load(&region->blocks_ready) >
                    blocks); /* until there is a collector to make more */
        assert_int_equal(unmake(NULL), 0);
    }
}

static void test_unmake(void **state)
{
    (void)state;
    unsigned maps = count_map_lines();
    assert_int_equal(stile__region_make(&region, &region_fd, 100, false, false), 0);
    assert_int_equal(count_map_lines(), maps + 1);
    stile__region_unmake(region);
    assert_int_equal(count_map_lines(), maps);
    close(region_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_region, make, unmake),
        cmocka_unit_test_setup_teardown(test_seals, make, unmake),
        cmocka_unit_test_setup_teardown(test_fork_does_not_inherit, make, unmake),
        cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_address_space_limit),
        cmocka_unit_test(test_unmake),
        cmocka_unit_test(test_rings_suit_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
