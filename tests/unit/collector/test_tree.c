/* collector/tree.c and tree_ends.c: many processes in one profile. Each test is a collector of its own: a forked child, since
 * there is one tree for as long as a collector lives. */
#include "tests/unit/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/collector/tree.h"

#define MS     1000000ull
#define PERIOD (10 * MS)

static struct module shared = {.elf = {.fd = -1, .n_segments = 1}},
                     other = {.elf = {.fd = -1, .n_segments = 1}};

/* A process that belongs to the tree, of one thread. */
static struct process *process(int32_t pid, const char *comm)
{
    struct process *p = calloc(1, sizeof *p);
    CHILD_CHECK(p != NULL && call_tree_init(&p->tree) == 0 && call_tree_init(&p->waits.tree) == 0);
    p->region = calloc(1, sizeof *p->region);
    p->threads = calloc(1, sizeof *p->threads);
    CHILD_CHECK(p->region != NULL && p->threads != NULL);
    p->pid = p->own_pid = pid;
    p->threads[0].tid = (uint32_t)pid;
    snprintf(p->threads[0].comm, sizeof p->threads[0].comm, "%s", comm);
    p->n_threads = 1;
    p->period_ns = PERIOD;
    p->pidfd = -1;
    p->files[FILE_CPU].in_tree = true;
    snprintf(p->files[FILE_CPU].path, sizeof p->files[FILE_CPU].path, "/d/x.pb");
    tree_join(p);
    return p;
}

static void map(struct process *p, struct module *m, uint64_t start, const char *path)
{
    struct mapping_table *t = &p->mappings;
    struct mapping *more = realloc(t->all, (t->n_all + 1) * sizeof *more);
    CHILD_CHECK(more != NULL);
    t->all = more;
    t->all[t->n_all++] = (struct mapping){.start = start,
                                          .end = start + 0x2000,
                                          .offset = 0x1000,
                                          .path = strdup(path),
                                          .module = m,
                                          .bias = start - 0x1000};
}

/* So much on a stack of one frame, in a mapping of the process. */
static void add(struct process *p, uint32_t mapping, uint64_t address, uint64_t ns)
{
    uint32_t node = call_tree_child(&p->tree, CALL_TREE_ROOT, mapping, address);
    CHILD_CHECK(call_tree_add(&p->tree, node, 0, 0, ns / PERIOD, ns) == 0);
    p->ticks += ns / PERIOD;
    p->cpu_ns += ns;
}

static struct process *tree(void)
{
    return (struct process *)(uintptr_t)tree_process();
}

static uint64_t sum(void)
{
    uint64_t ns = 0;
    for (uint32_t i = 0; i < tree()->tree.n_samples; i++)
        ns += tree()->tree.samples[i].ns;
    CHILD_CHECK(ns == tree()->cpu_ns);
    return ns;
}

/* What a process has in the tree on stacks whose root is `mapping` and `address`. */
static uint64_t of(int32_t pid, uint32_t mapping, uint64_t address)
{
    const struct process *t = tree();
    uint64_t ns = 0;
    for (uint32_t i = 0; i < t->tree.n_samples; i++) {
        const struct call_sample *s = &t->tree.samples[i];
        const struct call_node *n = &t->tree.nodes[s->node];
        if (t->tree_file->members[t->threads[s->thread].member].owner.own_pid == pid &&
            n->mapping == mapping && n->address == address)
            ns += s->ns;
    }
    return ns;
}

static uint64_t end_of(int32_t pid)
{
    return of(pid, CALL_TREE_REASON, STILE__REASON_EXEC_AND_EXIT);
}

static void same_file_at_two_places(void *unused)
{
    (void)unused;
    tree_begin();
    struct process *one = process(1, "one"), *two = process(2, "two");
    map(one, &shared, 0x10000, "/lib/shared.so");
    map(two, &other, 0x10000, "/lib/other.so"); /* where the first one has the file that it has elsewhere */
    map(two, &shared, 0x70000, "/lib/shared.so");
    add(one, 0, 0x10100, 30 * MS);
    add(two, 0, 0x10100, 20 * MS);
    add(two, 1, 0x70100, 40 * MS);
    CHILD_CHECK(tree_fold(one) == 0 && tree_fold(two) == 0);
    const struct mapping_table *m = &tree()->mappings;
    CHILD_CHECK(m->n_all == 2 && strcmp(m->all[0].path, "/lib/shared.so") == 0);
    CHILD_CHECK(m->all[0].start == 0x10000 && m->all[0].moved == 0);
    CHILD_CHECK(m->all[1].start != 0x10000 && m->all[1].end - m->all[1].start == 0x2000);
    /* Who asks the file for a name asks for the same place in it. */
    CHILD_CHECK(m->all[1].bias == m->all[1].start - 0x1000 && m->all[1].moved == m->all[1].start - 0x10000);
    CHILD_CHECK(of(1, 0, 0x10100) == 30 * MS && of(2, 0, 0x10100) == 40 * MS);
    CHILD_CHECK(of(2, 1, m->all[1].start + 0x100) == 20 * MS);
    CHILD_CHECK(tree()->tree.n_nodes == 3 && sum() == 90 * MS && tree()->ticks == 9);
    CHILD_CHECK(shared.users == 1 && other.users == 1);
}

