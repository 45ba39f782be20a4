/* A process as the collector sees it, of which the test itself is the program. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "profiler/agent/region_make.h"

void hand_made_descriptors(int region_fd, int *fds)
{
    fds[STILE__HELLO_FD_REGION] = fcntl(region_fd, F_DUPFD_CLOEXEC, 0);
    fds[STILE__HELLO_FD_MAPS] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    fds[STILE__HELLO_FD_PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
    for (int i = 0; i < STILE__HELLO_FDS; i++)
        assert_true(fds[i] >= 0);
}

/* start_mono_ns is a minute ago where there are waits: they may be as old. */
static void make(struct hand_made *h, bool waits, uint64_t rate_ns, uint64_t advance_ns)
{
    static struct stile__hello hello;
    const char *why;
    int fd, fds[STILE__HELLO_FDS];

    assert_int_equal(stile__region_make(&h->region, &fd, 100, false, waits), 0);
    h->region->hz = 100;
    h->region->period_ns = 10000000;
    h->region->depth = STILE__DEPTH_MAX;
    h->region->start_cpu_ns = 1ull << 62; /* the test's own CPU time is no part of it */
    h->region->start_unix_ns = 1700000000000000000ull;
    h->region->start_mono_ns = now_mono_ns() - (waits ? HAND_MADE_AGE_NS : 0);
    h->region->ticks_wanted = 1;
    h->region->block_rate_ns = rate_ns;
    h->region->advance_ns = advance_ns;
    h->slot = stile__region_slot(h->region, 0);
    atomic_store(&h->slot->tid, (uint32_t)gettid());
    atomic_store(&h->slot->generation, 1);
    atomic_store(&h->slot->state, STILE__SLOT_LIVE);
    atomic_store(&h->region->slots_used, 1);
    hand_made_descriptors(fd, fds);
    close(fd);
    hello.pid = getpid();
    h->process = process_new(&hello, fds, getpid(), &why);
    if (h->process == NULL)
        fail_msg("%s", why);
    h->process->used_cpu_ns = 1ull << 62; /* as much as the test may book */
}

void hand_made_new(struct hand_made *h)
{
    make(h, false, 0, 0);
}

void hand_made_waits_new(struct hand_made *h, uint64_t rate_ns, uint64_t advance_ns)
{
    make(h, true, rate_ns, advance_ns);
    h->left = stile__region_left(h->region, h->process->size, 0);
}

void hand_made_free(struct hand_made *h)
{
    process_free(h->process);
    stile__region_unmake(h->region);
}

struct stile__record *hand_made_reserve(struct hand_made *h, uint32_t n_words, uint64_t *commit)
{
    struct stile__record *r = stile__ring_reserve(stile__region_ring(h->region, h->process->size, 0),
                                                  stile__slot_cells(h->process->size, 0), &h->slot->head,
                                                  &h->slot->tail, stile__record_cells(n_words), commit);
    if (r == NULL)
        abort(); /* the test writes more than it drains */
    r->n_new = r->n_inline = r->kept = r->label_set = 0;
    r->walk_cycles = r->lost_regs = 0;
    r->frames_block = STILE__BLOCK_NONE;
    r->reason = 0;
    r->stack_start = 0;
    r->unloads = 0;
    r->stack_len = r->piece = 0;
    r->flags = 0;
    r->n_barriers = 0;
    r->block = STILE__BLOCK_NONE;
    r->ticks = 1;
    return r;
}

void hand_made_tick(struct hand_made *h, const uint64_t *frames, uint32_t n, enum stile__reason reason,
                    uint32_t ticks)
{
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(h, n, &commit);
    r->n_new = r->n_inline = n;
    r->reason = (uint8_t)reason;
    r->ticks = ticks;
    if (n != 0)
        memcpy(r->words, frames, n * sizeof *frames);
    stile__ring_commit(&h->slot->head, commit);
}
