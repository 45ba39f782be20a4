/* collector/names.c: which file each process of a tree writes. Each test is a collector of its own: a forked child,
 * since names are kept for as long as a collector lives. */
#include "tests/unit/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/collector/names.h"

static struct process *process(pid_t pid)
{
    struct process *p = calloc(1, sizeof *p);
    CHILD_CHECK(p != NULL);
    p->pid = pid;
    p->own_pid = pid + 1000; /* in a pid namespace: the program's own view is what it expects to find */
    return p;
}

static void assign(struct process *p, const char *template, const char *path, const char *cwd,
                   struct process *earlier)
{
    struct hello_text text = {.text = {template, path, cwd, "command", "", ""}};
    names_assign(p, &text, earlier);
}

static bool is(const struct process *p, const char *path)
{
    if (strcmp(p->files[FILE_CPU].path, path) != 0)
        fprintf(stderr, "the path is %s\n", p->files[FILE_CPU].path);
    return strcmp(p->files[FILE_CPU].path, path) == 0;
}

static void owner_and_children(void *unused)
{
    struct process *first = process(1), *second = process(2), *third = process(3), *again = process(1);
    (void)unused;
    assign(first, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL);
    CHILD_CHECK(first->files[FILE_CPU].owns && is(first, "/d/x.pb.gz"));
    assign(second, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL);
    CHILD_CHECK(!second->files[FILE_CPU].owns && is(second, "/d/x.1002.pb.gz"));
    assign(third, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL);
    CHILD_CHECK(!third->files[FILE_CPU].owns && is(third, "/d/x.1003.pb.gz"));
    assign(again, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL); /* a second session of the owner */
    CHILD_CHECK(again->files[FILE_CPU].owns && is(again, "/d/x.pb.gz"));
}

static void plain_ending(void *unused)
{
    struct process *first = process(1), *second = process(2);
    (void)unused;
    assign(first, "/d/x.y.pb", "/d/x.y.pb", "/", NULL);
    assign(second, "/d/x.y.pb", "/d/x.y.pb", "/", NULL);
    CHILD_CHECK(is(first, "/d/x.y.pb") && is(second, "/d/x.y.1002.pb"));
}

static void pids_in_the_name(void *unused)
{
    struct process *first = process(1), *second = process(2);
    (void)unused;
    assign(first, "/d/%p.pb", "/d/1001.pb", "/", NULL);
    assign(second, "/d/%p.pb", "/d/1002.pb", "/", NULL);
    CHILD_CHECK(first->files[FILE_CPU].owns && is(first, "/d/1001.pb"));
    CHILD_CHECK(second->files[FILE_CPU].owns && is(second, "/d/1002.pb"));
}

static void relative_paths(void *unused)
{
    struct process *first = process(1), *second = process(2), *other = process(3);
    (void)unused;
    assign(first, "x.pb", "x.pb", "/a/b", NULL);
    CHILD_CHECK(is(first, "/a/b/x.pb"));
    assign(second, "x.pb", "x.pb", "/somewhere/else", NULL); /* inherited, and then it changed directory */
    CHILD_CHECK(is(second, "/a/b/x.1002.pb"));
    assign(other, "y.pb", "y.pb", "/somewhere/else", NULL); /* its own choice */
    CHILD_CHECK(other->files[FILE_CPU].owns && is(other, "/somewhere/else/y.pb"));
}

static bool content(const char *path, const char *expected)
{
    char *text = file_text(path);
    bool same = expected == NULL ? text == NULL : text != NULL && strcmp(text, expected) == 0;
    free(text);
    return same;
}

static void exec_chain(void *unused)
{
    char name[4096], first_name[4096], second_name[4096];
    struct process *first = process(1), *second = process(1), *third = process(1);
    (void)unused;
    snprintf(name, sizeof name, "%s", scratch_path("x.pb"));
    snprintf(first_name, sizeof first_name, "%s", scratch_path("x.1001.1.pb"));
    snprintf(second_name, sizeof second_name, "%s", scratch_path("x.1001.2.pb"));
    assign(first, name, name, "/", NULL);
    first->files[FILE_CPU].wrote = true;
    first->ticks = 5;
    file_write(name, "first", 5);
    assign(second, name, name, "/", first);
    CHILD_CHECK(second->files[FILE_CPU].owns && is(second, name) && second->images == 1);
    CHILD_CHECK(!first->files[FILE_CPU].owns && is(first, first_name));
    CHILD_CHECK(content(first_name, "first") && content(name, NULL));
    /* An image that has not written yet writes under its number. */
    assign(third, name, name, "/", second);
    CHILD_CHECK(third->files[FILE_CPU].owns && is(third, name) && third->images == 2);
    CHILD_CHECK(!second->files[FILE_CPU].owns && is(second, second_name));
    CHILD_CHECK(is(first, first_name) && content(second_name, NULL));
    unlink(first_name);
}

