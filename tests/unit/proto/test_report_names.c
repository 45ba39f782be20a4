/* proto/report_names.c and report_modules.c: names go by build ids, and no text does harm. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/region/report.h"
#include "proto/report_modules.h"
#include "proto/report_names.h"

#define FIXTURE(name) STILE_FIXTURES "/fixture_" name ".so"
#define BASE          0x7f0000000000ull

static struct {
    char text[1 << 20];
    size_t n, most; /* most: of bytes that are taken */
    unsigned opened;
    const char *instead; /* is opened whatever the path is, or NULL */
} out;

static bool out_write(void *arg, const char *bytes, size_t n)
{
    assert_ptr_equal(arg, &out);
    assert_true(n > 0);
    if (out.n + n >= (out.most ? out.most : sizeof(out.text)))
        return false;
    memcpy(out.text + out.n, bytes, n);
    out.n += n;
    out.text[out.n] = '\0';
    return true;
}

static int file_open(void *arg, const char *path, unsigned way)
{
    (void)arg;
    assert_true(way < 2);
    out.opened++;
    return way == 0 ? -1 : open(out.instead ? out.instead : path, O_RDONLY | O_CLOEXEC);
}

static const char *jit_name(void *arg, uint64_t pc)
{
    (void)arg;
    return pc == 0x1234 ? "compiled here" : NULL;
}

static const struct stile__report_way way = {
    .open = file_open, .ways = 2, .name = jit_name, .write = out_write, .arg = &out};

static struct stile__report_names *fresh(const char *debug_root)
{
    struct stile__report_names *r = stile__report_names_new(&way, debug_root);

    assert_non_null(r);
    memset(&out, 0, sizeof(out));
    return r;
}

static char *annotated(const char *text, size_t n, const char *debug_root, const char *instead)
{
    struct stile__report_names *r = fresh(debug_root);

    out.instead = instead;
    assert_int_equal(stile__report_annotate(r, text, n), 0);
    stile__report_names_free(r);
    return out.text;
}

static const char *command_line(const char *format, const char *path)
{
    static char word[4][128];
    static unsigned turn;
    char command[1024], *w = word[turn++ % 4], *text;

    snprintf(command, sizeof(command), format, path);
    text = command_output(command);
    snprintf(w, sizeof(word[0]), "%.*s", (int)strcspn(text, "\n"), text);
    free(text);
    return w;
}

static const char *build_id(const char *path)
{
    return command_line("readelf -n %s | sed -n 's/.*Build ID: //p'", path);
}

static uint64_t address(const char *path, const char *symbol)
{
    char format[256];

    snprintf(format, sizeof(format), "readelf -sW %%s | awk '$8 == \"%s\" { print $2; exit }'", symbol);
    return strtoull(command_line(format, path), NULL, 16);
}

/* The address of `outer` at which two functions are inlined; found by another tool. */
static uint64_t inlined_address(const char *path)
{
    uint64_t outer = address(path, "outer"), at;

    assert_true(outer != 0);
    for (at = outer; at < outer + 34; at++) {
        char command[1024], *text;
        bool here;
        snprintf(command, sizeof(command), "addr2line -i -e %s 0x%llx", path, (unsigned long long)at);
        text = command_output(command);
        here = (strstr(text, ".c:102\n") || strstr(text, ".c:103\n")) && strstr(text, ":203\n") &&
               strstr(text, ":303");
        free(text);
        if (here)
            break;
    }
    assert_true(at < outer + 34);
    return at;
}

static void report_make(char *to, size_t size, const char *path, const char *id, uint64_t at)
{
    snprintf(to, size,
             "before\n" STILE__REPORT_BEGIN "7 (x): SIGSEGV (SEGV_MAPERR) at 0x0\n"
             "exception: St13runtime_error: it is: so\nthread 7 \"x\" waiting (read):\n  #0 0x1234\n"
             "thread 8 \"y\" crashed:\n  #0 0x%llx %s+0x%llx (outer+0x1)\n  #1 0x99 nothing+0x99\n"
             "  (the stack could not be read further)\n"
             "modules:\n  0x%llx-0x%llx 0x%llx %s %s\n" STILE__REPORT_END,
             BASE + (unsigned long long)at, path, (unsigned long long)at, BASE, BASE + 0x100000, BASE, id,
             path);
}

