/* The reader of the region, of hellos and of reports, given what is damaged in every way: nothing crashes, nothing goes on without
 * end, and the files that come out are valid. Whatever happens follows from the seeds, but for what a program writes while it is
 * read. */
#include "tests/unit/support.h"
#include "tests/unit/collector/fuzz_world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/block_write.h"
#include "profiler/collector/crash.h"
#include "profiler/collector/dump.h"
#include "profiler/collector/names.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/profile_write.h"
#include "profiler/collector/waits.h"
#include "proto/reader.h"

#define STEPS      12u /* looks at a world */
#define NAMED_EACH 16u /* worlds: looking names up is slow */
#define DUMPS_EACH 4u  /* worlds: these and reports are forks */
#define FILE_MAX   (64u << 20)
#define ROUNDS_MAX 6000 /* of 5 ms: half a minute */

/* Shared with the collector's forks: a crash of theirs is told by nobody else. */
static _Atomic int *crashes;

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void crash_count(void)
{
    atomic_fetch_add(crashes, 1);
}

static void crash_handler(int signal)
{
    crash_count();
    _exit(128 + signal);
}

static int crashes_count(void **state)
{
    (void)state;
    crashes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(crashes, MAP_FAILED);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(crash_count);
    for (size_t i = 0; !UNDER_SANITIZER && i < 4; i++)
        signal((int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL}[i], crash_handler);
    return 0;
}

static unsigned rounds(unsigned n)
{
    return getenv("STILE_TEST_LONG") != NULL ? 50 * n : UNDER_SANITIZER ? n / 2 : n;
}

/* --- What comes out */

static bool has_comment(const struct stile__profile *p, const char *text)
{
    for (size_t i = 0; i < p->pb->n_comment; i++)
        if (strstr(stile__profile_string(p, p->pb->comment[i]), text) != NULL)
            return true;
    return false;
}

/* A file is valid, of a size that can be, and says what was wrong. */
static void file_check(const struct process *p, const char *path)
{
    struct stile__profile *profile;
    struct stat st;
    char err[512];

    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size <= FILE_MAX);
    if (stile__profile_read(path, &profile, err, sizeof err) != 0)
        fail_msg("%s", err);
    assert_int_equal(has_comment(profile, "damaged: "), (p->origin != NULL ? p->origin : p)->damage != NULL);
    for (size_t i = 0; i < profile->pb->n_sample; i++)
        for (size_t k = 0; k < profile->pb->sample[i]->n_value; k++)
            assert_true(profile->pb->sample[i]->value[k] >= 0);
    stile__profile_free(profile);
    unlink(path);
}

static void files_check(const struct process *p, bool named)
{
    assert_int_equal(profile_write(p, scratch_path("x.pb.gz"), named), 0);
    file_check(p, scratch_path("x.pb.gz"));
    if (!p->waits.on)
        return;
    assert_int_equal(block_write(p, scratch_path("y.pb"), named), 0);
    file_check(p, scratch_path("y.pb"));
}

/* --- What is asked for */

static void forks_await(struct process *p)
{
    for (int i = 0; i < ROUNDS_MAX; i++) {
        crash_round(p, false);
        dump_round(p);
        if (p->dump == NULL && p->answering == 0 && p->crash.writer == 0)
            return;
        usleep(5000);
    }
    fail_msg("it goes on for half a minute");
}