static void exec_of_a_child(void *unused)
{
    struct process *first = process(1), *child = process(2), *image = process(2);
    (void)unused;
    assign(first, "/d/x.pb", "/d/x.pb", "/", NULL);
    assign(child, "/d/x.pb", "/d/x.pb", "/", NULL);
    assign(image, "/d/x.pb", "/d/x.pb", "/", child);
    CHILD_CHECK(!image->files[FILE_CPU].owns && is(image, "/d/x.1002.pb"));
    CHILD_CHECK(!child->files[FILE_CPU].owns && is(child, "/d/x.1002.1.pb"));
    CHILD_CHECK(first->files[FILE_CPU].owns && is(first, "/d/x.pb"));
}

static struct process *numbered(pid_t pid)
{
    struct process *p = process(pid);
    p->numbered = true;
    return p;
}

static void numbers(void *unused)
{
    struct process *first = numbered(1), *child = numbered(2), *plain = process(3);
    (void)unused;
    assign(first, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL);
    CHILD_CHECK(first->files[FILE_CPU].owns && is(first, "/d/x.1.pb.gz"));
    names_next(first);
    CHILD_CHECK(is(first, "/d/x.2.pb.gz"));
    assign(child, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL);
    CHILD_CHECK(!child->files[FILE_CPU].owns && is(child, "/d/x.1002.1.pb.gz"));
    names_next(child);
    CHILD_CHECK(is(child, "/d/x.1002.2.pb.gz"));
    assign(plain, "/d/x.pb.gz", "/d/x.pb.gz", "/", NULL); /* x.1003.pb.gz would be the first one's 1003rd */
    CHILD_CHECK(!plain->files[FILE_CPU].owns && is(plain, "/d/x.1003.0.pb.gz"));
}

static void numbered_images(void *unused)
{
    struct process *first = numbered(1), *second = numbered(1), *third = process(1), *fourth = numbered(1);
    (void)unused;
    assign(first, "/d/x.pb", "/d/x.pb", "/", NULL);
    names_next(first);
    first->files[FILE_CPU].owns = true; /* what is left of it is x.2 */
    assign(second, "/d/x.pb", "/d/x.pb", "/", first);
    CHILD_CHECK(is(first, "/d/x.2.pb") && first->files[FILE_CPU].owns && is(second, "/d/x.3.pb"));
    second->files[FILE_CPU].owns = false; /* it has nothing to write */
    assign(third, "/d/x.pb", "/d/x.pb", "/", second);
    CHILD_CHECK(is(second, "/d/x.3.pb") && is(third, "/d/x.pb") && third->images == 2);
    assign(fourth, "/d/x.pb", "/d/x.pb", "/", third);
    CHILD_CHECK(is(third, "/d/x.1001.3.pb"));
}

/* A child's images and its numbers look the same: none is given twice. */
static void numbered_images_of_a_child(void *unused)
{
    struct process *first = process(1), *plain = process(2), *second = numbered(2), *third = process(2);
    (void)unused;
    assign(first, "/d/x.pb", "/d/x.pb", "/", NULL);
    assign(plain, "/d/x.pb", "/d/x.pb", "/", NULL);
    assign(second, "/d/x.pb", "/d/x.pb", "/", plain);
    CHILD_CHECK(is(plain, "/d/x.1002.1.pb") && is(second, "/d/x.1002.2.pb"));
    second->ticks = 1;
    assign(third, "/d/x.pb", "/d/x.pb", "/", second);
    struct process *fourth = process(2);
    assign(fourth, "/d/x.pb", "/d/x.pb", "/", third);
    CHILD_CHECK(is(second, "/d/x.1002.2.pb") && is(third, "/d/x.1002.3.pb") && is(fourth, "/d/x.1002.pb"));
}

static void assign_both(struct process *p, const char *cpu, const char *block, struct process *earlier)
{
    struct hello_text text = {.text = {cpu, cpu, "/d", "command", block, block}};
    names_assign(p, &text, earlier);
}

static bool block_is(const struct process *p, const char *path)
{
    if (strcmp(p->files[FILE_BLOCK].path, path) != 0)
        fprintf(stderr, "the blocking profile's path is %s\n", p->files[FILE_BLOCK].path);
    return strcmp(p->files[FILE_BLOCK].path, path) == 0;
}