static void test_annotated(void **state)
{
    char text[4096], want[1024];
    const char *path = FIXTURE("inline"), *got;
    uint64_t at = inlined_address(path);

    (void)state;
    report_make(text, sizeof(text), path, build_id(path), at);
    got = annotated(text, strlen(text), NULL, NULL);
    snprintf(want, sizeof(want), "  #0 0x%llx inner at ", BASE + (unsigned long long)at);
    assert_non_null(strstr(got, want));
    assert_non_null(strstr(got, "inline_fixture.c:10"));
    assert_non_null(strstr(got, "inline_fixture.c:203 (inlined)\n"));
    snprintf(want, sizeof(want), "inline_fixture.c:303 (%s+0x%llx)\n", path, (unsigned long long)at);
    assert_non_null(strstr(got, want));
    assert_non_null(strstr(got, "before\n" STILE__REPORT_BEGIN));
    assert_non_null(strstr(got, "exception: std::runtime_error: it is: so\n"));
    assert_non_null(strstr(got, "  #0 0x1234 compiled here\n"));
    assert_non_null(strstr(got, "  #1 0x99 nothing+0x99\n"));
    assert_non_null(strstr(got, "  (the stack could not be read further)\nmodules:\n  0x7f0000000000-"));
    assert_null(strstr(got, "another build"));
    snprintf(text, sizeof(text), "%s", got); /* what has names is left as it is */
    assert_string_equal(annotated(text, strlen(text), NULL, NULL), text);
}

static void test_stacks(void **state)
{
    char text[4096];
    const char *path = FIXTURE("inline");
    struct stile__report_names *r = fresh(NULL);

    (void)state;
    report_make(text, sizeof(text), path, build_id(path), inlined_address(path));
    assert_int_equal(stile__report_stacks(r, text, strlen(text), STILE__REPORT_NAMES, STILE__REPORT_NAMED),
                     0);
    assert_memory_equal(out.text, STILE__REPORT_NAMES "thread 8 \"y\" crashed:\n  #0 ",
                        strlen(STILE__REPORT_NAMES "thread 8 \"y\" crashed:\n  #0 "));
    const char *other = strstr(
        out.text,
        "read further)\nthread 7 \"x\" waiting (read):\n  #0 0x1234 compiled here\n" STILE__REPORT_NAMED);
    assert_non_null(other);
    assert_int_equal(strlen(strstr(other, STILE__REPORT_NAMED)), strlen(STILE__REPORT_NAMED));
    assert_null(strstr(out.text, "modules:"));
    out.n = 0;
    out.most = 200; /* who takes no more is not asked again */
    assert_int_equal(stile__report_stacks(r, text, strlen(text), "", ""), -ECANCELED);
    stile__report_names_free(r);
}

static void test_another_build(void **state)
{
    char text[4096], want[512];
    const char *path = FIXTURE("inline"), *got;

    (void)state;
    report_make(text, sizeof(text), path, build_id(path), inlined_address(path));
    got = annotated(text, strlen(text), NULL, FIXTURE("names"));
    snprintf(want, sizeof(want), "  (%s is another build: its frames have no names)\n", path);
    assert_non_null(strstr(got, want));
    assert_null(strstr(strstr(got, want) + strlen(want), "another build"));
    assert_null(strstr(got, "inline_fixture.c"));
    assert_non_null(strstr(got, "(outer+0x1)\n"));
    assert_int_equal(out.opened, 2);
    /* One that is gone, and has no debug file: no name, and nothing to say. */
    got = annotated(text, strlen(text), STILE_SCRATCH "/nowhere", "/nonexistent");
    assert_string_equal(strstr(got, "thread 8"), strstr(text, "thread 8"));
}

/* The program is gone or stripped: its separate debug file has all that is needed, and so has the program under its id. */
static void test_by_build_id(void **state)
{
    static const struct {
        const char *file, *ending;
    } kinds[] = {{STILE_FIXTURES "/fixture_stripped.kept", ".debug"}, {FIXTURE("inline"), ""}};
    char text[4096], command[4096];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const char *id = build_id(i == 0 ? FIXTURE("stripped") : kinds[i].file),
                   *root = STILE_SCRATCH "/root_ids";
        snprintf(command, sizeof(command),
                 "rm -rf %s; mkdir -p %s/.build-id/%.2s; cp %s %s/.build-id/%.2s/%s%s", root, root, id,
                 kinds[i].file, root, id, id + 2, kinds[i].ending);
        free(command_output(command));
        report_make(text, sizeof(text), "/gone at last (deleted)/x.so", id, inlined_address(kinds[i].file));
        assert_non_null(strstr(annotated(text, strlen(text), root, "/nonexistent"), "inline_fixture.c:10"));
        assert_null(strstr(out.text, "another build"));
        /* Another file under that id is not believed. */
        snprintf(command, sizeof(command), "cp %s %s/.build-id/%.2s/%s%s", FIXTURE("names"), root, id, id + 2,
                 kinds[i].ending);
        free(command_output(command));
        assert_null(strstr(annotated(text, strlen(text), root, "/nonexistent"), "inline_fixture.c"));
    }
}

/* Where code lies elsewhere in memory than in the file: offsets of reports are those of memory. */
static void test_linked_elsewhere(void **state)
{
    char text[4096];
    const char *path = FIXTURE("high");
    uint64_t at = inlined_address(path);

    (void)state;
    assert_true(at >= 0x40000);
    report_make(text, sizeof(text), path, build_id(path), at);
    assert_non_null(strstr(annotated(text, strlen(text), NULL, NULL), "inline_fixture.c:10"));
}

