/* A program, its region and its hello as the collector is given them, of which anything may be damaged. */
#include "tests/unit/support.h"
#include "tests/unit/collector/fuzz_world.h"
#include "tests/unit/collector/hand_made.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/agent/region_make.h"

#define SLOTS      6u     /* that are in use, */
#define SLOTS_MORE 16384u /* and now and then */
#define RECORDS    4u     /* of a thread between two looks, at most */
#define BLOCKS     24u
#define SCRIBBLES  (1u << 24) /* of a child that nobody ends */

static uint64_t below(uint64_t *numbers, uint64_t n)
{
    return next_number(numbers) % n;
}

static bool one_in(uint64_t *numbers, uint64_t n)
{
    return below(numbers, n) == 0;
}

uint64_t world_value(uint64_t *numbers)
{
    static const uint64_t limits[] = {0,
                                      1,
                                      2,
                                      STILE__SLOT_MAX,
                                      STILE__BLOCK_MAX,
                                      STILE__BLOCK_DATA,
                                      STILE__SNAPSHOT_MAX,
                                      STILE__RING_CELLS_MIN,
                                      STILE__RING_CELLS_MAX,
                                      STILE__DEPTH_MAX,
                                      STILE__STUBS,
                                      STILE__REPORT_BYTES,
                                      INT32_MAX,
                                      UINT32_MAX,
                                      INT64_MAX,
                                      UINT64_MAX};
    uint64_t any = next_number(numbers);
    switch (below(numbers, 4)) {
    case 0:
        return limits[any % (sizeof limits / sizeof *limits)] + below(numbers, 3) - 1;
    case 1:
        return any % 64;
    case 2:
        return any >> any % 64;
    default:
        return any;
    }
}

static uint64_t frame(uint64_t *numbers)
{
    return one_in(numbers, 8) ? world_value(numbers) : (uintptr_t)&world_make + below(numbers, 200);
}

/* --- What is damaged */

struct part {
    char *at;
    uint64_t bytes;
};

/* Parts of a region, the small ones as often as the large ones. */
static struct part part_any(struct world *w)
{
    struct stile__region *r = w->region;
    uint32_t i = (uint32_t)below(&w->numbers, SLOTS);
    struct stile__region_layout l = stile__region_layout(w->size);
    uint64_t ring = below(&w->numbers, stile__slot_cells(w->size, i));
    switch (below(&w->numbers, 16)) {
    case 0:
        return (struct part){(char *)r, sizeof *r};
    case 1:
        return (struct part){(char *)&r->slots_used, 256};
    case 2:
        return (struct part){(char *)&r->heartbeat, 128};
    case 3:
        return (struct part){(char *)r->pieces, 8 * sizeof *r->pieces};
    case 4:
        return (struct part){(char *)r->blocks_used, 64};
    case 5:
        return (struct part){stile__region_modules(r), 512};
    case 6:
        return (struct part){(char *)stile__region_memo(r, w->size, i), sizeof(struct stile__memo)};
    case 7:
        return w->size.waits != 0 ? (struct part){(char *)stile__region_left(r, w->size, i), 256}
                                  : (struct part){(char *)r, sizeof *r};
    case 8:
        return (struct part){(char *)stile__region_block(r, w->size, (uint32_t)below(&w->numbers, BLOCKS)),
                             one_in(&w->numbers, 2) ? 8 : 256};
    case 9:
        return (struct part){(char *)r + l.rules, w->size.rule_pages != 0 ? 1u << 20 : 8};
    case 10:
        return w->size.report != 0 ? (struct part){stile__region_report(r, w->size), 1024}
                                   : (struct part){(char *)r, sizeof *r};
    case 11:
        return (struct part){(char *)r, w->bytes};
    case 12:
    case 13:
        return (struct part){(char *)stile__region_slot(r, i), sizeof(struct stile__slot)};
    default:
        return (struct part){(char *)(stile__region_ring(r, w->size, i) + ring), 64};
    }
}

static void part_damage(struct part part, uint64_t *numbers)
{
    static const uint8_t sizes[] = {1, 2, 4, 8};
    uint64_t size = sizes[below(numbers, 4)], value = 0;
    char *at = part.at + below(numbers, part.bytes / size) * size;
    memcpy(&value, at, size);
    switch (below(numbers, 4)) {
    case 0:
        value ^= 1ull << below(numbers, 8 * size);
        break;
    case 1:
        value += below(numbers, 5) - 2;
        break;
    default:
        value = world_value(numbers);
    }
    memcpy(at, &value, size);
}

/* A look at all slots that there can be, and at many threads, is slow; it is enough now and then. */
static void slots_bound(struct world *w)
{
    uint32_t used = atomic_load(&w->region->slots_used);
    if (used > SLOTS && used <= SLOTS_MORE && !one_in(&w->numbers, 50))
        atomic_store(&w->region->slots_used, SLOTS);
}

