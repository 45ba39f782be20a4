/* proto/reader.c and profile_check.c: good profiles are read, everything else gets one clear line. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/gzip.h"
#include "proto/reader.h"

static char err[512];

static struct bytes plain_profile(void)
{
    struct stile__builder *b = sample_profile();
    int fd = memory_file("", 0);
    struct bytes bytes;

    assert_int_equal(stile__builder_write(b, fd, false), 0);
    bytes = fd_load(fd);
    close(fd);
    stile__builder_free(b);
    return bytes;
}

static void test_reads_both_forms(void **state)
{
    struct bytes plain = plain_profile();
    struct stile__profile *p;
    void *packed;
    size_t size;

    (void)state;
    assert_int_equal(stile__gzip_compress(plain.data, plain.size, &packed, &size), 0);
    for (int gzip = 0; gzip < 2; gzip++) {
        assert_int_equal(stile__profile_parse("x", gzip ? packed : plain.data, gzip ? size : plain.size, &p,
                                              err, sizeof(err)),
                         0);
        assert_int_equal(p->pb->n_sample, 6);
        assert_string_equal(stile__profile_string(p, stile__profile_function(p, 1)->name), "main");
        assert_string_equal(stile__profile_string(p, stile__profile_mapping(p, 1)->filename), "/bin/app");
        assert_int_equal(stile__profile_location_index(p, 3), 2);
        assert_null(stile__profile_function(p, 0));
        assert_null(stile__profile_function(p, 99));
        assert_int_equal(stile__profile_location_index(p, 99), SIZE_MAX);
        stile__profile_free(p);
    }
    free(packed);
    free(plain.data);
}

static void expect(const char *path, int code, const char *text)
{
    struct stile__profile *p;

    assert_int_equal(stile__profile_read(path, &p, err, sizeof(err)), code);
    assert_string_equal(err, text);
}

static void test_error_texts(void **state)
{
#define AT STILE_SCRATCH "/reader_"
    struct bytes plain = plain_profile();
    void *packed;
    size_t size;

    (void)state;
    assert_int_equal(stile__gzip_compress(plain.data, plain.size, &packed, &size), 0);
    file_store(AT "cut.gz", packed, size - 9);
    file_store(AT "text", "hello world\n", 12);
    file_store(AT "empty", "", 0);
    expect("/nonexistent/x", -ENOENT, "/nonexistent/x: No such file or directory");
    expect("/tmp", -EISDIR, "/tmp: is a directory");
    expect(AT "cut.gz", -EINVAL, AT "cut.gz: damaged or truncated gzip data");
    expect(AT "text", -EINVAL, AT "text: not a pprof profile");
    expect(AT "empty", -EINVAL, AT "empty: not a pprof profile: it is empty");
    free(packed);
    free(plain.data);
}

/* A minimal message, then one thing wrong at a time. */
struct wrong {
    Perftools__Profiles__Profile p;
    Perftools__Profiles__ValueType type, *types[1];
    Perftools__Profiles__Function function[2], *functions[2];
    Perftools__Profiles__Mapping mapping[2], *mappings[2];
    Perftools__Profiles__Line line, *lines[1];
    Perftools__Profiles__Location location[2], *locations[2];
    Perftools__Profiles__Label label, *labels[1];
    Perftools__Profiles__Sample sample, *samples[1];
    uint64_t ids[2];
    int64_t values[2], comment;
    char *strings[2];
};

static void wrong_init(struct wrong *w)
{
    memset(w, 0, sizeof(*w));
    perftools__profiles__profile__init(&w->p);
    perftools__profiles__value_type__init(&w->type);
    perftools__profiles__line__init(&w->line);
    perftools__profiles__label__init(&w->label);
    perftools__profiles__sample__init(&w->sample);
    for (uint64_t i = 0; i < 2; i++) {
        perftools__profiles__function__init(&w->function[i]);
        perftools__profiles__mapping__init(&w->mapping[i]);
        perftools__profiles__location__init(&w->location[i]);
        w->function[i].id = w->mapping[i].id = w->location[i].id = w->ids[i] = 70 + i; /* not from 1 */
        w->functions[i] = &w->function[i];
        w->mappings[i] = &w->mapping[i];
        w->locations[i] = &w->location[i];
    }
    w->strings[0] = "";
    w->strings[1] = "cpu";
    w->types[0] = &w->type;
    w->lines[0] = &w->line;
    w->labels[0] = &w->label;
    w->samples[0] = &w->sample;
    w->line.function_id = 71;
    w->location[0].mapping_id = 71;
    w->location[0].n_line = 1;
    w->location[0].line = w->lines;
    w->sample.n_location_id = 2;
    w->sample.location_id = w->ids;
    w->sample.n_value = 1;
    w->sample.value = w->values;
    w->sample.n_label = 1;
    w->sample.label = w->labels;
    w->type.type = 1;
    w->p.n_sample_type = 1;
    w->p.sample_type = w->types;
    w->p.n_function = w->p.n_mapping = w->p.n_location = 2;
    w->p.function = w->functions;
    w->p.mapping = w->mappings;
    w->p.location = w->locations;
    w->p.n_sample = 1;
    w->p.sample = w->samples;
    w->p.n_comment = 1;
    w->p.comment = &w->comment;
    w->p.n_string_table = 2;
    w->p.string_table = w->strings;
}

