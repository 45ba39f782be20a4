/* collector/dump.c and dump_look.c: who waits is read, who runs is asked, and the program is let go in every case. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/dump.h"
#include "profiler/collector/naming.h"

static struct hand_made h;
static struct process *p;
static int client, from; /* our ends */
static struct stile__dump_told told;
static char text[1 << 20];
static uint32_t answers; /* records that the handler writes, 0: none */

static int set_up(void **state)
{
    (void)state;
    hand_made_waits_new(&h, 1000, 3600000000000ull);
    p = h.process;
    stile__stack_begin(&h.slot->status);
    client = from = -1;
    answers = 0;
    text[0] = '\0';
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hand_made_free(&h);
    close(client);
    close(from);
    return 0;
}

static void ask(int32_t pid, bool interrupt)
{
    const struct stile__dump_ask said = {STILE__MESSAGE_DUMP, pid, interrupt};
    int sockets[2], ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    client = sockets[0];
    from = ends[0];
    memset(&told, 0, sizeof told);
    dump_ask(p, &said, sockets[1], ends[1]);
}

static bool hear(void)
{
    return recv(client, &told, sizeof told, MSG_DONTWAIT) == sizeof told;
}

static void take(void)
{
    ssize_t n = read(from, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
}

static void rounds(void)
{
    for (int i = 0; i < 6000; i++) {
        if (hear()) {
            take();
            assert_int_equal(atomic_load(&h.region->freezing), 0);
            return;
        }
        process_drain(p);
        dump_round(p);
        usleep(2000);
    }
    fail_msg("nothing is told for 12 s");
}

static void record_fill(struct stile__record *r, uint32_t piece)
{
    r->kind = STILE__RECORD_WALKED;
    r->flags = STILE__IS_DUMP;
    r->ticks = 0;
    r->piece = piece;
    r->n_new = r->n_inline = 2;
    r->words[0] = hand_made_frame(1);
    r->words[1] = hand_made_frame(2);
}

static void record_write(uint32_t piece)
{
    uint64_t commit;
    record_fill(hand_made_reserve(&h, 2, &commit), piece);
    stile__ring_commit(&h.slot->head, commit);
}

static void on_signal(int signal)
{
    (void)signal;
    if (answers == 0)
        return;
    answers--;
    record_write(atomic_load(&h.region->freezing));
}

static void signals_on(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &act, NULL);
    p->signal = SIGUSR1;
    p->ticks_wanted = false;
    p->waits_told = true; /* threads say before they wait */
}

/* It can leave its wait, and then it tells all of it: nothing of the dump is in any book. */
static void test_waiting(void **state)
{
    uint64_t since = now_mono_ns() - 2500000000u;
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_COND, since);
    ask(getpid(), false);
    assert_true(dump_urgent(p));
    uint32_t n = atomic_load(&h.region->freezing);
    unsigned side = stile__stack_side(atomic_load(&h.slot->status));
    assert_true(n >= STILE__FREEZE_DUMP);
    rounds();
    assert_int_equal(told.error, 0);
    assert_int_equal(told.shown, 1);
    assert_memory_equal(text, STILE__DUMP_BEGIN, strlen(STILE__DUMP_BEGIN));
    assert_non_null(strstr(text, ": 1 thread\nthread ") != NULL ? text : strstr(text, " threads\nthread "));
    assert_non_null(strstr(text, "\" waiting (condition variable) for 2."));
    assert_non_null(strstr(text, "\n  #0 0x"));
    assert_non_null(strstr(text, " hand_made_frame at "));
    assert_non_null(strstr(text, STILE__DUMP_END));
    assert_int_equal(stile__stack_side(atomic_load(&h.slot->status)),
                     side); /* what was told is valid still */
    assert_int_equal(h.left->told_ns[0] | h.left->told_ns[1], 0);
    assert_int_equal(stile__stack_state(atomic_load(&h.slot->status)), STILE__STACK_WAITING);
    assert_int_equal(atomic_load(&h.slot->status) & STILE__STACK_SCAN, 0);
    assert_int_equal(p->waits.n, 0);
    hand_made_wait_end(&h, STILE__WAIT_COND);
    process_drain(p);
    assert_null(p->damage);
    assert_int_equal(p->waits.n, 1);
    close(client), close(from);
    hand_made_wait_begin(&h, STILE__WAIT_READ, now_mono_ns());
    ask(getpid(), false);
    assert_int_equal(atomic_load(&h.region->freezing), n + 1); /* each has a number */
    rounds();
}

