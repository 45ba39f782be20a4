/* agent/maps.c: executable mappings for the collector, readable and writable ones for stack bounds. */
#include "tests/unit/support.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "profiler/agent/maps.h"

static struct stile__region *region;
static size_t region_size;

static int set_up(void **state)
{
    (void)state;
    region_size =
        stile__region_layout((struct stile__region_size){16, 64, STILE__RING_CELLS_MIN, 0, 0, 0}).size;
    region = mmap(NULL, region_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return region == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(region, region_size);
}

/* Checks every line of a generation; returns how many have this very function. */
static unsigned generation_check(const char *text)
{
    unsigned found = 0;
    char self[4096] = "", path[4096];
    assert_non_null(realpath("/proc/self/exe", self));
    assert_int_equal(strncmp(text, "@\n", 2), 0);
    for (const char *line = text + 2; *line != '\0'; line = strchr(line, '\n') + 1) {
        unsigned long start, end, offset, inode;
        char perms[8], device[16];
        path[0] = '\0';
        assert_non_null(strchr(line, '\n'));
        assert_true(sscanf(line, "%lx-%lx %7s %lx %15s %lu %4095s", &start, &end, perms, &offset, device,
                           &inode, path) >= 6);
        assert_true(start < end);
        assert_int_equal(perms[2], 'x');
        if (start <= (unsigned long)&generation_check && (unsigned long)&generation_check < end) {
            found++;
            assert_string_equal(path, self);
        }
    }
    return found;
}

static void test_publish(void **state)
{
    (void)state;
    errno = 1234;
    stile__maps_publish(region);
    assert_int_equal(errno, 1234);
    uint32_t len = atomic_load(&region->modules_len);
    char *text = strndup(stile__region_modules(region), len);
    assert_int_equal(strlen(text), len);
    assert_int_equal(generation_check(text), 1);

    /* The next generation stands behind it, and leaves it as it is. */
    stile__maps_publish(region);
    uint32_t both = atomic_load(&region->modules_len);
    assert_true(both > len);
    assert_memory_equal(stile__region_modules(region), text, len);
    free(text);
    text = strndup(stile__region_modules(region) + len, both - len);
    assert_int_equal(generation_check(text), 1);
    free(text);
}

static void test_full_text_stays(void **state)
{
    static const uint32_t lengths[] = {STILE__MODULES_BYTES - 1, STILE__MODULES_BYTES - 60,
                                       STILE__MODULES_BYTES, STILE__MODULES_BYTES + 1, UINT32_MAX};
    (void)state;
    uint8_t *behind = (uint8_t *)stile__region_modules(region) + STILE__MODULES_BYTES;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        atomic_store(&region->modules_len, lengths[i]);
        stile__maps_publish(region);
        assert_int_equal(atomic_load(&region->modules_len), lengths[i]);
        for (int k = 0; k < 4096; k++)
            assert_int_equal(behind[k], 0);
    }
}

/* Whether the list has a mapping with this address. */
static bool list_has(const void *address)
{
    struct stile__bounds *bounds;
    size_t bytes;
    bool found = false;
    uint32_t n = stile__maps_stacks(&bounds, &bytes);
    if (n == 0)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        found = found || (bounds[i].lo <= (uintptr_t)address && (uintptr_t)address < bounds[i].hi);
        if (bounds[i].lo >= bounds[i].hi || (i > 0 && bounds[i].lo < bounds[i - 1].hi))
            return false; /* not ascending */
    }
    return munmap(bounds, bytes) == 0 && found;
}

static void *list_has_my_stack(void *unused)
{
    int local;
    (void)unused;
    return list_has(&local) ? &region : NULL;
}

static void test_stacks(void **state)
{
    pthread_t thread;
    void *found = NULL;
    (void)state;
    assert_non_null(list_has_my_stack(NULL));
    assert_int_equal(pthread_create(&thread, NULL, list_has_my_stack, NULL), 0);
    pthread_join(thread, &found);
    assert_non_null(found);
    assert_false(list_has((const void *)(uintptr_t)&list_has)); /* code is no stack */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_publish, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_text_stays, set_up, tear_down),
        cmocka_unit_test(test_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