static void test_modules(void **state)
{
    static const char *const bad[] = {
        "",
        "  ",
        "  0x1000-0x2000 0x0 ab",
        "  0x2000-0x1000 0x0 - /x",
        "  0x1000-0x1000 0x0 - /x",
        "  0x11111111111111111-0x2 0x0 - /x",
        "  0x-0x2 0x0 - /x",
        "  0x1-0x2 0x0 abc /x",
        "  0x1-0x2 0x0 zz /x",
        " 0x1-0x2 0x0 - /x",
        "  0x1-0x2  0x0 - /x",
    };
    struct stile__report_modules t = {0};
    const char *good[] = {"  0x3000-0x4000 0x10 - /b c", "  0x1000-0x2000 0x0 ab12 /a"};
    char long_id[512] = "  0x1-0x2 0x0 ";

    (void)state;
    memset(long_id + strlen(long_id), 'a', 2 * STILE__REPORT_ID_MOST + 2);
    strcat(long_id, " /x");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(stile__report_modules_add(&t, bad[i], strlen(bad[i])), 0);
    assert_int_equal(stile__report_modules_add(&t, long_id, strlen(long_id)), 0);
    assert_int_equal(stile__report_modules_add(&t, "  0x1-0x2 0x0 - /a\0b", 20), 0);
    assert_int_equal(t.n, 0);
    assert_null(stile__report_modules_find(&t, 0x1000));
    for (size_t i = 0; i < 2; i++)
        stile__report_modules_add(&t, good[i], strlen(good[i]));
    stile__report_modules_sort(&t);
    assert_int_equal(t.n, 2);
    assert_null(stile__report_modules_find(&t, 0xfff));
    assert_null(stile__report_modules_find(&t, 0x2000));
    assert_string_equal(stile__report_modules_find(&t, 0x1fff)->path, "/a");
    assert_int_equal(stile__report_modules_find(&t, 0x1000)->id_size, 2);
    assert_int_equal(stile__report_modules_find(&t, 0x1000)->id[1], 0x12);
    assert_string_equal(stile__report_modules_find(&t, 0x3000)->path, "/b c");
    assert_int_equal(stile__report_modules_find(&t, 0x3000)->bias, 0x10);
    stile__report_modules_free(&t);
}

/* A report cut anywhere; and one in which anything has become anything else. */
static void test_fuzz(void **state)
{
    static char text[4096], piece[8192];
    const char *path = FIXTURE("inline");
    uint64_t seed = 8;
    size_t n;

    (void)state;
    report_make(text, sizeof(text), path, build_id(path), inlined_address(path));
    n = strlen(text);
    for (size_t cut = 0; cut <= n; cut++) {
        struct stile__report_names *r = fresh(NULL);
        char *exact = malloc(cut + 1); /* so that a sanitizer sees what is read beyond it */
        memcpy(exact, text, cut);
        exact = realloc(exact, cut ? cut : 1);
        assert_int_equal(stile__report_annotate(r, exact, cut), 0);
        out.n = 0;
        assert_int_equal(stile__report_stacks(r, exact, cut, "", ""), 0);
        free(exact);
        stile__report_names_free(r);
    }
    for (unsigned round = 0; round < 1500; round++) {
        struct stile__report_names *r = fresh(NULL);
        size_t m = 0;
        while (m < n) {
            uint32_t what = next_number(&seed) % 64;
            if (what == 0)
                piece[m++] = (char)next_number(&seed);
            else if (what == 1)
                piece[m] = text[next_number(&seed) % n], m++;
            else
                piece[m] = text[m], m++;
        }
        assert_int_equal(stile__report_annotate(r, piece, m), 0);
        out.n = 0;
        assert_int_equal(stile__report_stacks(r, piece, m, "", ""), 0);
        stile__report_names_free(r);
    }
}

/* Time goes with the text: many modules, many frames of one of them. */
static void test_much(void **state)
{
    struct stile__report_names *r = fresh(NULL);
    size_t size = 4u << 20, n = 0;
    char *text = malloc(size + 256);

    (void)state;
    assert_non_null(text);
    n += (size_t)sprintf(text + n, "thread 1 \"x\" crashed:\n");
    for (unsigned i = 0; n < size / 2; i++)
        n += (size_t)sprintf(text + n, "  #%u 0x%x\n", i, i);
    n += (size_t)sprintf(text + n, STILE__REPORT_MODULES);
    for (unsigned i = 0; n < size; i++)
        n += (size_t)sprintf(text + n, "  0x%x-0x%x 0x0 - /nonexistent/%u\n", i * 16, i * 16 + 16, i);
    out.most = 1000;
    assert_int_equal(stile__report_stacks(r, text, n, "", ""), -ECANCELED);
    free(text);
    stile__report_names_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_annotated),     cmocka_unit_test(test_stacks),
        cmocka_unit_test(test_another_build), cmocka_unit_test(test_by_build_id),
        cmocka_unit_test(test_modules),       cmocka_unit_test(test_linked_elsewhere),
        cmocka_unit_test(test_fuzz),          cmocka_unit_test(test_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