static void test_running(void **state)
{
    (void)state;
    signals_on();
    answers = 1;
    ask(getpid(), false);
    rounds();
    assert_int_equal(told.error, 0);
    assert_int_equal(told.shown, 1);
    assert_int_equal(answers, 0);
    assert_non_null(strstr(text, "\" running:\n  #0 0x"));
    assert_non_null(strstr(text, " hand_made_frame at "));
    assert_null(p->damage);
    assert_int_equal(p->ticks, 0);
    assert_int_equal(p->tree.n_samples, 0);
    assert_int_equal(p->frames_by_rules, 0);
    assert_int_equal(atomic_load(&h.slot->head), atomic_load(&h.slot->tail));
}

/* Where threads do not say so, their next tick answers: no signal is sent. */
static void test_running_until_a_tick(void **state)
{
    (void)state;
    signals_on();
    p->waits_told = false;
    p->ticks_wanted = true;
    answers = 1;
    ask(getpid(), false);
    for (int i = 0; i < 5; i++)
        dump_round(p);
    assert_int_equal(answers, 1);
    record_write(atomic_load(&h.region->freezing));
    rounds();
    assert_int_equal(told.shown, 1);
    assert_non_null(strstr(text, "\" running:\n  #0 0x"));
}

/* Without ticks it is named, and asked only if the user wants that. */
static void test_running_without_ticks(void **state)
{
    (void)state;
    signals_on();
    p->waits_told = false;
    answers = 1;
    ask(getpid(), false);
    rounds();
    assert_int_equal(answers, 1);
    assert_int_equal(told.shown, 0);
    assert_non_null(strstr(text, "running; --interrupt asks it by a signal:\n"));
    close(client), close(from);
    ask(getpid(), true);
    rounds();
    assert_int_equal(answers, 0);
    assert_int_equal(told.shown, 1);
}

static void test_no_answer(void **state)
{
    (void)state;
    signals_on();
    ask(getpid(), false);
    uint64_t start = now_mono_ns();
    while (atomic_load(&h.region->freezing) != 0 && now_mono_ns() - start < 20000000000u) {
        process_drain(p);
        dump_round(p);
    }
    assert_true(now_mono_ns() - start >= 490000000u);
    rounds();
    assert_int_equal(told.error, 0);
    assert_int_equal(told.shown, 0);
    assert_non_null(strstr(text, "running, and did not answer:\n"));
    assert_int_equal(told.threads, 1);
}

static void test_may_not_be_asked(void **state)
{
    (void)state;
    signals_on();
    answers = 1;
    atomic_store(&h.region->signal_taken, 1);
    ask(getpid(), false);
    rounds();
    assert_int_equal(answers, 1);
    assert_int_equal(told.error, -EOPNOTSUPP);
    assert_non_null(strstr(told.message, "SIGUSR1 itself"));
    assert_string_equal(text, "");
}

#define RUNNERS 6
static struct runner {
    pthread_t thread;
    uint32_t slot;
    unsigned deaf; /* signals that it does not hear */
    _Atomic uint64_t turns;
} runners[RUNNERS];
static __thread struct runner *self;
static _Atomic bool stop;
static _Atomic unsigned parked;

