/* proto/builder.c and builder_locations.c: what is written is what was added, read by other people's decoders. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/gzip.h"
#include "proto/profile.pb-c.h"

static Perftools__Profiles__Profile *written(const struct stile__builder *b)
{
    int fd = memory_file("", 0);
    Perftools__Profiles__Profile *pb;
    struct bytes bytes;

    assert_int_equal(stile__builder_write(b, fd, false), 0);
    bytes = fd_load(fd);
    close(fd);
    pb = perftools__profiles__profile__unpack(NULL, bytes.size, bytes.data);
    free(bytes.data);
    assert_non_null(pb);
    return pb;
}

static void free_profile(Perftools__Profiles__Profile *pb)
{
    perftools__profiles__profile__free_unpacked(pb, NULL);
}

static void test_decodes(void **state)
{
    struct stile__builder *b = sample_profile();
    Perftools__Profiles__Profile *pb = written(b);

    (void)state;
    assert_string_equal(pb->string_table[0], "");
    assert_int_equal(pb->n_sample_type, 2);
    assert_string_equal(pb->string_table[pb->sample_type[0]->type], "samples");
    assert_string_equal(pb->string_table[pb->sample_type[1]->unit], "nanoseconds");
    assert_string_equal(pb->string_table[pb->default_sample_type], "cpu");
    assert_int_equal(pb->period, 10000000);
    assert_string_equal(pb->string_table[pb->period_type->type], "cpu");
    assert_int_equal(pb->time_nanos, 1600000000000000000);
    assert_int_equal(pb->duration_nanos, 2000000000);
    assert_int_equal(pb->n_mapping, 1);
    assert_int_equal(pb->mapping[0]->id, 1);
    assert_int_equal(pb->mapping[0]->memory_limit, 0x500000);
    assert_string_equal(pb->string_table[pb->mapping[0]->filename], "/bin/app");
    assert_true(pb->mapping[0]->has_functions);
    assert_false(pb->mapping[0]->has_line_numbers);
    assert_int_equal(pb->n_location, 4);
    assert_int_equal(pb->n_function, 3); /* work is in two locations */
    assert_int_equal(pb->location[1]->n_line, 2);
    assert_string_equal(pb->string_table[pb->function[pb->location[1]->line[0]->function_id - 1]->name],
                        "leaf");
    assert_int_equal(pb->location[1]->line[1]->line, 22);
    assert_int_equal(pb->location[1]->line[1]->function_id, pb->location[2]->line[0]->function_id);
    assert_int_equal(pb->n_sample, 6);
    assert_int_equal(pb->sample[2]->n_location_id, 3);
    assert_int_equal(pb->sample[2]->location_id[0], 2);
    assert_int_equal(pb->sample[2]->value[1], 30000000);
    free_profile(pb);
    stile__builder_free(b);
}

static void test_protoc_decodes(void **state)
{
    const char *path = STILE_SCRATCH "/builder.pb.gz";
    struct stile__builder *b = sample_profile();
    char *text;

    (void)state;
    profile_store(b, path);
    stile__builder_free(b);
    text = command_output("gzip -dc " STILE_SCRATCH "/builder.pb.gz | " STILE_PROTOC
                          " --decode=perftools.profiles.Profile -I" STILE_PROTO_DIR " profile.proto");
    assert_non_null(strstr(text, "string_table: \"\"\n"));
    assert_non_null(strstr(text, "string_table: \"/src/leaf.h\"\n"));
    assert_non_null(strstr(text, "  memory_start: 4194304\n"));
    assert_non_null(strstr(text, "period: 10000000\n"));
    free(text);
}

static void test_locations_are_shared(void **state)
{
    struct stile__builder *b = stile__builder_new();
    struct stile__builder_line kernel = {"[kernel]", "[kernel]", "", 0, 0}, lost = {"[lost]", "", "", 0, 0};
    uint64_t first, second, third, fourth, none;

    (void)state;
    assert_int_equal(stile__builder_location_add(b, 0, 0x10, NULL, 0, &first), 0);
    assert_int_equal(stile__builder_location_add(b, 0, 0x10, &kernel, 1, &second), 0);
    assert_int_equal(first, second); /* by address */
    assert_int_equal(stile__builder_location_add(b, 0, 0, &kernel, 1, &third), 0);
    assert_int_equal(stile__builder_location_add(b, 0, 0, &lost, 1, &fourth), 0);
    assert_int_not_equal(third, fourth); /* without one by name */
    assert_int_equal(stile__builder_location_add(b, 0, 0, &kernel, 1, &fourth), 0);
    assert_int_equal(third, fourth);
    assert_int_equal(stile__builder_location_add(b, 1, 0x10, NULL, 0, &none), -EINVAL); /* no such mapping */
    stile__builder_free(b);
}

