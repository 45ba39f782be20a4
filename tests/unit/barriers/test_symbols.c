/* Symbols looked up by hand, against what the loader finds. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "barriers/unwind/symbols.h"

static struct link_map *map_of(const char *name)
{
    struct link_map *map = NULL;
    void *handle = dlopen(name, RTLD_NOW);
    if (handle == NULL)
        fail_msg("%s", dlerror());
    assert_int_equal(dlinfo(handle, RTLD_DI_LINKMAP, (void *)&map), 0);
    return map;
}

/* Of the default version where there are several: each of the second line has an older one. */
static void test_as_the_loader_finds_them(void **state)
{
    static const char *const names[] = {"dlsym",          "dlopen",      "dlvsym",
                                        "getcontext",     "setjmp",      "vfork",
                                        "__sigsetjmp",    "posix_spawn", "pthread_cond_wait",
                                        "realpath",       "fopen",       "regexec",
                                        "sem_init",       "nftw",        "glob",
                                        "pthread_create", "qsort",       "write",
                                        "_exit",          "strtol"};
    struct link_map *libc = map_of("libc.so.6");
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *found = dlsym(libc, names[i]);
        if (found == NULL || (void *)stile__symbol_of(libc, names[i]) != found)
            fail_msg("%s: %#lx, and the loader: %p", names[i], stile__symbol_of(libc, names[i]), found);
    }
}

static void test_what_is_no_function_there(void **state)
{
    static const char *const names[] = {"environ", "nothing", "", "errno", "_dl_catch_exceptio", "mainn"};
    struct link_map *libc = map_of("libc.so.6");
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(stile__symbol_of(libc, names[i]), 0);
    assert_int_equal(stile__symbol_of(map_of(test_setting("STILE_TEST_SYSV")), "dlclose"),
                     0); /* needed, not defined */
}

static void test_both_kinds_of_tables(void **state)
{
    static const char *const kinds[] = {"STILE_TEST_SYSV", "STILE_TEST_GNU"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct link_map *map = map_of(test_setting(kinds[i]));
        bool has[2] = {false, false};
        for (const Elf64_Dyn *d = map->l_ld; d->d_tag != DT_NULL; d++) {
            has[0] |= d->d_tag == DT_HASH;
            has[1] |= d->d_tag == DT_GNU_HASH;
        }
        assert_true(has[i] && !has[1 - i]);
        void *found = dlsym(map, "plugin_function");
        assert_non_null(found);
        assert_ptr_equal((void *)stile__symbol_of(map, "plugin_function"), found);
        assert_int_equal(stile__symbol_of(map, "plugin_functio"), 0);
    }
}

/* Modules of all kinds: the kernel's is not relocated. */
static void test_all_modules(void **state)
{
    unsigned n = 0;
    struct link_map *map = map_of(NULL);
    (void)state;
    for (; map != NULL; map = map->l_next, n++)
        assert_int_equal(stile__symbol_of(map, "no_function_has_this_name"), 0);
    assert_true(n >= 4);
}

static void test_next(void **state)
{
    (void)state;
    dlsym(RTLD_DEFAULT, "no_function_has_this_name");
    void *getcontext_next = (void *)stile__symbol_next("getcontext");
    uintptr_t none = stile__symbol_next("no_other_function_has_this_name");
    const char *error = dlerror();
    assert_non_null(error);
    assert_non_null(strstr(error, "no_function_has_this_name"));
    assert_ptr_equal(getcontext_next, dlsym(RTLD_NEXT, "getcontext"));
    assert_int_equal(none, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_the_loader_finds_them),
        cmocka_unit_test(test_what_is_no_function_there),
        cmocka_unit_test(test_both_kinds_of_tables),
        cmocka_unit_test(test_all_modules),
        cmocka_unit_test(test_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