/* What the reader says: NULL if it is content. */
static const char *verdict(const struct wrong *w)
{
    uint8_t bytes[1024];
    size_t size = perftools__profiles__profile__get_packed_size(&w->p);
    struct stile__profile *p;

    assert_true(size <= sizeof(bytes));
    perftools__profiles__profile__pack(&w->p, bytes);
    if (stile__profile_parse("f", bytes, size, &p, err, sizeof(err)))
        return err;
    stile__profile_free(p);
    return NULL;
}

static void test_each_check(void **state)
{
    struct wrong w;

    (void)state;
    wrong_init(&w);
    assert_null(verdict(&w));
#define WRONG(field, value, text)                                                                            \
    do {                                                                                                     \
        wrong_init(&w);                                                                                      \
        w.field = value;                                                                                     \
        assert_non_null(verdict(&w));                                                                        \
        assert_non_null(strstr(err, "f: not a pprof profile: "));                                            \
        assert_non_null(strstr(err, text));                                                                  \
    } while (0)
    WRONG(p.n_string_table, 0, "string table");
    WRONG(strings[0], "x", "string table");
    WRONG(p.n_sample_type, 0, "no sample types");
    WRONG(type.unit, 2, "sample type's string");
    WRONG(type.type, -1, "sample type's string");
    WRONG(p.period_type,
          (&(Perftools__Profiles__ValueType){
              PROTOBUF_C_MESSAGE_INIT(&perftools__profiles__value_type__descriptor), 9, 0}),
          "period type's");
    WRONG(comment, 2, "comment's");
    WRONG(p.default_sample_type, 2, "string is out of range");
    WRONG(p.drop_frames, 2, "string is out of range");
    WRONG(mapping[0].id, 0, "mapping's id");
    WRONG(mapping[0].id, 71, "mapping's id");
    WRONG(mapping[1].build_id, 2, "mapping's string");
    WRONG(function[0].id, 0, "function's id");
    WRONG(function[1].id, 70, "function's id");
    WRONG(function[1].filename, 2, "function's string");
    WRONG(location[0].id, 0, "location's id");
    WRONG(location[1].id, 70, "location's id");
    WRONG(location[0].mapping_id, 5, "mapping or function that is not there");
    WRONG(line.function_id, 5, "mapping or function that is not there");
    WRONG(ids[1], 5, "location that is not there");
    WRONG(ids[1], 0, "location that is not there");
    WRONG(sample.n_value, 2, "values");
    WRONG(sample.n_value, 0, "values");
    WRONG(label.key, 2, "label's");
    WRONG(label.num_unit, -1, "label's");
}

static void test_mutations(void **state)
{
    struct bytes plain = plain_profile();
    uint8_t *copy = malloc(plain.size + 16);
    uint64_t random = 11;
    int accepted = 0;

    (void)state;
    assert_non_null(copy);
    for (int round = 0; round < 6000; round++) {
        size_t size = plain.size;
        struct stile__profile *p;

        memcpy(copy, plain.data, plain.size);
        for (int i = 0; i <= round % 5; i++)
            copy[next_number(&random) % size] = (uint8_t)next_number(&random);
        if (round % 7 == 0)
            size = next_number(&random) % plain.size;
        if (stile__profile_parse("m", copy, size, &p, err, sizeof(err)) == 0) {
            accepted++;
            stile__profile_free(p);
        } else {
            assert_memory_equal(err, "m: ", 3);
            assert_null(strchr(err, '\n'));
        }
    }
    assert_in_range(accepted, 1, 5999);
    free(copy);
    free(plain.data);
}

/* Many tiny messages in few bytes: memory must stay in proportion. */
static void test_dense_message(void **state)
{
    size_t size = 8 << 20;
    uint8_t *bytes = malloc(size);
    struct stile__profile *p;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i += 2) {
        bytes[i] = 4 << 3 | 2; /* an empty location */
        bytes[i + 1] = 0;
    }
    assert_int_equal(stile__profile_parse("d", bytes, size, &p, err, sizeof(err)), -EINVAL);
    free(bytes);
}

#ifdef STILE_GO
static void test_reads_what_go_writes(void **state)
{
    struct stile__profile *p;
    struct stile__builder *b = sample_profile();

    (void)state;
    profile_store(b, STILE_SCRATCH "/reader_in.pb.gz");
    stile__builder_free(b);
    free(command_output(STILE_GO " tool pprof -symbolize=none -proto -output=" STILE_SCRATCH
                                 "/reader_go.pb.gz " STILE_SCRATCH "/reader_in.pb.gz 2>&1"));
    assert_int_equal(stile__profile_read(STILE_SCRATCH "/reader_go.pb.gz", &p, err, sizeof(err)), 0);
    assert_true(p->pb->n_sample >= 5);
    stile__profile_free(p);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_both_forms),     cmocka_unit_test(test_error_texts),
        cmocka_unit_test(test_each_check),           cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_dense_message),
#ifdef STILE_GO
        cmocka_unit_test(test_reads_what_go_writes),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