/* As the agent does: the thread records its own stack and stands still as long as the freeze lasts. */
static void park(int signal)
{
    uint32_t n = atomic_load(&h.region->freezing);
    uint64_t commit;
    (void)signal;
    if (self == NULL || n == 0 || self->deaf-- != 0)
        return;
    self->deaf = 0;
    struct stile__slot *slot = stile__region_slot(h.region, self->slot);
    struct stile__record *r = stile__ring_reserve(stile__region_ring(h.region, p->size, self->slot),
                                                  stile__slot_cells(p->size, self->slot), &slot->head,
                                                  &slot->tail, stile__record_cells(2), &commit);
    if (r == NULL)
        abort();
    uint8_t cells = r->cells;
    memset(r, 0, sizeof *r);
    r->cells = cells;
    r->frames_block = r->block = STILE__BLOCK_NONE;
    record_fill(r, n);
    stile__ring_commit(&slot->head, commit);
    atomic_fetch_add(&parked, 1);
    while (atomic_load(&h.region->freezing) == n)
        usleep(1000);
    atomic_fetch_sub(&parked, 1);
}

static void *run(void *arg)
{
    self = arg;
    struct stile__slot *slot = stile__region_slot(h.region, self->slot);
    pthread_setname_np(pthread_self(), "runner");
    atomic_store(&slot->tid, (uint32_t)gettid());
    atomic_store(&slot->generation, 100 + self->slot);
    stile__stack_begin(&slot->status);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    while (!stop)
        self->turns++;
    return NULL;
}

/* All stand still at the same time, though every other signal is lost; then they run on. */
static void test_world_stops(void **state)
{
    struct sigaction act = {.sa_handler = park};
    uint64_t before[RUNNERS], sum = 0;
    (void)state;
    if (UNDER_TSAN)
        skip(); /* it runs handlers later, at a system call */
    sigaction(SIGUSR1, &act, NULL);
    p->signal = SIGUSR1;
    atomic_store(&h.region->crash_wanted, 1);
    p->ticks_wanted = false; /* crashes alone are reason enough to have a handler */
    stop = false;
    hand_made_wait_begin(&h, STILE__WAIT_JOIN, now_mono_ns());
    atomic_store(&h.region->slots_used, RUNNERS + 1);
    for (uint32_t i = 0; i < RUNNERS; i++) {
        runners[i] = (struct runner){.slot = i + 1, .deaf = i % 3};
        assert_int_equal(pthread_create(&runners[i].thread, NULL, run, &runners[i]), 0);
    }
    for (uint32_t i = 0; i < RUNNERS; i++)
        while (runners[i].turns == 0)
            usleep(1000);
    ask(getpid(), false);
    while (dump_urgent(p)) {
        process_drain(p);
        bool all = atomic_load(&parked) == RUNNERS;
        for (uint32_t i = 0; i < RUNNERS; i++)
            before[i] = runners[i].turns;
        usleep(2000);
        for (uint32_t i = 0; i < RUNNERS; i++)
            assert_true(!all || before[i] == runners[i].turns);
        dump_round(p);
    }
    rounds();
    assert_int_equal(told.error, 0);
    assert_int_equal(told.threads, RUNNERS + 1);
    assert_true(told.shown >= 1); /* under load some may not come to it in half a second */
    const char *at = text;
    for (uint32_t i = 0; i < told.shown - 1; i++, at++)
        assert_non_null(at = strstr(at, "\"runner\" running:\n  #0 0x"));
    for (uint32_t i = 0; i < RUNNERS; i++) {
        uint64_t turns = runners[i].turns;
        for (int k = 0; k < 20000 && runners[i].turns == turns; k++)
            usleep(1000);
        assert_true(runners[i].turns != turns);
        sum += runners[i].deaf;
    }
    if (told.shown == RUNNERS + 1)
        assert_int_equal(sum, 0);
    stop = true;
    for (uint32_t i = 0; i < RUNNERS; i++)
        pthread_join(runners[i].thread, NULL);
    atomic_store(&h.region->slots_used, 1);
    printf("%u of %u threads shown\n", told.shown, told.threads);
}

