/* signal/ownership_report.c: a violation by each reader ends the process, and says who both are. */
#include "tests/unit/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barriers/ownership_check.h"
#include "profiler/agent/crash/module.h"
#include "profiler/agent/signal/handler.h"

static const struct stile__region_size size_made = {16, 64, STILE__RING_CELLS_MIN, 64, 1, 0};
static struct stile__session session;
static struct stile__region *region;
static struct stile__slot *slot;

static int set_up(void **state)
{
    (void)state;
    region = mmap(NULL, stile__region_layout(size_made).size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(region != MAP_FAILED);
    region->size = size_made;
    region->debug = STILE__DEBUG_OWNERSHIP;
    memset(&session, 0, sizeof session);
    stile__session_size_set(&session, size_made);
    session.depth = STILE__DEPTH_MAX;
    session.signal = SIGPROF;
    atomic_store(&session.region, region);
    slot = stile__region_slot(region, 3);
    stile__session = &session;
    stile__modules_init();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stile__session = NULL;
    munmap(region, stile__region_layout(size_made).size);
    return 0;
}

/* What a child does before it reads, and as whom. */
struct plant {
    enum stile__stack_reader reader;
    enum stile__stack_state state;
    enum stile__wait_reason why;
    uint32_t slot_tid, lock, tid; /* less the child's; UINT32_MAX: 0 */
    bool scanned, broken, executing;
    const char *says[4];
};

static uint32_t of_child(uint32_t tid)
{
    return tid == UINT32_MAX ? 0 : (uint32_t)gettid() + tid;
}

static void ignore(int signal)
{
    (void)signal;
}

static void left_fill(void)
{
    struct stile__left *left = stile__region_left(region, size_made, 3);
    left->record.n_inline = 2;
    left->record.words[0] = 0x12345;
    left->record.words[1] = 0x30001;
}

/* Ends by SIGABRT whatever the program has made of it. */
static void read_as(void *arg)
{
    const struct plant *p = arg;
    uint64_t seen = 0;
    sigset_t all;
    signal(SIGABRT, ignore);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    atomic_store(&slot->tid, of_child(p->slot_tid));
    atomic_store(&slot->stack_lock, of_child(p->lock));
    stile__stack_begin(&slot->status);
    if (p->state == STILE__STACK_WAITING)
        CHILD_CHECK(stile__stack_wait(&slot->status, p->why));
    if (p->state == STILE__STACK_DEAD)
        stile__stack_die(&slot->status);
    left_fill();
    if (p->scanned)
        CHILD_CHECK(stile__scan_begin(&slot->status, &seen) == STILE__SCAN_TAKEN);
    if (p->broken)
        stile__stack_resume(&slot->status, NULL);
    if (p->executing)
        stile__ownership_wait_executing(region, slot, of_child(p->tid), p->why);
    else if (p->reader == STILE__READER_LEFT)
        stile__ownership_check_left(region, slot, seen);
    else
        stile__ownership_check(region, slot, of_child(p->tid), p->reader, NULL);
}

static void violates(const struct plant *p)
{
    stderr_begin();
    int status = in_child(read_as, (void *)(uintptr_t)p);
    char *text = stderr_end();
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("ended with %x: %s", (unsigned)status, text);
    for (size_t i = 0; i < sizeof p->says / sizeof *p->says && p->says[i] != NULL; i++)
        if (strstr(text, p->says[i]) == NULL)
            fail_msg("does not say '%s': %s", p->says[i], text);
    /* The reader's stack, by the unwind tables of this program. */
    assert_non_null(strstr(strstr(text, "reader: "), "ownership_report+0x"));
    free(text);
}

static void test_each_reader(void **state)
{
    static const struct plant plants[] = {
        {.reader = STILE__READER_SAMPLE,
         .state = STILE__STACK_RUNNING,
         .lock = UINT32_MAX,
         .says = {"nobody holds the stack's lock", "running; the stack's lock is free; its stack is its own",
                  "a sample's walk:"}},
        {.reader = STILE__READER_SAMPLE,
         .state = STILE__STACK_RUNNING,
         .slot_tid = 1,
         .says = {"the reader is not the stack's thread", "the stack's lock is held by thread "}},
        {.reader = STILE__READER_SAMPLE,
         .state = STILE__STACK_RUNNING,
         .tid = 1,
         .says = {"the reader takes itself for another thread", ", which takes itself for "}},
        {.reader = STILE__READER_BARRIERS,
         .state = STILE__STACK_DEAD,
         .says = {"the thread has left its slot", ", dead;", "a change of barriers:"}},
        {.reader = STILE__READER_BARRIERS,
         .state = STILE__STACK_RUNNING,
         .lock = 5,
         .says = {"another thread holds the stack's lock"}},
        {.reader = STILE__READER_PLANT,
         .state = STILE__STACK_WAITING,
         .why = STILE__WAIT_POLL,
         .says = {"a barrier is placed inside a wait", "waiting (poll); ", "a placing of barriers:"}},
        {.reader = STILE__READER_WAIT,
         .state = STILE__STACK_WAITING,
         .why = STILE__WAIT_COND,
         .says = {"the thread has given its stack away already", "waiting (condition variable); ",
                  "it left:\n  #0 0x12345\n  #1 0x30001\n", "a wait's walk:"}},
        {.reader = STILE__READER_LEFT,
         .state = STILE__STACK_WAITING,
         .why = STILE__WAIT_READ,
         .says = {"the reader has no scan", "waiting (read); ", "a reader of what was left:"}},
        {.reader = STILE__READER_LEFT,
         .state = STILE__STACK_WAITING,
         .why = STILE__WAIT_READ,
         .scanned = true,
         .broken = true,
         .says = {"the reader has lost its scan", "running; "}},
        {.executing = true,
         .state = STILE__STACK_RUNNING,
         .why = STILE__WAIT_MUTEX,
         .says = {"a thread executes in a wait for a reason that is not in the table", ", mutex:"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof plants / sizeof *plants; i++)
        violates(&plants[i]);
}

/* Returns, and says nothing. */
static void goes_well(const struct plant *p, uint32_t debug)
{
    stderr_begin();
    region->debug = debug;
    int status = in_child(read_as, (void *)(uintptr_t)p);
    char *text = stderr_end();
    assert_int_equal(status, 0);
    assert_string_equal(text, "");
    free(text);
}

static void test_owners_are_left_alone(void **state)
{
    static const struct plant plants[] = {
        {.reader = STILE__READER_SAMPLE, .state = STILE__STACK_RUNNING},
        {.reader = STILE__READER_WAIT, .state = STILE__STACK_RUNNING},
        {.reader = STILE__READER_PLANT, .state = STILE__STACK_RUNNING},
        {.reader = STILE__READER_SAMPLE, .state = STILE__STACK_WAITING, .why = STILE__WAIT_POLL},
        {.reader = STILE__READER_BARRIERS, .state = STILE__STACK_WAITING, .why = STILE__WAIT_POLL},
        {.reader = STILE__READER_LEFT,
         .state = STILE__STACK_WAITING,
         .why = STILE__WAIT_POLL,
         .scanned = true},
        {.executing = true, .state = STILE__STACK_RUNNING, .why = STILE__WAIT_COLLECTOR},
    };
    static const struct plant wrong = {
        .reader = STILE__READER_WAIT, .state = STILE__STACK_DEAD, .lock = UINT32_MAX, .tid = 1};
    static const struct plant executes = {
        .executing = true, .state = STILE__STACK_RUNNING, .why = STILE__WAIT_MUTEX};
    (void)state;
    for (size_t i = 0; i < sizeof plants / sizeof *plants; i++)
        goes_well(&plants[i], STILE__DEBUG_OWNERSHIP);
    goes_well(&wrong, STILE__DEBUG_WALK_TIME); /* nobody asks */
    goes_well(&executes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_owners_are_left_alone, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