static void test_functions_are_shared(void **state)
{
    const struct stile__builder_line lines[] = {
        {"a", "s", "f", 1, 5}, {"b", "s", "f", 1, 5},
        {"a", "t", "f", 1, 5}, {"a", "s", "g", 1, 5},
        {"a", "s", "f", 2, 5}, {"a", "s", "f", 1, 9} /* another line is no other function */,
    };
    struct stile__builder *b = sample_profile();
    Perftools__Profiles__Profile *pb;
    uint64_t id;

    (void)state;
    assert_int_equal(stile__builder_location_add(b, 0, 0x77, lines, 6, &id), 0);
    pb = written(b);
    assert_int_equal(pb->n_function, 3 + 5);
    free_profile(pb);
    stile__builder_free(b);
}

static void test_labels_and_flags(void **state)
{
    struct stile__builder *b = sample_profile();
    struct stile__builder_label labels[12];
    int64_t values[2] = {7, 70};
    uint64_t one = 1;
    Perftools__Profiles__Profile *pb;
    Perftools__Profiles__Sample *s;

    (void)state;
    for (int i = 0; i < 12; i++) /* more than fit on the builder's stack */
        labels[i] = (struct stile__builder_label){.key = "tid", .num = i, .num_unit = "id"};
    labels[11] = (struct stile__builder_label){.key = "thread", .str = "worker"};
    assert_int_equal(stile__builder_sample_add(b, &one, 1, values, labels, 12), 0);
    assert_int_equal(stile__builder_mapping_flags_set(b, 1, false, true, true, true), 0);
    assert_int_equal(stile__builder_mapping_flags_set(b, 2, true, true, true, true), -EINVAL);
    assert_int_equal(stile__builder_comment_add(b, "lost: 3"), 0);
    pb = written(b);
    s = pb->sample[6];
    assert_int_equal(s->n_label, 12);
    assert_int_equal(s->label[10]->num, 10);
    assert_string_equal(pb->string_table[s->label[10]->num_unit], "id");
    assert_string_equal(pb->string_table[s->label[11]->key], "thread");
    assert_string_equal(pb->string_table[s->label[11]->str], "worker");
    assert_int_equal(s->label[11]->num, 0);
    assert_false(pb->mapping[0]->has_functions);
    assert_true(pb->mapping[0]->has_inline_frames);
    assert_int_equal(pb->n_comment, 1);
    assert_string_equal(pb->string_table[pb->comment[0]], "lost: 3");
    free_profile(pb);
    stile__builder_free(b);
}

static void test_refuses(void **state)
{
    struct stile__builder *b = stile__builder_new();
    struct stile__builder_label reserved = {.key = "pprof::base", .str = "x"};
    int64_t values[1] = {1};
    uint64_t id = 1;

    (void)state;
    assert_int_equal(stile__builder_sample_add(b, &id, 0, values, NULL, 0), -EINVAL); /* no sample types */
    assert_int_equal(stile__builder_sample_type_add(b, "cpu", "nanoseconds"), 0);
    assert_int_equal(stile__builder_sample_add(b, &id, 1, values, NULL, 0), -EINVAL); /* no such location */
    assert_int_equal(stile__builder_sample_add(b, &id, 0, values, &reserved, 1), -EINVAL);
    assert_int_equal(stile__builder_sample_add(b, &id, 0, values, NULL, 0), 0);
    assert_int_equal(stile__builder_sample_type_add(b, "late", "count"), -EINVAL);
    stile__builder_free(b);
}

static void test_write_errors(void **state)
{
    struct stile__builder *b = sample_profile();
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(full >= 0);
    assert_int_equal(stile__builder_write(b, full, true), -ENOSPC);
    assert_int_equal(stile__builder_write(b, full, false), -ENOSPC);
    close(full);
    assert_int_equal(stile__builder_write(b, -1, true), -EBADF);
    stile__builder_free(b);
}

static void test_a_million_samples(void **state)
{
    struct stile__builder *b = sample_profile();
    uint64_t stack[30];
    Perftools__Profiles__Profile *pb;
    int64_t sum = 0;

    (void)state;
    for (int i = 0; i < 30; i++)
        stack[i] = (uint64_t)i % 4 + 1;
    for (int64_t i = 0; i < 1000000; i++)
        assert_int_equal(stile__builder_sample_add(b, stack, 30, (int64_t[]){1, i}, NULL, 0), 0);
    pb = written(b);
    assert_int_equal(pb->n_sample, 1000006);
    for (size_t i = 6; i < pb->n_sample; i++)
        sum += pb->sample[i]->value[1];
    assert_int_equal(sum, 999999LL * 1000000 / 2);
    free_profile(pb);
    stile__builder_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decodes),
        cmocka_unit_test(test_protoc_decodes),
        cmocka_unit_test(test_locations_are_shared),
        cmocka_unit_test(test_labels_and_flags),
        cmocka_unit_test(test_functions_are_shared),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_write_errors),
        cmocka_unit_test(test_a_million_samples),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
