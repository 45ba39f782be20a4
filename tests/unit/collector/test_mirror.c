/* collector/mirror.c: a thread's last stack, and its nodes in whatever tree there is. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/collector/mirror.h"

static struct mirror m;
static struct call_tree t;

static int set_up(void **state)
{
    (void)state;
    return call_tree_init(&t);
}

static int tear_down(void **state)
{
    (void)state;
    mirror_free(&m);
    call_tree_free(&t);
    return m.frames != NULL || m.n != 0;
}

/* Frames that count up from the one that the first `kept` end with. */
static void push(size_t kept, uint64_t first, size_t n)
{
    assert_true(mirror_cut(&m, kept, n));
    for (size_t i = 0; i < n; i++)
        mirror_push(&m, first + i, (uint32_t)(first + i) % 3);
}

/* Whether a node's path is this one, from the root. */
static void expect_path(uint32_t node, const uint64_t *addresses, size_t n)
{
    for (size_t i = n; i-- > 0; node = t.nodes[node].parent) {
        assert_int_not_equal(node, CALL_TREE_ROOT);
        assert_int_equal(t.nodes[node].address, addresses[i]);
        assert_int_equal(t.nodes[node].mapping, addresses[i] % 3);
    }
    assert_int_equal(node, CALL_TREE_ROOT);
}

static void test_grows_and_is_cut(void **state)
{
    const uint64_t first[] = {1, 2, 3, 4, 5}, second[] = {1, 2, 3, 100, 101};
    (void)state;
    assert_int_equal(mirror_node(&m, &t, 0, 0), CALL_TREE_ROOT);
    push(0, 1, 5);
    uint32_t third = mirror_node(&m, &t, 0, 3), leaf = mirror_node(&m, &t, 0, 5);
    expect_path(leaf, first, 5);
    push(3, 100, 2);
    assert_int_equal(m.n, 5);
    assert_int_equal(mirror_node(&m, &t, 0, 3), third);
    expect_path(mirror_node(&m, &t, 0, 5), second, 5);
    push(0, 1, 5);
    assert_int_equal(mirror_node(&m, &t, 0, 5), leaf);
    push(0, 0, 0);
    assert_int_equal(m.n, 0);
    assert_int_equal(mirror_node(&m, &t, 0, 0), CALL_TREE_ROOT);
}

static void test_large(void **state)
{
    (void)state;
    for (size_t n = 0; n < 100000; n += 1000)
        push(n, n, 1000);
    assert_int_equal(m.n, 100000);
    for (size_t i = 0; i < m.n; i++)
        assert_int_equal(m.frames[i].address, i);
    mirror_node(&m, &t, 0, m.n);
    assert_int_equal(t.n_nodes, 100001);
}

/* Only what is new is looked up in the tree: a sample of a deep stack costs what is new on it. */
static void test_costs_what_is_new(void **state)
{
    (void)state;
    push(0, 0, 100000);
    mirror_node(&m, &t, 0, m.n);
    const uint64_t rounds = UNDER_SANITIZER ? 20000 : 200000;
    uint64_t start = thread_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        push(99999, 100000 + i % 7, 1);
        mirror_node(&m, &t, 0, m.n);
    }
    assert_true(thread_cpu_ns() - start < 5000000000); /* a million times less than by depth */
    assert_int_equal(t.n_nodes, 100001 + 7);
}

/* A new tree has none of the nodes; numbers of the old one would be others' there. */
static void test_another_tree(void **state)
{
    const uint64_t stack[] = {10, 11, 12, 13};
    (void)state;
    push(0, 10, 4);
    mirror_node(&m, &t, 0, 4);
    call_tree_free(&t);
    assert_int_equal(call_tree_init(&t), 0);
    call_tree_child(&t, CALL_TREE_ROOT, 1, 42); /* not everything is where it was */
    expect_path(mirror_node(&m, &t, 1, 2), stack, 2);
    assert_int_equal(t.n_nodes, 4); /* no more than is asked for */
    expect_path(mirror_node(&m, &t, 1, 4), stack, 4);
}

static void test_below_another_node(void **state)
{
    const uint64_t stack[] = {2, 11, 12};
    (void)state;
    push(0, 10, 4);
    mirror_node(&m, &t, 0, 4);
    uint32_t node = call_tree_child(&t, CALL_TREE_ROOT, 2, 2);
    expect_path(mirror_below(&m, &t, node, 1, 3), stack, 3);
    assert_int_equal(mirror_below(&m, &t, node, 3, 3), node);
    expect_path(mirror_node(&m, &t, 0, 1), (const uint64_t[]){10}, 1); /* it is whole all the same */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_grows_and_is_cut),   TEST(test_large),
        TEST(test_costs_what_is_new),  TEST(test_another_tree),
        TEST(test_below_another_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