static void *sleep_unseen(void *arg)
{
    char byte;
    struct stile__slot *slot = stile__region_slot(h.region, 1);
    atomic_store(&slot->tid, (uint32_t)gettid());
    stile__stack_begin(&slot->status);
    atomic_store(&slot->state, STILE__SLOT_LIVE);
    while (read(*(int *)arg, &byte, 1) < 0)
        ;
    return NULL;
}

/* Nobody is kept standing for one that is blocked where no hook stands: it is told as that after a few looks. */
static void test_blocked_unseen(void **state)
{
    int ends[2];
    pthread_t thread;
    (void)state;
    if (UNDER_TSAN)
        skip(); /* its runtime has a thread of its own, too, once one was started */
    signals_on();
    hand_made_wait_begin(&h, STILE__WAIT_JOIN, now_mono_ns());
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pthread_create(&thread, NULL, sleep_unseen, &ends[0]), 0);
    struct stile__slot *slot = stile__region_slot(h.region, 1);
    while (atomic_load(&slot->state) != STILE__SLOT_LIVE ||
           dump_task_state(p, atomic_load(&slot->tid)) != 'S')
        usleep(1000);
    atomic_store(&h.region->slots_used, 2);
    ask(getpid(), false);
    for (int i = 0; i < 8; i++)
        dump_round(p);
    assert_false(dump_urgent(p));
    rounds();
    assert_int_equal(told.threads, 2);
    assert_int_equal(told.shown, 1);
    assert_non_null(strstr(text, " blocked (S"));
    assert_non_null(
        strstr(text, ", where no hook stands; --interrupt signals it:\n  (its stack is not known)\n"));
    assert_int_equal(write(ends[1], "", 1), 1);
    pthread_join(thread, NULL);
    atomic_store(&h.region->slots_used, 1);
    close(ends[0]), close(ends[1]);
}

/* What comes when nobody asks, or too late, is in no tree, and its blocks are free again. */
static void test_late(void **state)
{
    uint64_t commit;
    (void)state;
    record_write(STILE__FREEZE_DUMP + 5);
    hand_made_wait_begin(&h, STILE__WAIT_COND, now_mono_ns());
    struct stile__record *r = hand_made_reserve(&h, 1, &commit);
    struct stile__block *b = stile__region_block(h.region, p->size, 3);
    atomic_fetch_or(&h.region->blocks_used[0], 1ull << 3);
    b->next = STILE__BLOCK_NONE;
    b->used = 8;
    r->kind = STILE__RECORD_WALKED;
    r->flags = STILE__IS_DUMP;
    r->ticks = 0;
    r->piece = STILE__FREEZE_DUMP;
    r->n_new = 2;
    r->n_inline = 1;
    r->words[0] = hand_made_frame(1);
    r->frames_block = 3;
    stile__ring_commit(&h.slot->head, commit);
    ask(getpid(), false);
    rounds();
    assert_int_equal(atomic_load(&h.region->blocks_used[0]), 0);
    assert_non_null(strstr(text, "waiting (condition variable)"));
    assert_null(p->damage);
    assert_int_equal(p->ticks + p->late_ticks, 0);
    assert_int_equal(p->tree.n_samples, 0);
}

static void test_broken_page(void **state)
{
    (void)state;
    hand_made_wait_begin(&h, STILE__WAIT_COND, now_mono_ns());
    h.left->record.n_inline = 4000;
    ask(getpid(), false);
    rounds();
    assert_null(p->damage);
    assert_non_null(strstr(text, "(what it left cannot be used: "));
}