/* A dump for the program, or for a stranger. */
static void dump_begin(struct world *w)
{
    struct process *p = w->process;
    struct stile__dump_ask ask = {STILE__MESSAGE_DUMP, p->pid, (uint32_t)next_number(&w->numbers) % 2};
    int pair[2];
    if (next_number(&w->numbers) % 2 == 0) {
        atomic_fetch_add(&w->region->dump_request, 1);
        atomic_store(&w->region->dump_tid, (uint32_t)p->pid);
        return;
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    dump_ask(p, &ask, pair[0], memfd_create("dump", MFD_CLOEXEC));
    close(pair[1]);
}

/* A report whose text anybody may have written. */
static void report_leave(struct world *w)
{
    static const char text[] = "stile: crash report of process 1 (x): SIGSEGV\nthread 5 \"a\" crashed:\n  #0 "
                               "0x10 /bin/true+0x10 (main+0x1)\n"
                               "  #1 0x20\n  ... 5 frames are not shown ...\nmodules:\n  0x0-0x1000 0x0 - "
                               "/bin/true\nstile: end of the report\n";
    if (w->process->size.report == 0)
        return;
    char *at = stile__region_report(w->region, w->process->size);
    memcpy(at, text, sizeof text);
    for (unsigned n = (unsigned)next_number(&w->numbers) % 8; n > 0; n--)
        at[next_number(&w->numbers) % sizeof text] = (char)next_number(&w->numbers);
    atomic_store(&w->region->report_len,
                 (uint32_t)(next_number(&w->numbers) % 4 == 0 ? world_value(&w->numbers) : sizeof text - 1));
    atomic_store(&w->region->report_out, (uint32_t)world_value(&w->numbers));
    atomic_store(&w->region->crash_state, (uint32_t)next_number(&w->numbers) % 5);
}

/* One round of the collector's. */
static void look(struct world *w, bool forks)
{
    struct process *p = w->process;
    process_drain_asked(p);
    waits_look(p, next_number(&w->numbers) % 3 == 0);
    pieces_look(p, now_mono_ns() + next_number(&w->numbers) % (2 * STILE__INTERVAL_NS_MIN));
    if (next_number(&w->numbers) % 8 == 0)
        process_maps_refresh(p);
    if (next_number(&w->numbers) % 8 == 0)
        process_answer_flush(p, (uint32_t)next_number(&w->numbers), "said");
    if (!forks)
        return;
    if (p->dump == NULL && next_number(&w->numbers) % STEPS == 0)
        dump_begin(w);
    if (next_number(&w->numbers) % STEPS == 0)
        report_leave(w);
    dump_round(p);
    crash_round(p, false);
}

/* Its end, and all that is written of it. */
static void end(struct world *w, bool named)
{
    struct process *p = w->process;
    if (next_number(&w->numbers) % 4 == 0)
        world_kill(w);
    process_end(p);
    assert_int_equal(p->state, PROCESS_ENDED);
    crash_ended(p, SIGKILL);
    forks_await(p);
    files_check(p, named);
    for (const struct process *piece = p->cut; piece != NULL; piece = piece->next)
        files_check(piece, named);
    process_answer_finish(p, false, NULL);
}

static void world_look(uint64_t seed, bool scribbler, unsigned *taken, unsigned *undamaged)
{
    struct world w;
    const char *why = NULL;
    bool forks = seed % DUMPS_EACH == 0;

    world_make(&w, seed, scribbler);
    for (uint64_t n = next_number(&w.numbers) % 2 * (next_number(&w.numbers) % 8); n > 0; n--)
        world_damage(&w);
    if (!world_hand_over(&w, &why)) {
        assert_non_null(why);
        world_free(&w);
        return;
    }
    ++*taken;
    if (forks)
        snprintf(w.process->crash.path, sizeof w.process->crash.path, "%s", scratch_path("crash.txt"));
    w.process->crash.is_command = forks;
    for (unsigned step = 0; step < STEPS; step++) {
        world_go_on(&w);
        for (uint64_t n = next_number(&w.numbers) % 4; n > 0 && step > 1; n--)
            world_damage(&w);
        look(&w, forks);
        *undamaged += w.process->damage == NULL;
        if (step + 1 < STEPS && next_number(&w.numbers) % 2 == 0)
            world_mend(&w); /* there is more to be found behind it */
    }
    end(&w, seed % NAMED_EACH == 0);
    world_free(&w);
    assert_int_equal(atomic_load(crashes), 0);
}

static void worlds_look(uint64_t first, unsigned n, bool scribbler)
{
    unsigned taken = 0, undamaged = 0, descriptors = count_descriptors();
    scratch_make();
    for (uint64_t seed = first; seed < first + n; seed++)
        world_look(seed, scribbler, &taken, &undamaged);
    scratch_remove();
    assert_true(taken > n / 4); /* otherwise little was looked at */
    /* How soon a program that writes all the time hits what is believed is chance. */
    assert_true(scribbler || undamaged > n / 2);
    assert_true(count_descriptors() < descriptors + 32); /* the files that are mapped stay open, once */
}

static void test_damaged_regions(void **state)
{
    (void)state;
    worlds_look(1000, rounds(80), false);
}

static void test_regions_that_are_written_to(void **state)
{
    (void)state;
    worlds_look(2000000, rounds(24), true);
}

/* --- Hellos */

static void hello_damage(struct stile__hello **h, size_t *size, uint64_t *numbers)
{
    size_t fixed = offsetof(struct stile__hello, text);
    uint32_t value = (uint32_t)world_value(numbers);
    switch (next_number(numbers) % 6) {
    case 0:
        *size = next_number(numbers) % (*size + 8);
        break;
    case 1:
        *size = fixed + next_number(numbers) % (sizeof **h - fixed + 1);
        (*h)->text_len = (uint32_t)(*size - fixed);
        break;
    case 2:
        memcpy((char *)*h + next_number(numbers) % 4 * 4, &value, sizeof value);
        break;
    case 3: /* longer than any path */
        memset((*h)->text + next_number(numbers) % 64, 'a' + (int)(next_number(numbers) % 26),
               next_number(numbers) % 20000);
        break;
    default:
        (*h)->text[next_number(numbers) % 256] = (char)next_number(numbers);
    }
}

static void hello_look(uint64_t seed, const char *directory, unsigned *taken)
{
    struct process p = {.pid = (pid_t)seed, .own_pid = (int32_t)seed};
    struct hello_text text;
    uint64_t numbers = seed;
    size_t size;
    struct stile__hello *h = world_hello(directory, &size);

    p.numbered = seed % 3 == 0;
    for (uint64_t n = next_number(&numbers) % 4; n > 0; n--)
        hello_damage(&h, &size, &numbers);
    /* As long as it says, so that what is read behind it is seen. */
    struct stile__hello *exact = malloc(size != 0 ? size : 1);
    assert_non_null(exact);
    memcpy(exact, h, size);
    free(h);
    if (hello_parse(exact, size, &text)) {
        ++*taken;
        for (int i = 0; i < STILE__HELLO_TEXTS; i++)
            assert_true(strlen(text.text[i]) < size);
        names_assign(&p, &text, NULL);
        crash_begin(&p, &text, NULL, 0);
        for (int i = 0; i < FILES; i++)
            assert_true(memchr(p.files[i].path, '\0', sizeof p.files[i].path) != NULL);
    }
    names_release(p.pid);
    free(exact);
}

static void test_damaged_hellos(void **state)
{
    unsigned taken = 0, n = getenv("STILE_TEST_LONG") != NULL ? 20000 : 2000; /* each leaves a name behind */
    (void)state;
    scratch_make();
    for (uint64_t seed = 1; seed <= n; seed++)
        hello_look(seed, scratch_path("."), &taken);
    scratch_remove();
    assert_true(taken > n / 8 && taken < n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_hellos),
        cmocka_unit_test(test_damaged_regions),
        cmocka_unit_test(test_regions_that_are_written_to),
    };
    return cmocka_run_group_tests(tests, crashes_count, NULL);
}
