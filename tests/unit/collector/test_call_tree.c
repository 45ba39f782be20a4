/* collector/call_tree.c: one node for each path, whatever its size. */
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/collector/call_tree.h"

#define STACKS 100000u
#define DEPTH  24u

struct stack {
    uint32_t depth, mapping[DEPTH];
    uint64_t address[DEPTH];
};

/* Stacks that share their roots, as those of programs do. */
static void stack_random(struct stack *s, uint64_t *numbers)
{
    s->depth = (uint32_t)(next_number(numbers) % (DEPTH + 1));
    for (uint32_t i = 0; i < s->depth; i++) {
        s->mapping[i] = (uint32_t)(next_number(numbers) % 3);
        s->address[i] = 0x400000 + next_number(numbers) % (i < 4 ? 2 : 7) * 16;
    }
}

static uint32_t stack_add(struct call_tree *t, const struct stack *s)
{
    uint32_t node = CALL_TREE_ROOT;
    for (uint32_t i = 0; i < s->depth; i++)
        node = call_tree_child(t, node, s->mapping[i], s->address[i]);
    return node;
}

static bool is_path(const struct call_tree *t, uint32_t node, const struct stack *s)
{
    for (uint32_t i = s->depth; i-- > 0; node = t->nodes[node].parent)
        if (node == CALL_TREE_ROOT || node >= t->n_nodes || t->nodes[node].mapping != s->mapping[i] ||
            t->nodes[node].address != s->address[i])
            return false;
    return node == CALL_TREE_ROOT;
}

static int by_node_and_thread(const void *a, const void *b)
{
    const struct call_sample *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return (x->thread > y->thread) - (x->thread < y->thread);
}

static void samples_check(struct call_tree *t, const uint64_t *ticks_of_thread)
{
    uint64_t ticks[4] = {0};
    qsort(t->samples, t->n_samples, sizeof *t->samples, by_node_and_thread);
    for (uint32_t i = 0; i < t->n_samples; i++) {
        const struct call_sample *s = &t->samples[i];
        assert_true(s->thread < 4 && s->node < t->n_nodes);
        assert_int_equal(s->ns, s->ticks * 10);
        assert_true(i == 0 || by_node_and_thread(s - 1, s) < 0); /* each only once */
        ticks[s->thread] += s->ticks;
    }
    assert_memory_equal(ticks, ticks_of_thread, sizeof ticks);
}

static void test_random_stacks(void **state)
{
    static uint32_t leaf[STACKS];
    struct call_tree t;
    struct stack s;
    uint64_t numbers = 4, ticks[4] = {0};

    (void)state;
    assert_int_equal(call_tree_init(&t), 0);
    for (uint32_t i = 0; i < STACKS; i++) {
        uint32_t thread = (uint32_t)(next_number(&numbers) % 4);
        stack_random(&s, &numbers);
        leaf[i] = stack_add(&t, &s);
        assert_true(is_path(&t, leaf[i], &s));
        assert_int_equal(call_tree_add(&t, leaf[i], thread, 0, i % 5, (uint64_t)(i % 5) * 10), 0);
        ticks[thread] += i % 5;
    }
    assert_true(t.n_nodes > 100000 && t.n_samples > 50000); /* grown many times */
    uint32_t nodes = t.n_nodes;
    numbers = 4;
    for (uint32_t i = 0; i < STACKS; i++) { /* the same paths once more are the same nodes */
        next_number(&numbers);
        stack_random(&s, &numbers);
        assert_int_equal(stack_add(&t, &s), leaf[i]);
        assert_true(is_path(&t, leaf[i], &s));
    }
    assert_int_equal(t.n_nodes, nodes);
    samples_check(&t, ticks);
    call_tree_free(&t);
}

static void test_what_makes_a_node(void **state)
{
    struct call_tree t;
    (void)state;
    assert_int_equal(call_tree_init(&t), 0);
    assert_int_equal(t.n_nodes, 1);
    uint32_t a = call_tree_child(&t, CALL_TREE_ROOT, 1, 0x1000);
    assert_int_not_equal(a, CALL_TREE_ROOT);
    assert_int_equal(call_tree_child(&t, CALL_TREE_ROOT, 1, 0x1000), a);
    assert_int_not_equal(call_tree_child(&t, CALL_TREE_ROOT, 2, 0x1000), a);
    assert_int_not_equal(call_tree_child(&t, CALL_TREE_ROOT, 1, 0x1001), a);
    assert_int_not_equal(call_tree_child(&t, a, 1, 0x1000), a); /* recursion */
    assert_int_not_equal(call_tree_child(&t, CALL_TREE_ROOT, CALL_TREE_REASON, 0x1000), a);
    assert_int_equal(t.n_nodes, 6);
    call_tree_free(&t);
}

static void test_what_makes_a_sample(void **state)
{
    enum { LABELS = 1000, THREADS = 3 };
    struct call_tree t;
    (void)state;
    assert_int_equal(call_tree_init(&t), 0);
    uint32_t node = call_tree_child(&t, CALL_TREE_ROOT, 1, 0x1000);
    for (uint32_t round = 1; round <= 2; round++)
        for (uint32_t i = 0; i < LABELS; i++)
            for (uint32_t thread = 0; thread < THREADS; thread++)
                assert_int_equal(call_tree_add(&t, node, thread, i, round, i), 0);
    assert_int_equal(t.n_samples, LABELS * THREADS);
    for (uint32_t i = 0; i < t.n_samples; i++) {
        assert_int_equal(t.samples[i].ticks, 3);
        assert_int_equal(t.samples[i].ns, 2 * t.samples[i].label);
    }
    call_tree_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_stacks),
        cmocka_unit_test(test_what_makes_a_node),
        cmocka_unit_test(test_what_makes_a_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