static void test_crash_comes_first(void **state)
{
    (void)state;
    atomic_store(&h.region->freezing, STILE__FREEZE_CRASH);
    ask(getpid(), false);
    assert_true(hear());
    assert_int_equal(told.error, -EBUSY);
    assert_string_equal(told.message, "it is crashing");
    assert_int_equal(atomic_load(&h.region->freezing), STILE__FREEZE_CRASH);
    close(client), close(from);
    atomic_store(&h.region->freezing, 0);
    ask(getpid(), false);
    atomic_store(&h.region->freezing, STILE__FREEZE_CRASH); /* takes it */
    dump_round(p);
    assert_true(hear());
    assert_int_equal(told.error, -EBUSY);
    assert_int_equal(atomic_load(&h.region->freezing), STILE__FREEZE_CRASH);
    assert_false(dump_pending(p));
}

static void test_ends(void **state)
{
    (void)state;
    signals_on();
    ask(getpid(), false);
    int first = client, its = from;
    ask(getpid(), false); /* a second one meanwhile */
    assert_true(hear());
    assert_int_equal(told.error, -EBUSY);
    close(client), close(from);
    client = first, from = its;
    ask(1 << 22, false);
    assert_true(hear());
    assert_int_equal(told.error, -ESRCH);
    close(client), close(from);
    client = first, from = its;
    process_end(p);
    assert_int_equal(atomic_load(&h.region->freezing), 0);
    assert_true(hear());
    assert_int_equal(told.error, -ESRCH);
    assert_string_equal(told.message, "it has ended");
    assert_false(dump_pending(p));
    ask(getpid(), false); /* its profile is finished */
    assert_true(hear());
    assert_int_equal(told.error, -ESRCH);
}

static void answer_wait(uint32_t request)
{
    uint32_t want = stile__answer_of(request) | STILE__ANSWER_DONE;
    for (int i = 0; i < 6000 && atomic_load(&h.region->answer) != want; i++) {
        if (p->slots != NULL) /* it has not ended */
            process_drain(p);
        dump_round(p);
        naming_answering(p);
        usleep(2000);
    }
    assert_int_equal(atomic_load(&h.region->answer), want);
    assert_int_equal(atomic_load(&h.region->freezing), 0);
    uint32_t n = atomic_load(&h.region->answer_len);
    assert_true(n < sizeof text);
    memcpy(text, stile__region_answer(h.region, p->size), n);
    text[n] = '\0';
}

/* The program asks: its own stack is in its ring beforehand, and nobody signals it. */
static void test_own_request(void **state)
{
    (void)state;
    signals_on();
    answers = 1;
    for (uint32_t request = 1; request <= 2; request++) {
        record_write(0);
        atomic_store(&h.region->dump_tid, (uint32_t)gettid());
        atomic_store(&h.region->dump_request, request);
        answer_wait(request);
        assert_memory_equal(text, STILE__DUMP_BEGIN, strlen(STILE__DUMP_BEGIN));
        assert_non_null(strstr(text, "\" asked for this dump:\n  #0 0x"));
        assert_non_null(strstr(text, " hand_made_frame at "));
        assert_non_null(strstr(text, STILE__DUMP_END));
        assert_int_equal(answers, 1);
    }
    /* What was there before is not shown again. */
    atomic_store(&h.region->dump_request, 3);
    answer_wait(3);
    assert_non_null(strstr(text, "asked for this dump:\n  (its stack is not known)\n"));
    process_end(p);
    atomic_store(&h.region->dump_request, 4);
    answer_wait(4);
    assert_string_equal(text, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_waiting),
        TEST(test_running),
        TEST(test_world_stops),
        TEST(test_running_until_a_tick),
        TEST(test_running_without_ticks),
        TEST(test_blocked_unseen),
        TEST(test_no_answer),
        TEST(test_may_not_be_asked),
        TEST(test_late),
        TEST(test_broken_page),
        TEST(test_crash_comes_first),
        TEST(test_ends),
        TEST(test_own_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
