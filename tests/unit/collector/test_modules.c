/* collector/modules.c: which file was mapped where, and when. */
#include "tests/unit/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "profiler/collector/modules.h"

#define A "00400000-00402000 r-xp 00001000 00:00 11 /nonexistent/a\n"
#define B "00400000-00402000 r-xp 00001000 00:00 12 /nonexistent/b\n"
#define D "00500000-00501000 r-xp 00000000 00:00 14 /nonexistent/d\n"
#define C "00500000-00501000 r-xp 00000000 00:00 13 /nonexistent/c c\n"

static struct mapping_table t;

static int set_up(void **state)
{
    (void)state;
    mappings_init(&t, getpid());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mappings_free(&t);
    return 0;
}

static void update(const char *text)
{
    assert_int_equal(mappings_update(&t, text, strlen(text), 0), 0);
}

static void finds(uint64_t address, const char *path)
{
    uint32_t i = mappings_find(&t, address);
    if (path == NULL) {
        assert_int_equal(i, MAPPING_NONE);
        return;
    }
    assert_true(i < t.n_all);
    assert_string_equal(t.all[i].path, path);
}

static void test_ranges(void **state)
{
    (void)state;
    finds(0x400000, NULL);
    update(A C);
    finds(0x3fffff, NULL);
    finds(0x400000, "/nonexistent/a");
    finds(0x401fff, "/nonexistent/a");
    finds(0x402000, NULL);
    finds(0x500000, "/nonexistent/c c");
    finds(0x501000, NULL);
    finds(UINT64_MAX, NULL);
    assert_null(t.all[0].module);
    assert_int_equal(t.all[0].offset, 0x1000);
    assert_int_equal(t.all[0].bias, 0x400000 - 0x1000); /* without a file, offsets are addresses */
}

static void test_another_file_at_the_same_address(void **state)
{
    (void)state;
    update(A C);
    uint32_t a = mappings_find(&t, 0x400000);
    assert_int_equal(t.now.generation, 0);
    update(A C);
    assert_int_equal(t.n_all, 2);
    assert_int_equal(t.now.generation, 0);
    update(B C);
    assert_int_equal(t.now.generation, 1);
    finds(0x400000, "/nonexistent/b");
    assert_string_equal(t.all[a].path, "/nonexistent/a"); /* what was sampled keeps its name */
    assert_int_equal(mappings_find_ever(&t, 0x400000), mappings_find(&t, 0x400000));
    update(A C);
    assert_int_equal(t.now.generation, 2);
    finds(0x400000, "/nonexistent/a");
}

static void test_gone_and_back(void **state)
{
    (void)state;
    update(A);
    update(A C);
    assert_int_equal(t.now.generation, 0); /* nothing was taken away */
    uint32_t c = mappings_find(&t, 0x500000);
    update(A);
    assert_int_equal(t.now.generation, 1);
    finds(0x500000, NULL);
    assert_int_equal(mappings_find_ever(&t, 0x500000), c);
    update(A C);
    assert_int_equal(t.now.generation, 1);
    finds(0x500000, "/nonexistent/c c");
    update(""); /* the image is gone: what was known stays */
    finds(0x500000, "/nonexistent/c c");
    assert_int_equal(t.now.generation, 1);
    assert_int_equal(mappings_find_ever(&t, 0x600000), MAPPING_NONE);
}

static void test_odd_lines(void **state)
{
    static char text[8192];
    char *at = text;
    (void)state;
    at += sprintf(at, "\n\nnonsense\n-\n400000-\n1-2-3 r-xp 0 0:0 0\n");
    at += sprintf(at, "00100000-00101000 r--p 00000000 00:00 1 /data\n");
    at += sprintf(at, "00200000-00200000 r-xp 00000000 00:00 1 /empty\n");
    at += sprintf(at, "00300000-00200000 r-xp 00000000 00:00 1 /backwards\n");
    at += sprintf(at, "00300000-00301000 r-xp 00000000 00:00 0\n");
    at += sprintf(at, "00400000-00402000 r-xp 00001000 00:00 11 /nonexistent/a (deleted)\n");
    at += sprintf(at, "00600000-00601000 r-xp 00000000 00:00 14 /nonexistent/");
    memset(at, 'x', 1000);
    at += 1000;
    sprintf(at, "\n00700000-00701000 r-xp 00000000 00:00 15 /nonexistent/last");
    update(text);
    assert_int_equal(t.n_all, 4);
    finds(0x100000, NULL);
    finds(0x300000, "");
    finds(0x401000, "/nonexistent/a");
    assert_int_equal(strlen(t.all[mappings_find(&t, 0x600000)].path), 13 + 1000);
    finds(0x700000, "/nonexistent/last");
}

