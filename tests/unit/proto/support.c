/* Files, commands and a small profile for the unit tests of proto/. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct bytes fd_load(int fd)
{
    struct bytes b = {0};
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    b.size = (size_t)st.st_size;
    b.data = malloc(b.size + 1);
    assert_non_null(b.data);
    assert_int_equal(pread(fd, b.data, b.size, 0), b.size);
    return b;
}

struct bytes file_load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct bytes b;

    assert_true(fd >= 0);
    b = fd_load(fd);
    close(fd);
    return b;
}

void file_store(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

int memory_file(const void *data, size_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, size, 0), size);
    return fd;
}

char *command_output(const char *command)
{
    FILE *f = popen(command, "r");
    char *text = NULL;
    size_t capacity = 0, size = 0;

    assert_non_null(f);
    do {
        capacity = capacity * 2 + 4096;
        text = realloc(text, capacity);
        assert_non_null(text);
        size += fread(text + size, 1, capacity - size - 1, f);
    } while (size == capacity - 1);
    text[size] = '\0';
    assert_int_equal(pclose(f), 0);
    return text;
}

uint32_t next_number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static uint64_t location(struct stile__builder *b, uint64_t mapping, uint64_t address,
                         const struct stile__builder_line *lines, size_t n)
{
    uint64_t id = 0;

    assert_int_equal(stile__builder_location_add(b, mapping, address, lines, n, &id), 0);
    return id;
}

static void sample(struct stile__builder *b, const uint64_t *ids, size_t n, int64_t count)
{
    int64_t values[2] = {count, count * 10000000};

    assert_int_equal(stile__builder_sample_add(b, ids, n, values, NULL, 0), 0);
}

struct stile__builder *sample_profile(void)
{
    struct stile__builder *b = stile__builder_new();
    const struct stile__builder_mapping app = {.start = 0x400000,
                                               .limit = 0x500000,
                                               .filename = "/bin/app",
                                               .build_id = "abcd",
                                               .has_functions = true};
    const struct stile__builder_line line_main = {"main", "main", "/src/app.c", 10, 12};
    const struct stile__builder_line work = {"work", "work", "/src/app.c", 20, 25};
    const struct stile__builder_line inlined[] = {{"leaf", "leaf", "/src/leaf.h", 1, 2},
                                                  {"work", "work", "/src/app.c", 20, 22}};
    uint64_t m, a_, b_, c_, d_;

    assert_non_null(b);
    assert_int_equal(stile__builder_sample_type_add(b, "samples", "count"), 0);
    assert_int_equal(stile__builder_sample_type_add(b, "cpu", "nanoseconds"), 0);
    assert_int_equal(stile__builder_default_sample_type_set(b, "cpu"), 0);
    assert_int_equal(stile__builder_period_set(b, "cpu", "nanoseconds", 10000000), 0);
    assert_int_equal(stile__builder_time_set(b, 1600000000000000000, 2000000000), 0);
    assert_int_equal(stile__builder_mapping_add(b, &app, &m), 0);
    a_ = location(b, m, 0x401000, &line_main, 1);
    b_ = location(b, m, 0x402000, inlined, 2);
    c_ = location(b, m, 0x403000, &work, 1);
    d_ = location(b, m, 0x404000, NULL, 0);
    sample(b, (uint64_t[]){b_, a_}, 2, 1);
    sample(b, (uint64_t[]){c_, c_, a_}, 3, 2);
    sample(b, (uint64_t[]){b_, c_, a_}, 3, 3);
    sample(b, (uint64_t[]){d_, a_}, 2, 4);
    sample(b, (uint64_t[]){a_}, 1, 5);
    sample(b, (uint64_t[]){c_, a_}, 2, 0);
    return b;
}

void profile_store(const struct stile__builder *b, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(stile__builder_write(b, fd, true), 0);
    close(fd);
}