void world_damage(struct world *w)
{
    part_damage(part_any(w), &w->numbers);
    slots_bound(w);
}

/* --- What is right */

/* Fills a block and says so. Returns its number. */
static uint32_t block_take(struct world *w)
{
    uint32_t i = (uint32_t)below(&w->numbers, BLOCKS);
    struct stile__block *b = stile__region_block(w->region, w->size, i);
    b->next = one_in(&w->numbers, 2) ? STILE__BLOCK_NONE : (uint32_t)below(&w->numbers, BLOCKS);
    b->used = one_in(&w->numbers, 2) ? STILE__BLOCK_DATA : (uint32_t)below(&w->numbers, 512) * 8;
    for (uint32_t k = 0; k < 64; k++) {
        uint64_t word = one_in(&w->numbers, 3) ? 0x7000 + below(&w->numbers, 2048) * 8 : frame(&w->numbers);
        memcpy(b->data + k * sizeof word, &word, sizeof word);
    }
    atomic_fetch_or(&w->region->blocks_used[i / 64], 1ull << i % 64);
    return i;
}

static void snapshot_fill(struct world *w, struct stile__record *r, uint32_t n)
{
    for (int i = 0; i < STILE__REG_COUNT; i++)
        r->words[n + (uint32_t)i] = world_value(&w->numbers);
    r->words[n + STILE__REG_RIP] = frame(&w->numbers);
    r->words[n + STILE__REG_RSP] = r->stack_start = 0x7000;
    r->words[n + STILE__REG_RBP] = 0x7000 + below(&w->numbers, 1024) * 8;
    r->block = block_take(w);
    r->stack_len = (uint32_t)below(&w->numbers, 2 * STILE__BLOCK_DATA);
    r->lost_regs = one_in(&w->numbers, 4) ? (uint32_t)next_number(&w->numbers) : 0;
    r->n_barriers = one_in(&w->numbers, 4) ? (uint32_t)below(&w->numbers, 8) : 0;
}

/* A record that is right, of any kind, in what memory there is. n_words: with it. */
static void record_fill(struct world *w, struct stile__record *r, uint32_t n, bool wait, bool snapshot)
{
    *r = (struct stile__record){.cells = r->cells,
                                .kind = snapshot ? STILE__RECORD_SNAPSHOT : STILE__RECORD_WALKED,
                                .n_new = n,
                                .n_inline = n,
                                .ticks = 1,
                                .block = STILE__BLOCK_NONE,
                                .frames_block = STILE__BLOCK_NONE,
                                .reason = (uint8_t)(one_in(&w->numbers, 6) ? below(&w->numbers, 5) : 0),
                                .unloads = atomic_load(&w->region->unloads) / STILE__UNLOADS_ONE,
                                .piece = w->process != NULL ? w->process->piece : 0};
    for (uint32_t i = 0; i < n; i++)
        r->words[i] = frame(&w->numbers);
    if (snapshot)
        snapshot_fill(w, r, n); /* the child may have written over what is there */
    if (one_in(&w->numbers, 6)) {
        r->frames_block = block_take(w);
        r->n_new += (uint32_t)below(&w->numbers, 3000);
    }
    if (wait) {
        const struct stile__wait_words words = {below(&w->numbers, 1000000), 1 + below(&w->numbers, 8),
                                                frame(&w->numbers)};
        r->flags = STILE__IS_WAIT;
        memcpy(r->words + n + (snapshot ? STILE__REG_COUNT : 0), &words, sizeof words);
    } else {
        r->flags = (uint8_t)below(&w->numbers, 4);
        r->kept = one_in(&w->numbers, 32) ? (uint32_t)below(&w->numbers, 3) : 0;
        r->kind = (uint8_t)(snapshot && one_in(&w->numbers, 4) ? STILE__RECORD_VERIFY : r->kind);
    }
}

static void record_leave(struct world *w, uint32_t i)
{
    struct stile__slot *slot = stile__region_slot(w->region, i);
    uint32_t n = (uint32_t)below(&w->numbers, 24);
    bool wait = w->size.waits != 0 && one_in(&w->numbers, 3), snapshot = one_in(&w->numbers, 4);
    uint64_t commit;
    /* What the program writes by is its own: damage of these words ends no test, here. */
    if (atomic_load(&slot->head) - atomic_load(&slot->tail) > stile__slot_cells(w->size, i))
        atomic_store(&slot->head, atomic_load(&slot->tail));
    struct stile__record *r = stile__ring_reserve(
        stile__region_ring(w->region, w->size, i), stile__slot_cells(w->size, i), &slot->head, &slot->tail,
        stile__record_cells(n + STILE__REG_COUNT + STILE__WAIT_WORDS), &commit);
    if (r == NULL)
        return;
    record_fill(w, r, n, wait, snapshot);
    if (one_in(&w->numbers, 40))
        part_damage((struct part){(char *)r, sizeof *r}, &w->numbers);
    stile__ring_commit(&slot->head, commit);
}

