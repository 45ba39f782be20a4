/* collector/block_write.c: the file says what was waited for, where, how long, and what is missing. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/block_write.h"
#include "profiler/collector/waits.h"
#include "proto/reader.h"

static struct hand_made h;

int a_wait_to_find(int x);
__attribute__((noinline, visibility("default"))) int a_wait_to_find(int x)
{
    return printf("%d", x) + 1;
}

static int set_up(void **state)
{
    (void)state;
    scratch_make();
    hand_made_waits_new(&h, 10000, 1000000000);
    snprintf(h.process->command, sizeof h.process->command, "./app --fast");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    scratch_remove();
    return 0;
}

static void wait_write(uint64_t why, uint32_t count, uint64_t delay_ns, enum stile__reason reason)
{
    const struct stile__wait_words words = {delay_ns, why, (uintptr_t)&a_wait_to_find};
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(&h, 1 + STILE__WAIT_WORDS, &commit);
    r->kind = STILE__RECORD_WALKED;
    r->flags = STILE__IS_WAIT;
    r->reason = (uint8_t)reason;
    r->n_new = r->n_inline = 1;
    r->ticks = count;
    r->words[0] = (uintptr_t)&a_wait_to_find + 400; /* somewhere: what was called is the leaf */
    memcpy(r->words + 1, &words, sizeof words);
    stile__ring_commit(&h.slot->head, commit);
}

static const char *root_name(const struct stile__profile *p, const Perftools__Profiles__Sample *s)
{
    const Perftools__Profiles__Location *l =
        p->pb->location[stile__profile_location_index(p, s->location_id[s->n_location_id - 1])];
    return stile__profile_string(p, stile__profile_function(p, l->line[0]->function_id)->name);
}

/* The text of a sample's label; NULL if there is none of that key. */
static const char *label(const struct stile__profile *p, const Perftools__Profiles__Sample *s,
                         const char *key)
{
    for (size_t i = 0; i < s->n_label; i++)
        if (strcmp(stile__profile_string(p, s->label[i]->key), key) == 0)
            return stile__profile_string(p, s->label[i]->str);
    return NULL;
}

static bool has_comment(const struct stile__profile *p, const char *text)
{
    for (size_t i = 0; i < p->pb->n_comment; i++)
        if (strstr(stile__profile_string(p, p->pb->comment[i]), text) != NULL)
            return true;
    return false;
}

static struct stile__profile *written(void)
{
    struct stile__profile *p;
    char err[512];
    assert_int_equal(block_write(h.process, scratch_path("x.pb.gz"), true), 0);
    if (stile__profile_read(scratch_path("x.pb.gz"), &p, err, sizeof err) != 0)
        fail_msg("%s", err);
    return p;
}

static void expect(const struct stile__profile *p, size_t i, int64_t n, int64_t ns, const char *reason,
                   const char *wakes, const char *root)
{
    const Perftools__Profiles__Sample *s = p->pb->sample[i];
    assert_int_equal(s->value[0], n);
    assert_int_equal(s->value[1], ns);
    const char *const expected[] = {reason, wakes}, *const keys[] = {"reason", "wakes"};
    for (int k = 0; k < 2; k++) {
        const char *is = label(p, s, keys[k]);
        assert_int_equal(is != NULL, expected[k] != NULL);
        if (is != NULL)
            assert_string_equal(is, expected[k]);
    }
    assert_non_null(label(p, s, "thread"));
    assert_non_null(label(p, s, "tid"));
    assert_string_equal(root_name(p, s), root);
}

static void test_a_file(void **state)
{
    (void)state;
    h.slot->birth_mono_ns = h.region->start_mono_ns;
    wait_write(STILE__WAIT_RWLOCK_READ, 3, 1500000, STILE__REASON_NONE);
    wait_write(STILE__WAIT_MUTEX | STILE__WAIT_WAKES, 1, 0, STILE__REASON_NONE);
    wait_write(STILE__WAIT_POLL, 1, 20000000, STILE__REASON_NO_UNWIND_INFO);
    atomic_store(&h.slot->lost_waits, 4);
    atomic_store(&h.slot->lost_delay_ns, 30000000);
    process_drain(h.process);
    atomic_store(&h.slot->exit_mono_ns, h.region->start_mono_ns + 3051500000);
    atomic_store(&h.slot->exit_cpu_ns, 1000000000);
    atomic_store(&h.slot->state, STILE__SLOT_EXITED);
    process_drain(h.process);
    struct stile__profile *p = written();

    assert_int_equal(p->pb->n_sample_type, 2);
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[0]->type), "contentions");
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[0]->unit), "count");
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[1]->type), "delay");
    assert_string_equal(stile__profile_string(p, p->pb->sample_type[1]->unit), "nanoseconds");
    assert_string_equal(stile__profile_string(p, p->pb->default_sample_type), "delay");
    assert_string_equal(stile__profile_string(p, p->pb->period_type->type), "contentions");
    assert_string_equal(stile__profile_string(p, p->pb->period_type->unit), "count");
    assert_int_equal(p->pb->period, 1);
    assert_int_equal(p->pb->n_sample, 5);
    expect(p, 0, 3, 1500000, "rwlock (read)", NULL, "a_wait_to_find");
    expect(p, 1, 1, 0, NULL, "mutex", "a_wait_to_find");
    expect(p, 2, 1, 20000000, "poll", NULL, "[no unwind info]");
    expect(p, 3, 4, 30000000, NULL, NULL, "[buffer full]");
    expect(p, 4, 1, 2000000000, "elsewhere", NULL, "[waiting elsewhere]");
    assert_true(has_comment(p, "command: ./app --fast"));
    assert_true(has_comment(p, "rate: a wait for each 10000 ns"));
    assert_true(has_comment(p, "waits: 9, 2.051 s; 1 wake-ups"));
    assert_true(has_comment(p, "rwlock (read) 3, 0.002 s; poll 1, 0.020 s; elsewhere 1, 2.000 s"));
    assert_true(has_comment(p, "lost: 4 waits, 0.030 s"));
    assert_true(has_comment(p, "[no unwind info] 1 waits, 0.020 s"));
    assert_true(has_comment(p, "[waiting elsewhere]: 2.000 s; left out for 0 threads"));
    assert_true(has_comment(p, "stack ownership: not checked"));
    stile__profile_free(p);
}

static void test_nothing(void **state)
{
    (void)state;
    h.process->debug = STILE__DEBUG_OWNERSHIP;
    struct stile__profile *p = written();
    assert_int_equal(p->pb->n_sample, 0);
    assert_true(has_comment(p, "waits: 0, 0.000 s"));
    assert_true(has_comment(p, "by reason: none"));
    assert_true(has_comment(p, "stack ownership: checked, 0 times"));
    stile__profile_free(p);
    h.process->toggles = true;
    h.process->damage = "of a kind";
    p = written();
    assert_true(has_comment(p, "[waiting elsewhere]: left out, since"));
    assert_true(has_comment(p, "damaged: of a kind"));
    stile__profile_free(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_a_file), TEST(test_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
