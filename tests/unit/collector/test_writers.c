/* collector/writers.c: a process writes the file, and the program is told what became of it. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/names.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/writers.h"

static struct hand_made h;

static int set_up(void **state)
{
    uint64_t frame = (uintptr_t)&set_up;
    (void)state;
    scratch_make();
    hand_made_new(&h);
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    h.process->files[FILE_CPU].owns = true;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(writers_running(), 0);
    hand_made_free(&h);
    scratch_remove();
    return 0;
}

static void path_set(const char *name)
{
    snprintf(h.process->files[FILE_CPU].path, sizeof h.process->files[FILE_CPU].path, "%s",
             scratch_path(name));
}

/* Looks as the collector does until the writer has ended. */
static bool writer_ends(int *error)
{
    for (int i = 0; i < 6000 && h.process->writer != 0; i++) {
        if (writer_check(h.process, error))
            return true;
        usleep(10000);
    }
    return false;
}

static void test_final_file(void **state)
{
    int error = 1;
    (void)state;
    path_set("x.pb.gz");
    writer_start_due(h.process);
    assert_int_equal(h.process->writer, 0); /* it is still being sampled */
    process_end(h.process);
    writer_start_due(h.process);
    assert_int_equal(h.process->state, PROCESS_WRITING);
    assert_int_equal(writers_running(), 1);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_NONE);
    assert_true(writer_ends(&error));
    assert_int_equal(error, 0);
    assert_true(h.process->files[FILE_CPU].wrote);
    assert_int_equal(h.process->state, PROCESS_DONE);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_WRITTEN);
    assert_int_equal(access(scratch_path("x.pb.gz"), F_OK), 0);
    assert_false(writer_check(h.process, &error));
}

static void test_failure(void **state)
{
    int error = 0;
    (void)state;
    path_set("missing/x.pb");
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, -ENOENT);
    assert_false(h.process->files[FILE_CPU].wrote);
    assert_int_equal(h.process->state, PROCESS_DONE);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_FAILED);
    assert_non_null(strstr(h.region->message, strerror(ENOENT)));
}

static void test_flush(void **state)
{
    int error = 0;
    (void)state;
    path_set("x.pb");
    process_drain(h.process);
    h.process->flush_wanted = 1;
    writer_start_due(h.process);
    assert_int_equal(h.process->state, PROCESS_ACTIVE);
    assert_false(writer_ends(&error));
    assert_int_equal(atomic_load(&h.region->flush_done), 1);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_NONE);
    assert_string_equal(h.region->message, "");
    assert_int_equal(access(scratch_path("x.pb"), F_OK), 0);
    writer_start_due(h.process);
    assert_int_equal(h.process->writer, 0); /* it was served */
}

static void test_no_sample_no_file(void **state)
{
    (void)state;
    atomic_store(&h.slot->tail, atomic_load(&h.slot->head));
    path_set("x.1.pb");
    h.process->files[FILE_CPU].owns = false;
    process_end(h.process);
    writer_start_due(h.process);
    assert_int_equal(h.process->writer, 0);
    assert_int_equal(h.process->state, PROCESS_DONE);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_WRITTEN);
    assert_int_equal(access(scratch_path("x.1.pb"), F_OK), -1);
}

static void test_named_file_without_a_sample(void **state)
{
    int error = 1;
    (void)state;
    atomic_store(&h.slot->tail, atomic_load(&h.slot->head));
    path_set("x.pb");
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, 0);
    assert_int_equal(access(scratch_path("x.pb"), F_OK), 0);
}

static void test_a_writer_that_dies(void **state)
{
    int error = 1;
    (void)state;
    path_set("x.pb");
    process_end(h.process);
    writer_start_due(h.process);
    pid_t first = h.process->writer;
    kill(first, SIGKILL);
    assert_true(writer_ends(&error)); /* once more, without names */
    assert_int_equal(error, 0);
    assert_int_equal(access(scratch_path("x.pb"), F_OK), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* A process that numbers its files, cut once, with one tick in each part. */
static struct process *cut_once(const char *name)
{
    uint64_t frame = (uintptr_t)&set_up;
    struct process *p = h.process;
    p->numbered = true;
    p->interval_ns = STILE__INTERVAL_NS_MIN;
    snprintf(p->files[FILE_CPU].base, sizeof p->files[FILE_CPU].base, "%s", scratch_path(name));
    names_next(p);
    p->next_cut_ns = now_mono_ns();
    process_drain(p);
    pieces_look(p, now_mono_ns());
    hand_made_tick(&h, &frame, 1, STILE__REASON_NONE, 1);
    pieces_adopt(p);
    return p->next;
}

/* The collector's rounds, as long as something is to be written. */
static int rounds(struct process *piece)
{
    int first_error = 0;
    for (int i = 0; i < 6000 && (h.process->state != PROCESS_DONE || piece->state != PROCESS_DONE); i++) {
        struct process *all[] = {h.process, piece};
        for (int k = 0; k < 2; k++) {
            int error = 0;
            if (writer_check(all[k], &error) && error != 0)
                first_error = error;
        }
        if (piece->state == PROCESS_DONE && h.process->pieces_open != 0)
            h.process->pieces_open--; /* as process_free does */
        writers_start_due(h.process);
        usleep(10000);
    }
    h.process->next = NULL;
    h.process->pieces_open = 1;
    process_free(piece);
    return first_error;
}

static void test_a_piece_and_the_rest(void **state)
{
    struct process *piece = cut_once("x.pb");
    (void)state;
    assert_non_null(piece);
    assert_int_equal(piece->ticks, 1);
    process_end(h.process);
    assert_int_equal(h.process->ticks, 1);
    assert_int_equal(rounds(piece), 0);
    assert_int_equal(access(scratch_path("x.1.pb"), F_OK), 0);
    assert_int_equal(access(scratch_path("x.2.pb"), F_OK), 0);
    assert_int_equal(access(scratch_path("x.pb"), F_OK), -1);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_WRITTEN);
}

/* Who waits for the end is told of a piece that could not be written, though the last one could. */
static void test_a_piece_that_fails(void **state)
{
    struct process *piece = cut_once("missing/x.pb");
    (void)state;
    process_end(h.process);
    path_set("x.2.pb");
    assert_int_equal(rounds(piece), -ENOENT);
    assert_int_equal(access(scratch_path("x.2.pb"), F_OK), 0);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_FAILED);
    assert_non_null(strstr(h.region->message, "missing/x.1.pb"));
}

