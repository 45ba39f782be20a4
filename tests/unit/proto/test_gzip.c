/* proto/gzip.c: round trips, and nothing else comes back. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "proto/gzip.h"

static struct bytes noise(size_t size)
{
    struct bytes b = {malloc(size + 1), size};
    uint64_t state = 1;

    assert_non_null(b.data);
    for (size_t i = 0; i < size; i++)
        b.data[i] = (uint8_t)(next_number(&state) % 40);
    return b;
}

static void test_round_trip(void **state)
{
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 3000000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct bytes in = noise(sizes[i]);
        void *packed, *out;
        size_t packed_size, size;

        assert_int_equal(stile__gzip_compress(in.data, in.size, &packed, &packed_size), 0);
        assert_true(stile__is_gzip(packed, packed_size));
        assert_int_equal(stile__gunzip(packed, packed_size, in.size, &out, &size), 0);
        assert_int_equal(size, in.size);
        assert_memory_equal(out, in.data, size);
        assert_int_equal(((char *)out)[size], 0);
        free(out);
        free(packed);
        free(in.data);
    }
}

static void test_pieces_and_members(void **state)
{
    const struct iovec pieces[] = {{"one ", 4}, {NULL, 0}, {"two", 3}};
    int fd = memory_file("", 0);
    struct bytes packed;
    void *out;
    size_t size;

    (void)state;
    assert_int_equal(stile__gzip_write(fd, pieces, 3), 0);
    assert_int_equal(stile__gzip_write(fd, pieces, 1), 0); /* a second member behind the first */
    packed = fd_load(fd);
    assert_int_equal(stile__gunzip(packed.data, packed.size, 100, &out, &size), 0);
    assert_string_equal(out, "one twoone ");
    free(out);
    free(packed.data);
    close(fd);
}

static void test_damage(void **state)
{
    struct bytes in = noise(20000);
    uint8_t *packed;
    void *opaque, *out;
    size_t packed_size, size;

    (void)state;
    assert_int_equal(stile__gzip_compress(in.data, in.size, &opaque, &packed_size), 0);
    packed = opaque;
    for (size_t cut = 0; cut < packed_size; cut += 7)
        assert_int_equal(stile__gunzip(packed, cut, 1 << 20, &out, &size), -EINVAL);
    assert_int_equal(stile__gunzip(packed, packed_size - 1, 1 << 20, &out, &size), -EINVAL);
    packed[packed_size / 2] ^= 0x55;
    assert_int_equal(stile__gunzip(packed, packed_size, 1 << 20, &out, &size), -EINVAL);
    assert_int_equal(stile__gunzip("plain text", 10, 1 << 20, &out, &size), -EINVAL);
    free(packed);
    free(in.data);
}

static void test_bomb(void **state)
{
    size_t zeros = (size_t)256 << 20, packed_size, size;
    void *bomb = calloc(1, zeros), *packed, *out;

    (void)state;
    assert_non_null(bomb);
    assert_int_equal(stile__gzip_compress(bomb, zeros, &packed, &packed_size), 0);
    assert_true(packed_size < 1 << 20);
    assert_int_equal(stile__gunzip(packed, packed_size, 1 << 20, &out, &size), -EFBIG);
    free(packed);
    free(bomb);
}

static void on_alarm(int sig)
{
    (void)sig;
}

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    size_t *total = malloc(sizeof(*total));
    char bytes[1000];
    ssize_t n;

    *total = 0;
    usleep(20000); /* until the writer waits on a full pipe and is interrupted there */
    while ((n = read(fd, bytes, sizeof(bytes))) != 0)
        if (n > 0)
            *total += (size_t)n;
    return total;
}

/* A pipe takes a megabyte in many short writes, with signals in between. */
static void test_short_and_interrupted_writes(void **state)
{
    struct sigaction act = {.sa_handler = on_alarm}; /* no SA_RESTART */
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    struct bytes in = noise(1 << 20);
    pthread_t thread;
    int pipes[2];
    void *total;

    (void)state;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    sigaction(SIGALRM, &act, NULL);
    assert_int_equal(pthread_create(&thread, NULL, drain, &pipes[0]), 0);
    setitimer(ITIMER_REAL, &often, NULL);
    assert_int_equal(stile__write_all(pipes[1], in.data, in.size), 0);
    setitimer(ITIMER_REAL, &never, NULL);
    close(pipes[1]);
    assert_int_equal(pthread_join(thread, &total), 0);
    assert_int_equal(*(size_t *)total, in.size);
    free(total);
    close(pipes[0]);
    free(in.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_pieces_and_members),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_short_and_interrupted_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