/* A library that came after the look at the maps and went before the next was never seen: others that lay at its address
 * are not taken for it. */
static void test_never_seen(void **state)
{
    (void)state;
    assert_int_equal(mappings_update(&t, A C, sizeof A C - 1, 0), 0);
    assert_int_equal(mappings_update(&t, A, sizeof A - 1, 1), 0);
    assert_int_equal(mappings_find_ever(&t, 0x500000), 1); /* now: it has just gone */
    assert_int_equal(mappings_update(&t, A C, sizeof A C - 1, 2), 0);
    assert_true(mappings_view(&t, 1));
    assert_int_equal(mappings_find_ever(&t, 0x400000), 0);
    assert_int_equal(mappings_find_ever(&t, 0x500000), 2); /* nothing else ever was there */
    assert_int_equal(mappings_update(&t, A D, sizeof A D - 1, 3), 0);
    assert_true(mappings_view(&t, 1));
    assert_int_equal(mappings_find_ever(&t, 0x500000), MAPPING_NONE);
}

static unsigned refreshes;

static void refresh(void *table)
{
    refreshes++;
    assert_ptr_equal(table, &t);
    update(A C);
}

static void test_looks_again(void **state)
{
    (void)state;
    update(A);
    t.refresh = refresh;
    t.refresh_arg = &t;
    refreshes = 0;
    assert_int_equal(mappings_find_ever(&t, 0x400000), 0);
    assert_int_equal(refreshes, 0);
    assert_int_equal(mappings_find_ever(&t, 0x500000), 1);
    assert_int_equal(refreshes, 1);
}

static void test_this_program(void **state)
{
    static const uint64_t constant[2] = {0x1122334455667788ull, 0x99aabbccddeeff00ull};
    char self[4096] = "";
    uint64_t word;

    (void)state;
    char *maps = file_text("/proc/self/maps");
    update(maps);
    free(maps);
    assert_non_null(realpath("/proc/self/exe", self));
    uint64_t code = (uintptr_t)&test_this_program;
    finds(code, self);
    uint32_t i = mappings_find(&t, code);
    const struct mapping *m = &t.all[i];
    assert_non_null(m->module);
    assert_true(m->module->elf.table_entries > 10);
    assert_true(m->image_start <= m->start && m->end <= m->image_end + 4096);
    assert_true(mappings_read_word(&t, i, code, &word));
    assert_memory_equal(&word, (void *)(uintptr_t)code, sizeof word);
    assert_true(mappings_read_word(&t, MAPPING_NONE, (uintptr_t)constant, &word));
    assert_int_equal(word, constant[0]);
    assert_false(mappings_read_word(&t, i, 0x10, &word));

    uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
    finds(vdso, "[vdso]");
    const struct mapping *v = &t.all[mappings_find(&t, vdso)];
    assert_non_null(v->module);
    assert_int_equal(v->bias, vdso);
    assert_true(v->module->elf.table_entries > 0);

    /* The same file in another table is the same module. */
    struct mapping_table other;
    mappings_init(&other, getpid());
    maps = file_text("/proc/self/maps");
    assert_int_equal(mappings_update(&other, maps, strlen(maps), 0), 0);
    free(maps);
    assert_ptr_equal(other.all[mappings_find(&other, code)].module, m->module);
    mappings_free(&other);
}

static void test_damaged_texts(void **state)
{
    uint64_t numbers = 5;
    char *maps = file_text("/proc/self/maps");
    size_t n = strlen(maps);

    (void)state;
    for (unsigned round = 0; round < (UNDER_SANITIZER ? 200u : 1000u); round++) {
        char *damaged = malloc(n);
        assert_non_null(damaged);
        memcpy(damaged, maps, n);
        size_t length = next_number(&numbers) % (n + 1);
        for (unsigned k = 0; k < 20; k++)
            damaged[next_number(&numbers) % n] = "0f-x \n/\xff"[next_number(&numbers) % 8];
        assert_int_equal(mappings_update(&t, damaged, length, 0), 0);
        free(damaged);
        for (unsigned k = 0; k < 20; k++) {
            uint64_t address =
                (uintptr_t)&test_damaged_texts ^ next_number(&numbers) >> (next_number(&numbers) % 64);
            uint32_t i = mappings_find_ever(&t, address);
            assert_true(i == MAPPING_NONE || i < t.n_all);
            assert_true(i == MAPPING_NONE || (t.all[i].start <= address && address < t.all[i].end));
        }
    }
    free(maps);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ranges),        TEST(test_another_file_at_the_same_address),
        TEST(test_gone_and_back), TEST(test_odd_lines),
        TEST(test_looks_again),   TEST(test_this_program),
        TEST(test_damaged_texts), TEST(test_never_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