static void wait_begin(struct world *w, uint32_t i)
{
    struct stile__slot *slot = stile__region_slot(w->region, i);
    struct stile__left *left = stile__region_left(w->region, w->size, i);
    uint64_t now = now_mono_ns();
    stile__stack_begin(&slot->status);
    *left =
        (struct stile__left){.since_ns = now - below(&w->numbers, 3000000000), .hook = frame(&w->numbers)};
    left->record.cells = STILE__LEFT_CELLS;
    record_fill(w, &left->record, (uint32_t)below(&w->numbers, 16), true, one_in(&w->numbers, 4));
    stile__stack_wait(&slot->status, 1 + (enum stile__wait_reason)below(&w->numbers, 8));
}

static void thread_go_on(struct world *w, uint32_t i)
{
    struct stile__slot *slot = stile__region_slot(w->region, i);
    if (atomic_load(&slot->state) != STILE__SLOT_LIVE || one_in(&w->numbers, 20)) {
        atomic_store(&slot->tid, (uint32_t)w->program + i);
        atomic_fetch_add(&slot->generation, 1);
        slot->birth_mono_ns = now_mono_ns();
        atomic_store(&slot->signals, 0);
        atomic_store(&slot->state, STILE__SLOT_LIVE);
    }
    atomic_fetch_add(&slot->signals, 1);
    for (uint64_t n = below(&w->numbers, RECORDS); n-- > 0;)
        record_leave(w, i);
    if (w->size.waits != 0 && one_in(&w->numbers, 2))
        wait_begin(w, i);
    if (!one_in(&w->numbers, 12))
        return;
    memcpy(slot->comm, "sixteen letters!", 16);
    atomic_store(&slot->exit_cpu_ns, below(&w->numbers, 2000000000));
    atomic_store(&slot->exit_mono_ns, now_mono_ns());
    atomic_store(&slot->state, STILE__SLOT_EXITED);
}

/* Starts and stops, as the toggle does it. */
static void pieces_go_on(struct world *w)
{
    struct stile__region *r = w->region;
    uint32_t last = atomic_load(&r->pieces_started);
    struct stile__piece *p = &r->pieces[last % STILE__PIECES];
    if (atomic_load(&p->state) == STILE__PIECE_RUNNING) {
        p->stop_mono_ns = now_mono_ns();
        atomic_store(&p->state, STILE__PIECE_STOPPED);
    } else {
        p = &r->pieces[(last + 1) % STILE__PIECES];
        p->start_mono_ns = now_mono_ns();
        atomic_store(&p->state, STILE__PIECE_RUNNING);
        atomic_store(&r->pieces_started, last + 1);
    }
}

void world_go_on(struct world *w)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        thread_go_on(w, i);
    if (w->region->toggle != 0 && one_in(&w->numbers, 3))
        pieces_go_on(w);
    if (one_in(&w->numbers, 10))
        atomic_fetch_add(&w->region->unloads, STILE__UNLOADS_ONE);
    if (one_in(&w->numbers, 10))
        atomic_fetch_add(&w->region->drain_request, 1);
    if (one_in(&w->numbers, 10))
        atomic_fetch_add(&w->region->blocks_short, 1);
    uint32_t used = atomic_load(&w->region->slots_used);
    if (used < SLOTS || (used > SLOTS && !one_in(&w->numbers, 3)))
        atomic_store(&w->region->slots_used, SLOTS);
    slots_bound(w);
}

/* --- Its life */