static void code_without_a_file(void *unused)
{
    (void)unused;
    tree_begin();
    struct process *one = process(1, "one"), *two = process(2, "two");
    map(one, NULL, 0x10000, "");
    map(two, NULL, 0x10000, "");
    add(one, 0, 0x10100, 10 * MS);
    add(two, 0, 0x10100, 10 * MS);
    CHILD_CHECK(tree_fold(one) == 0 && tree_fold(two) == 0);
    const struct mapping_table *m = &tree()->mappings;
    CHILD_CHECK(m->n_all == 2 && m->all[0].member == 0 && m->all[1].member == 1);
    CHILD_CHECK(of(2, 1, m->all[1].moved + 0x10100) == 10 * MS);
}

/* What labels cannot tell apart is one thread: no sample stands twice. */
static void images_of_one_name(void *unused)
{
    (void)unused;
    tree_begin();
    struct process *one = process(1, "sh"), *again = process(1, "sh"), *third = process(1, "cc");
    add(one, MAPPING_NONE, 5, 10 * MS);
    add(again, MAPPING_NONE, 5, 20 * MS);
    add(third, MAPPING_NONE, 5, 40 * MS);
    CHILD_CHECK(tree_fold(one) == 0 && tree_fold(again) == 0 && tree_fold(third) == 0);
    CHILD_CHECK(tree()->n_threads == 2 && tree()->tree.n_samples == 2 && tree()->tree_file->n_members == 3);
    CHILD_CHECK(tree()->tree.samples[0].ns == 30 * MS && tree()->tree.samples[1].ns == 40 * MS);
}

static void thousands_of_threads(void *unused)
{
    (void)unused;
    tree_begin();
    for (int32_t pid = 1; pid <= 5000; pid++) {
        struct process *p = process(pid, "x");
        add(p, MAPPING_NONE, 5, 10 * MS);
        CHILD_CHECK(tree_fold(p) == 0);
    }
    CHILD_CHECK(tree()->n_threads == 5000 && sum() == 50000 * MS);
    CHILD_CHECK(of(1, MAPPING_NONE, 5) == 10 * MS && of(5000, MAPPING_NONE, 5) == 10 * MS);
}

/* --- Ends */

/* A process that has used so much by our books, and says what its children have used; told 0: it was killed. */
static void member(int32_t pid, int32_t parent, uint64_t birth, uint64_t end, uint64_t booked, uint64_t told)
{
    struct process *p = process(pid, "x");
    add(p, MAPPING_NONE, 5, booked);
    p->parent_pid = parent;
    p->birth_ns = birth;
    p->end_mono_ns = end;
    atomic_store(&p->region->children_cpu_ns, told);
    CHILD_CHECK(tree_fold(p) == 0);
}

static const struct tree_command no_command;

static void end_of_a_child(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 20, 80, 900 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 903 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(end_of(2) == 3 * MS && end_of(1) == 0 && sum() == 1403 * MS);
    CHILD_CHECK(tree()->reason_ns[STILE__REASON_EXEC_AND_EXIT] == 3 * MS);
}

static void child_without_a_profile(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 20, 80, 100 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 1100 * MS);
    uint64_t room = 5 * MS + 10 * MS + PERIOD; /* that the end of the other one may have cost */
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 1000 * MS - room);
    CHILD_CHECK(of(1, CALL_TREE_UNPROFILED, 0) == 1000 * MS - room && end_of(2) == room &&
                sum() == 1600 * MS);
}

/* Its children's time is in its parent's account, though it did not live to tell of them. */
static void child_that_was_killed(void *unused)
{
    (void)unused;
    tree_begin();
    member(3, 2, 30, 70, 400 * MS, 0);
    member(2, 1, 20, 80, 100 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 502 * MS);
    member(7, 6, 20, 80, 100 * MS, 0);
    member(6, 77, 10, 90, 0, 104 * MS); /* nothing to do with it */
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(end_of(2) == 2 * MS && end_of(7) == 4 * MS && sum() == 1106 * MS);
}

