/* Swaps while a crash begins, writes and ends, with the windows of the protocol held open. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/agent/crash/output.h"
#include "profiler/region/raw_syscall.h"
#include "tests/unit/crash/report_area.h"
#include "tests/unit/crash/widen.h"
#include "tests/unit/support.h"

#define SWAPPERS 2u
#define OUTPUTS  (2 * SWAPPERS)
#define BATCHES  25u
#define ROUNDS   40u
#define PARTS    4u
#define PART     700u

static atomic_bool over;
static atomic_uint swapped;
static char paths[OUTPUTS][4096], foreign_path[4096];

void widen(void)
{
    static _Thread_local uint64_t sequence;
    if (sequence == 0)
        sequence = stile__raw_gettid();
    switch (next_number(&sequence) % 3) {
    case 0:
        stile__raw_sleep_ns(100000);
        break;
    case 1:
        stile__raw_yield();
        break;
    default:
        break;
    }
}

static void *swapper(void *arg)
{
    unsigned own = (unsigned)(uintptr_t)arg, i = 0;
    while (!atomic_load(&over)) {
        int fd = open(paths[2 * own + i++ % 2], O_WRONLY | O_APPEND | O_CLOEXEC);
        if (fd < 0)
            continue; /* no descriptors, for the moment */
        if (stile__crash_output_swap(fd) == 0)
            atomic_fetch_add(&swapped, 1);
        close(fd);
    }
    return NULL;
}

/* Takes every number that comes free where the duplicates are, for a file that is none of their business. */
static void *foreigner(void *arg)
{
    int fds[8], fd = open(foreign_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    (void)arg;
    for (unsigned i = 0; i < 8; i++)
        fds[i] = -1;
    for (unsigned i = 0; !atomic_load(&over); i++) {
        if (fds[i % 8] >= 0)
            close(fds[i % 8]);
        fds[i % 8] = fcntl(fd, F_DUPFD_CLOEXEC, 992);
        stile__raw_yield();
    }
    for (unsigned i = 0; i < 8; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    close(fd);
    return NULL;
}

static off_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* One report, which has to be whole in one of the outputs. */
static void crash(unsigned number)
{
    char parts[PARTS][PART], got[PARTS * PART];
    off_t before[OUTPUTS];
    unsigned grown = 0;
    for (unsigned i = 0; i < OUTPUTS; i++)
        before[i] = size_of(paths[i]);
    for (unsigned i = 0; i < PARTS; i++)
        memset(parts[i], (int)('A' + (number + i) % 50), PART);
    stile__crash_output_begin(NULL, true);
    for (unsigned i = 0; i < PARTS; i++) {
        widen();
        stile__crash_output_write(parts[i], PART);
    }
    stile__crash_output_end();
    for (unsigned i = 0; i < OUTPUTS; i++) {
        off_t more = size_of(paths[i]) - before[i];
        if (more == 0)
            continue;
        grown++;
        assert_int_equal(more, sizeof got);
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread(fd, got, sizeof got, before[i]), sizeof got);
        close(fd);
        assert_memory_equal(got, parts, sizeof got);
    }
    assert_int_equal(grown, 1);
    assert_int_equal(size_of(foreign_path), 0);
}

/* Closes what is left open of the outputs; says how much that was. */
static unsigned outputs_left(void)
{
    unsigned n = 0;
    struct stat st, outputs[OUTPUTS];
    for (unsigned i = 0; i < OUTPUTS; i++)
        assert_int_equal(stat(paths[i], &outputs[i]), 0);
    for (int fd = 3; fd < 4096; fd++)
        for (unsigned i = 0; i < OUTPUTS; i++)
            if (fstat(fd, &st) == 0 && st.st_dev == outputs[i].st_dev && st.st_ino == outputs[i].st_ino) {
                close(fd);
                n++;
                break;
            }
    return n;
}

static unsigned batch(unsigned rounds)
{
    pthread_t threads[SWAPPERS + 1];
    atomic_store(&over, false);
    atomic_store(&swapped, 0);
    int fd = open(paths[0], O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(stile__crash_output_swap(fd), 0);
    close(fd);
    for (unsigned i = 0; i < SWAPPERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, swapper, (void *)(uintptr_t)i), 0);
    assert_int_equal(pthread_create(&threads[SWAPPERS], NULL, foreigner, NULL), 0);
    for (unsigned i = 0; i < rounds; i++) {
        crash(i);
        stile__raw_sleep_ns(100000);
    }
    while (atomic_load(&swapped) < 20)
        stile__raw_yield();
    atomic_store(&over, true);
    for (unsigned i = 0; i <= SWAPPERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(stile__crash_output_swap(-1), 0);
    return outputs_left();
}

static void test_race(void **state)
{
    unsigned leaked = 0;
    (void)state;
    for (unsigned i = 0; i < BATCHES; i++)
        leaked += batch(ROUNDS);
    printf("%u descriptors were left open, rather than closed under the writer, in %u reports\n", leaked,
           BATCHES * ROUNDS);
    assert_true(leaked > 0);
}

static void test_no_leak_without_a_crash(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(batch(0), 0);
}

static int all_begin(void **state)
{
    (void)state;
    scratch_make();
    for (unsigned i = 0; i < OUTPUTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "output%u", i);
        snprintf(paths[i], sizeof paths[i], "%s", scratch_path(name));
        file_write(paths[i], "", 0);
    }
    snprintf(foreign_path, sizeof foreign_path, "%s", scratch_path("foreign"));
    file_write(foreign_path, "", 0);
    return dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2) == 2 ? 0 : -1; /* it has every report, too */
}

static int all_end(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_no_leak_without_a_crash),
    };
    return cmocka_run_group_tests(tests, all_begin, all_end);
}