/* A flush that is being written has the name that the piece gets: the piece comes after it. */
static void test_a_piece_waits_for_a_flush(void **state)
{
    struct process *p = h.process;
    int error;
    (void)state;
    p->flush_wanted = 1;
    struct process *piece = NULL;
    p->numbered = true;
    snprintf(p->files[FILE_CPU].base, sizeof p->files[FILE_CPU].base, "%s", scratch_path("x.pb"));
    names_next(p);
    process_drain(p);
    writer_start_due(p);
    assert_int_not_equal(p->writer, 0);
    p->interval_ns = STILE__INTERVAL_NS_MIN;
    p->next_cut_ns = now_mono_ns();
    pieces_look(p, now_mono_ns());
    pieces_adopt(p);
    piece = p->next;
    assert_non_null(piece);
    writers_start_due(p);
    assert_int_equal(piece->state, PROCESS_ENDED);
    assert_false(writer_ends(&error));
    assert_int_equal(p->writer, 0);
    process_end(p);
    assert_int_equal(rounds(piece), 0);
}

static void block_set(const char *name)
{
    struct target *t = &h.process->files[FILE_BLOCK];
    snprintf(t->path, sizeof t->path, "%s", scratch_path(name));
    t->owns = true;
}

static void test_both_files(void **state)
{
    int error = 1;
    (void)state;
    path_set("x.pb");
    block_set("x.block.pb");
    h.process->flush_wanted = 1;
    writer_start_due(h.process);
    assert_false(writer_ends(&error));
    assert_int_equal(atomic_load(&h.region->flush_done), 1);
    assert_int_equal(access(scratch_path("x.pb"), F_OK), 0);
    assert_int_equal(access(scratch_path("x.block.pb"), F_OK), 0);
    unlink(scratch_path("x.pb"));
    unlink(scratch_path("x.block.pb"));
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, 0);
    assert_true(h.process->files[FILE_CPU].wrote && h.process->files[FILE_BLOCK].wrote);
    assert_int_equal(access(scratch_path("x.pb"), F_OK), 0);
    assert_int_equal(access(scratch_path("x.block.pb"), F_OK), 0);
}

/* Neither hides the other's failure, nor keeps the other from being written. */
static void test_one_of_both_fails(void **state)
{
    int error = 0;
    (void)state;
    path_set("x.pb");
    block_set("missing/x.block.pb");
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, -ENOENT);
    assert_true(h.process->files[FILE_CPU].wrote && !h.process->files[FILE_BLOCK].wrote);
    assert_int_equal(h.process->files[FILE_CPU].error, 0);
    assert_int_equal(h.process->files[FILE_BLOCK].error, -ENOENT);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_FAILED);
    assert_non_null(strstr(h.region->message, "x.block.pb"));
}

/* The waits of a child that nobody named a file for, and that has none. */
static void test_one_of_both_is_due(void **state)
{
    int error = 1;
    (void)state;
    path_set("x.7.pb");
    block_set("x.block.7.pb");
    h.process->files[FILE_CPU].owns = h.process->files[FILE_BLOCK].owns = false;
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, 0);
    assert_true(h.process->files[FILE_CPU].wrote && !h.process->files[FILE_BLOCK].wrote);
    assert_int_equal(access(scratch_path("x.block.7.pb"), F_OK), -1);
}

/* PROFILE_BLOCK alone: there is no CPU profile, though there are ticks. */
static void test_block_alone(void **state)
{
    int error = 1;
    (void)state;
    block_set("x.block.pb");
    process_end(h.process);
    writer_start_due(h.process);
    assert_true(writer_ends(&error));
    assert_int_equal(error, 0);
    assert_false(h.process->files[FILE_CPU].wrote);
    assert_true(h.process->files[FILE_BLOCK].wrote);
    assert_int_equal(atomic_load(&h.region->finish_state), STILE__FINISH_WRITTEN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_final_file),
        TEST(test_failure),
        TEST(test_flush),
        TEST(test_no_sample_no_file),
        TEST(test_named_file_without_a_sample),
        TEST(test_a_writer_that_dies),
        TEST(test_a_piece_and_the_rest),
        TEST(test_a_piece_that_fails),
        TEST(test_a_piece_waits_for_a_flush),
        TEST(test_both_files),
        TEST(test_one_of_both_fails),
        TEST(test_one_of_both_is_due),
        TEST(test_block_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
