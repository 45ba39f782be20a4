/* agent/hooks_dl.c: what the region says of unloading, before, during and after dlclose. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/agent/region_make.h"
#include "profiler/agent/session.h"

static struct stile__session made, other; /* stand in for the page that the agent makes */
static struct stile__region *region, *other_region;
static uint32_t inside; /* the word as it was in a destructor */
static void *nested;
static pid_t child; /* -1: nobody has forked */

static struct stile__region *session_make(struct stile__session *s)
{
    static uint64_t sessions;
    struct stile__region *r;
    int fd;
    assert_int_equal(stile__region_make(&r, &fd, 100, false, false), 0);
    close(fd);
    memset(s, 0, sizeof *s);
    stile__session_size_set(s, r->size);
    s->pid = getpid();
    r->start_mono_ns = ++sessions;
    atomic_store(&s->region, r);
    atomic_store(&r->unloads, 3 * STILE__UNLOADS_ONE);
    return r;
}

static int set_up(void **state)
{
    (void)state;
    region = session_make(&made);
    other_region = session_make(&other);
    stile__session = &made;
    inside = UINT32_MAX;
    child = -1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STILE__SHARDS; i++) {
        assert_int_equal(atomic_load(&made.shards[i].inside), 0);
        assert_int_equal(atomic_load(&other.shards[i].inside), 0);
    }
    stile__session = NULL;
    stile__region_unmake(region);
    stile__region_unmake(other_region);
    return 0;
}

/* Loads one of the two plugins. */
static void *load(const char *setting, void (*end)(void))
{
    void *handle = dlopen(test_setting(setting), RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        fail_msg("%s", dlerror());
    void (**at)(void) = dlsym(handle, "plugin_end");
    assert_non_null(at);
    *at = end;
    return handle;
}

static bool loaded(const char *setting)
{
    void *handle = dlopen(test_setting(setting), RTLD_NOW | RTLD_NOLOAD);
    if (handle != NULL)
        dlclose(handle);
    return handle != NULL;
}

static uint32_t word(void)
{
    return atomic_load(&region->unloads);
}

static void look(void)
{
    inside = word();
}

static void test_one_that_goes(void **state)
{
    void *handle = load("STILE_TEST_PLUGIN_A", look);
    (void)state;
    assert_int_equal(word(), 3 * STILE__UNLOADS_ONE); /* a load is nothing */
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(inside, 3 * STILE__UNLOADS_ONE + 1);
    assert_int_equal(word(), 4 * STILE__UNLOADS_ONE);
    assert_false(loaded("STILE_TEST_PLUGIN_A"));
}

static void test_one_that_stays(void **state)
{
    void *handle = load("STILE_TEST_PLUGIN_A", look), *self = dlopen(NULL, RTLD_NOW);
    (void)state;
    assert_ptr_equal(dlopen(test_setting("STILE_TEST_PLUGIN_A"), RTLD_NOW), handle);
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(word(), 3 * STILE__UNLOADS_ONE);
    assert_int_equal(dlclose(self), 0);
    assert_int_equal(word(), 3 * STILE__UNLOADS_ONE);
    assert_int_equal(inside, UINT32_MAX);
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(word(), 4 * STILE__UNLOADS_ONE);
}

static void close_nested(void)
{
    look();
    dlclose(nested);
    assert_int_equal(word() % STILE__UNLOADS_ONE, 1); /* we still are */
}

static void test_in_a_destructor(void **state)
{
    nested = load("STILE_TEST_PLUGIN_B", look);
    void *handle = load("STILE_TEST_PLUGIN_A", close_nested);
    (void)state;
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(word() % STILE__UNLOADS_ONE, 0);
    assert_true(word() > 3 * STILE__UNLOADS_ONE);
    assert_int_not_equal(inside % STILE__UNLOADS_ONE, 0);
    assert_false(loaded("STILE_TEST_PLUGIN_A"));
    assert_false(loaded("STILE_TEST_PLUGIN_B"));
}

static void test_no_session(void **state)
{
    (void)state;
    stile__session = NULL;
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", look)), 0);
    stile__session = &made;
    atomic_store(&made.region, NULL);
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", look)), 0);
    assert_int_equal(inside, 3 * STILE__UNLOADS_ONE);
    assert_int_equal(word(), 3 * STILE__UNLOADS_ONE);
    /* One of another process: a child of a bare vfork runs in our memory. */
    atomic_store(&made.region, region);
    made.pid++;
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", look)), 0);
    assert_int_equal(inside, 3 * STILE__UNLOADS_ONE);
    assert_int_equal(word(), 3 * STILE__UNLOADS_ONE);
}

static void session_ends(void)
{
    stile__session = NULL;
}

static void session_begins(void)
{
    stile__session = &made;
}

static void session_changes(void)
{
    atomic_fetch_add(&other_region->unloads, 1); /* where somebody else is in dlclose */
    stile__session = &other;
}

/* Who was not told of the beginning is not told of the end, but of the unload: some of it is still to come. */
static void test_another_session(void **state)
{
    (void)state;
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", session_ends)), 0);
    stile__session = NULL;
    uint32_t now = word();
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", session_begins)), 0);
    assert_int_equal(word(), now + STILE__UNLOADS_ONE);
    assert_int_equal(dlclose(load("STILE_TEST_PLUGIN_A", session_changes)), 0);
    assert_int_equal(atomic_load(&other_region->unloads), 4 * STILE__UNLOADS_ONE + 1);
}

/* The child of a fork has a region of its own, in which nobody was in dlclose. */
static void fork_here(void)
{
    look();
    child = fork();
    if (child == 0) {
        other_region = session_make(&other);
        stile__session = &other;
    }
}

static void test_a_fork_in_a_destructor(void **state)
{
    int status;
    (void)state;
    void *handle = load("STILE_TEST_PLUGIN_A", fork_here);
    int err = dlclose(handle);
    if (child == 0)
        _exit(err == 0 && atomic_load(&other_region->unloads) == 4 * STILE__UNLOADS_ONE ? 0 : 1);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(err, 0);
    assert_int_equal(inside, 3 * STILE__UNLOADS_ONE + 1);
    assert_int_equal(word(), 4 * STILE__UNLOADS_ONE);
}

static void fork_without_more(void)
{
    child = fork();
}

/* Nor has it one, before it has begun its own. */
static void test_a_bare_fork_in_a_destructor(void **state)
{
    int status;
    (void)state;
    int err = dlclose(load("STILE_TEST_PLUGIN_A", fork_without_more));
    if (child == 0)
        _exit(err == 0 ? 0 : 1);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(word(), 4 * STILE__UNLOADS_ONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_that_goes),
        TEST(test_one_that_stays),
        TEST(test_in_a_destructor),
        TEST(test_no_session),
        TEST(test_another_session),
        TEST(test_a_fork_in_a_destructor),
        TEST(test_a_bare_fork_in_a_destructor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