static void header_fill(struct world *w, unsigned hz)
{
    struct stile__region *r = w->region;
    uint64_t *numbers = &w->numbers;
    char text[128];
    r->hz = hz;
    r->period_ns = 1000000000 / hz;
    r->depth = one_in(numbers, 4) ? 5 : STILE__DEPTH_MAX;
    r->start_unix_ns = 1700000000000000000ull;
    r->start_mono_ns = now_mono_ns() - 5000000000u;
    r->start_cpu_ns = one_in(numbers, 2) ? 1ull << 61 : 0;
    r->tick_ns = 4000000;
    r->ticks_wanted = !one_in(numbers, 4);
    r->block_rate_ns = w->size.waits != 0 ? 1000 : 0;
    r->advance_ns = one_in(numbers, 2) ? 0 : STILE__ADVANCE_NS;
    r->toggle = one_in(numbers, 3) ? SIGUSR1 : 0;
    r->interval_ns = one_in(numbers, 3) ? STILE__INTERVAL_NS_MIN : 0;
    r->signal = SIGPROF;
    r->dump = one_in(numbers, 2) ? SIGUSR2 : 0;
    r->debug = (uint32_t)below(numbers, 16);
    r->barriers = (uint32_t)below(numbers, STILE__BARRIERS_WISHES);
    r->stubs = (uintptr_t)&world_make;
    r->stub_entries = r->stubs + 4096;
    atomic_store(&r->crash_wanted, (uint32_t)below(numbers, 2));
    int n = snprintf(text, sizeof text, "@\n%lx-%lx r-xp 00000000 00:00 0 %*s/bin/true\n",
                     (unsigned long)(uintptr_t)&header_fill & ~4095ul,
                     ((unsigned long)(uintptr_t)&header_fill & ~4095ul) + 8192, 10, "");
    memcpy(stile__region_modules(r), text, (size_t)n);
    atomic_store(&r->modules_len, (uint32_t)n);
    atomic_store(&r->slots_used, SLOTS);
}

_Noreturn static void program_main(struct world *w, bool scribbler)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t i = 0; scribbler && i < SCRIBBLES; i++) {
        part_damage(part_any(w), &w->numbers);
        if (i % 4 == 0) /* so that not all of it is garbage at once */
            world_go_on(w);
    }
    for (;;)
        pause();
}

void world_make(struct world *w, uint64_t seed, bool scribbler)
{
    struct stile__region *made;
    struct stat;
    *w = (struct world){.numbers = seed};
    unsigned hz = one_in(&w->numbers, 4) ? 10000 : 100;
    bool waits = one_in(&w->numbers, 2);
    assert_int_equal(stile__region_make(&made, &w->fd, hz, false, waits), 0);
    w->size = made->size;
    w->bytes = stile__region_layout(w->size).size;
    stile__region_unmake(made);
    /* Once more, so that the child has it, too. */
    w->region = mmap(NULL, w->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, w->fd, 0);
    assert_ptr_not_equal(w->region, MAP_FAILED);
    header_fill(w, hz);
    w->program = fork();
    if (w->program == 0)
        program_main(w, scribbler);
    assert_true(w->program > 0);
}

static void descriptors_fill(const struct world *w, int *fds)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)w->program);
    fds[STILE__HELLO_FD_REGION] = fcntl(w->fd, F_DUPFD_CLOEXEC, 0);
    fds[STILE__HELLO_FD_MAPS] = open(path, O_RDONLY | O_CLOEXEC);
    fds[STILE__HELLO_FD_PIDFD] = (int)syscall(SYS_pidfd_open, w->program, 0);
    for (int i = 0; i < STILE__HELLO_FDS; i++)
        assert_true(fds[i] >= 0);
}

bool world_hand_over(struct world *w, const char **why)
{
    static struct stile__hello hello;
    int fds[STILE__HELLO_FDS];
    descriptors_fill(w, fds);
    hello.pid = w->program;
    w->process = process_new(&hello, fds, w->program, why);
    if (w->process != NULL && one_in(&w->numbers, 2))
        w->process->used_cpu_ns = 1ull << 62; /* it may have used so much */
    return w->process != NULL;
}

void world_mend(struct world *w)
{
    if (w->process->damage == NULL)
        return;
    w->process->damage = NULL;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct stile__slot *slot = stile__region_slot(w->region, i);
        atomic_store(&slot->tail, atomic_load(&slot->head));
    }
}

void world_kill(struct world *w)
{
    siginfo_t info;
    kill(w->program, SIGKILL);
    /* Its number stays its own. */
    assert_int_equal(waitid(P_PID, (id_t)w->program, &info, WEXITED | WNOWAIT), 0);
}

void world_free(struct world *w)
{
    if (w->process != NULL)
        process_free(w->process);
    world_kill(w);
    assert_int_equal(waitpid(w->program, NULL, 0), w->program);
    munmap(w->region, w->bytes);
    close(w->fd);
}

struct stile__hello *world_hello(const char *directory, size_t *size)
{
    struct stile__hello *h = calloc(1, sizeof *h);
    size_t n = 0;
    assert_non_null(h);
    for (int i = 0; i < STILE__HELLO_TEXTS; i++)
        n += (size_t)snprintf(h->text + n, sizeof h->text - n, "%s%s",
                              i == STILE__HELLO_COMMAND ? "app --fast" : directory,
                              i == STILE__HELLO_COMMAND || i == STILE__HELLO_CWD ? "" : "/x.pb.gz") +
             1;
    h->type = STILE__MESSAGE_HELLO;
    h->version = STILE__REGION_VERSION;
    h->text_len = (uint32_t)n;
    *size = offsetof(struct stile__hello, text) + n;
    return h;
}