/* A blocking profile has a name by the same rules. */
static void both(void *unused)
{
    struct process *first = process(1), *child = process(2), *image = process(2), *other = numbered(3);
    (void)unused;
    assign_both(first, "x.pb.gz", "b.pb.gz", NULL);
    CHILD_CHECK(is(first, "/d/x.pb.gz") && block_is(first, "/d/b.pb.gz"));
    CHILD_CHECK(first->files[FILE_CPU].owns && first->files[FILE_BLOCK].owns);
    assign_both(child, "x.pb.gz", "b.pb.gz", NULL);
    CHILD_CHECK(is(child, "/d/x.1002.pb.gz") && block_is(child, "/d/b.1002.pb.gz"));
    CHILD_CHECK(!child->files[FILE_CPU].owns && !child->files[FILE_BLOCK].owns);
    assign_both(image, "x.pb.gz", "b.pb.gz", child);
    CHILD_CHECK(is(child, "/d/x.1002.1.pb.gz") && block_is(child, "/d/b.1002.1.pb.gz"));
    CHILD_CHECK(is(image, "/d/x.1002.pb.gz") && block_is(image, "/d/b.1002.pb.gz"));
    assign_both(other, "y.pb.gz", "b.pb.gz", NULL);
    CHILD_CHECK(is(other, "/d/y.1.pb.gz") && block_is(other, "/d/b.1003.1.pb.gz"));
    names_next(other);
    CHILD_CHECK(is(other, "/d/y.2.pb.gz") && block_is(other, "/d/b.1003.2.pb.gz"));
}

/* PROFILE_BLOCK alone, and a descendant that does both. */
static void block_alone(void *unused)
{
    struct process *first = process(1), *image = process(1), *second = process(2), *cut = numbered(3);
    (void)unused;
    assign_both(first, "", "b.pb.gz", NULL);
    CHILD_CHECK(is(first, "") && block_is(first, "/d/b.pb.gz") && !first->files[FILE_CPU].owns);
    assign_both(image, "", "b.pb.gz", first);
    CHILD_CHECK(is(first, "") && block_is(first, "/d/b.1001.1.pb.gz"));
    CHILD_CHECK(is(image, "") && block_is(image, "/d/b.pb.gz") && image->number == 0);
    assign_both(second, "x.pb.gz", "b.pb.gz", NULL);
    CHILD_CHECK(is(second, "/d/x.pb.gz") && second->files[FILE_CPU].owns);
    CHILD_CHECK(block_is(second, "/d/b.1002.pb.gz"));
    assign_both(cut, "", "c.pb", NULL);
    CHILD_CHECK(is(cut, "") && block_is(cut, "/d/c.1.pb"));
}

static void test_names(void **state)
{
    static void (*const tests[])(void *) = {owner_and_children,
                                            plain_ending,
                                            pids_in_the_name,
                                            relative_paths,
                                            exec_chain,
                                            exec_of_a_child,
                                            numbers,
                                            numbered_images,
                                            numbered_images_of_a_child,
                                            both,
                                            block_alone};
    (void)state;
    scratch_make();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        assert_int_equal(in_child(tests[i], NULL), 0);
    scratch_remove();
}

static void test_insert(void **state)
{
    char out[64];
    (void)state;
    names_insert("/d/x.pb.gz", "7", out, sizeof out);
    assert_string_equal(out, "/d/x.7.pb.gz");
    names_insert("x.pb", "7.1", out, sizeof out);
    assert_string_equal(out, "x.7.1.pb");
    char small[8];
    names_insert("/directory/x.pb", "7", small, sizeof small);
    assert_int_equal(strlen(small), 7);
}

static size_t hello_make(struct stile__hello *h, const char *texts, size_t n)
{
    memset(h, 0, sizeof *h);
    h->type = STILE__MESSAGE_HELLO;
    h->version = STILE__REGION_VERSION;
    h->text_len = (uint32_t)n;
    memcpy(h->text, texts, n);
    return offsetof(struct stile__hello, text) + n;
}

static void test_hello(void **state)
{
    static const char good[] = "a\0bc\0\0def\0g\0hi\0jk"; /* and the last NUL */
    static struct stile__hello h;
    struct hello_text t;

    (void)state;
    size_t size = hello_make(&h, good, sizeof good);
    assert_true(hello_parse(&h, size, &t));
    assert_string_equal(t.text[STILE__HELLO_TEMPLATE], "a");
    assert_string_equal(t.text[STILE__HELLO_PATH], "bc");
    assert_string_equal(t.text[STILE__HELLO_CWD], "");
    assert_string_equal(t.text[STILE__HELLO_COMMAND], "def");
    assert_string_equal(t.text[STILE__HELLO_BLOCK_TEMPLATE], "g");
    assert_string_equal(t.text[STILE__HELLO_BLOCK_PATH], "hi");
    assert_string_equal(t.text[STILE__HELLO_CRASH_PATH], "jk");
    for (size_t n = 0; n < size; n++)
        assert_false(hello_parse(&h, n, &t));
    assert_false(hello_parse(&h, size + 1, &t));
    h.version++;
    assert_false(hello_parse(&h, size, &t));
    size = hello_make(&h, good, sizeof good - 1); /* the last text does not end */
    assert_false(hello_parse(&h, size, &t));
    size = hello_make(&h, good, 6); /* too few */
    assert_false(hello_parse(&h, size, &t));
    size = hello_make(&h, good, sizeof good);
    h.text_len = UINT32_MAX;
    assert_false(hello_parse(&h, size, &t));
    h.text_len = sizeof h.text;
    memset(h.text, 'x', sizeof h.text);
    assert_false(hello_parse(&h, sizeof h, &t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_insert),
        cmocka_unit_test(test_hello),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