/* Short children's ticks are right on average: what one has too much another one lacks. */
static void chance(void *unused)
{
    (void)unused;
    tree_begin();
    member(3, 2, 30, 70, 20 * MS, 0);
    member(2, 1, 20, 80, 10 * MS, 12 * MS); /* 8 too many */
    member(5, 4, 50, 70, 10 * MS, 0);
    member(4, 1, 40, 80, 10 * MS, 25 * MS); /* 15 too few */
    member(1, 77, 10, 90, 500 * MS, 57 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    uint64_t all = sum();
    CHILD_CHECK(all <= 557 * MS && all > 557 * MS - 10); /* rounded down in each part */
}

static void too_much_by_chance(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 20, 70, 40 * MS, 0);
    member(3, 1, 20, 70, 10 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 30 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(sum() >= 530 * MS && sum() < 530 * MS + 10 && of(1, MAPPING_NONE, 5) == 500 * MS);
}

/* Children that nobody waits for are not in their parent's account, and take nothing from short ones. */
static void children_not_waited_for(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 20, 70, 3000 * MS, 0);
    for (int32_t pid = 3; pid < 20; pid++)
        member(pid, 1, 20, 70, 50 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 850 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(sum() == 4350 * MS && of(3, MAPPING_NONE, 5) == 50 * MS);
}

/* Whose parent has no profile, or is of another namespace, or did not outlive it, is told of by somebody further up. */
static void children_of_others(void *unused)
{
    const struct tree_command c = {.waiter = 77, .used_ns = 2800 * MS};
    (void)unused;
    tree_begin();
    member(2, 55, 20 * MS, 1000 * MS, 1000 * MS, 0);
    member(3, 0, 30 * MS, 1000 * MS, 400 * MS, 0);
    member(5, 1, 25 * MS, 50 * MS, 200 * MS, 0);
    member(4, 5, 40 * MS, 1000 * MS, 300 * MS, 0);
    member(6, 77, 900 * MS, 1000 * MS, 200 * MS, 0);
    member(1, 77, 10 * MS, 2000 * MS, 500 * MS, 2100 * MS); /* 200 of what has no profile */
    uint64_t room = 5 * MS + 20 * MS + PERIOD;
    CHILD_CHECK(tree_ends_book(tree(), &c) == 200 * MS - room);
    CHILD_CHECK(end_of(5) == room && of(1, CALL_TREE_UNPROFILED, 0) == 200 * MS - room);
    CHILD_CHECK(sum() == 2800 * MS);
}

/* The pid was another's before. */
static void pid_used_again(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 12, 15, 100 * MS, 0);
    member(1, 77, 10, 20, 500 * MS, 101 * MS);
    member(3, 1, 32, 35, 100 * MS, 0);
    member(1, 77, 30, 40, 500 * MS, 102 * MS);
    member(4, 1, 50, 60, 50 * MS, 0); /* of one that has no profile */
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(end_of(2) == 1 * MS && end_of(3) == 2 * MS);
}

/* An exec: one process, whatever it was. The last image tells. */
static void images(void *unused)
{
    (void)unused;
    tree_begin();
    member(2, 1, 20, 30, 50 * MS, 0);
    member(2, 1, 20, 80, 50 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 103 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &no_command) == 0);
    CHILD_CHECK(end_of(2) == 3 * MS && sum() == 603 * MS);
}

static void command(void *unused)
{
    const struct tree_command c = {.waiter = 77, .used_ns = 607 * MS};
    (void)unused;
    tree_begin();
    member(2, 1, 20, 80, 100 * MS, 0);
    member(1, 77, 10, 90, 500 * MS, 103 * MS);
    CHILD_CHECK(tree_ends_book(tree(), &c) == 0);
    CHILD_CHECK(end_of(2) == 3 * MS && end_of(1) == 4 * MS && sum() == 607 * MS);
}

static void test_tree(void **state)
{
    static void (*const cases[])(void *) = {same_file_at_two_places,
                                            code_without_a_file,
                                            images_of_one_name,
                                            thousands_of_threads,
                                            end_of_a_child,
                                            child_without_a_profile,
                                            child_that_was_killed,
                                            chance,
                                            too_much_by_chance,
                                            children_not_waited_for,
                                            children_of_others,
                                            pid_used_again,
                                            images,
                                            command};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(in_child(cases[i], NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
