/* The region's memory: a memfd, sized once, sealed, populated only where it is needed. Normal context. */
#include "profiler/agent/region_make.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Together with the header and the first slot's pages these make 64 KiB. */
#define FIRST_BLOCKS     2u
#define ALONE_BLOCKS     16u /* the same where the collector has yet to be started */
#define WAITS_BLOCKS     64u /* where threads that begin to wait at the start keep theirs as long as they wait */
#define START_PART       250u /* of a second that the collector may take to start */
#define SLOTS_LEAST      16u
#define BLOCKS_LEAST     64u
#define RULE_PAGES_LEAST 256u /* 1 MiB: enough for all but the largest programs */
#define REPORT_LEAST     65536u
#define SAMPLE_CELLS     8u    /* what a sample takes in its ring, if it is 50 frames deep */
#define RING_WAITS       2048u /* cells, where waits are recorded: they may come at any rate */
#define RING_LEAST                                                                                           \
    512u /* cells of the first threads' rings: at low rates room for some stacks of any depth */

/* Bytes of samples that a thread may make before the collector comes by: a twentieth of a second's, since it has to get a
 * processor first. */
static uint32_t ring_cells_for(unsigned hz, bool waits)
{
    uint32_t cells = waits ? RING_WAITS : RING_LEAST;
    while (cells < STILE__RING_CELLS_MAX && cells < hz / 20 * SAMPLE_CELLS)
        cells *= 2;
    return cells;
}

/* The largest region that the program's limits allow. file_max: that of a file. */
static int fit(struct stile__region_size *size, unsigned hz, bool waits, uint64_t file_max)
{
    struct rlimit space;
    *size = (struct stile__region_size){
        STILE__SLOT_MAX, STILE__BLOCK_MAX,   ring_cells_for(hz, waits), STILE__RULES_PAGES_MAX,
        waits,           STILE__REPORT_BYTES};
    /* Where address space is limited, it is the program's. */
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
        *size = (struct stile__region_size){
            SLOTS_LEAST * 16, BLOCKS_LEAST * 2, STILE__RING_CELLS_MIN, RULE_PAGES_LEAST, waits, REPORT_LEAST};
    while (stile__region_layout(*size).size > file_max) {
        if (size->slot_max == SLOTS_LEAST && size->block_max == BLOCKS_LEAST)
            return -EFBIG;
        size->ring_cells = STILE__RING_CELLS_MIN;
        size->report = size->report > REPORT_LEAST ? REPORT_LEAST : 0;
        size->rule_pages = size->rule_pages > RULE_PAGES_LEAST ? RULE_PAGES_LEAST : 0;
        if (size->slot_max > SLOTS_LEAST)
            size->slot_max /= 2;
        if (size->block_max > BLOCKS_LEAST)
            size->block_max /= 2;
    }
    return 0;
}

static int populate(void *at, uint64_t bytes)
{
    return madvise(at, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
}

/* Blocks for what is sampled until the collector has started and makes more. */
static uint32_t blocks_first(struct stile__region_size size, unsigned hz, bool alone)
{
    uint32_t n =
        (alone ? ALONE_BLOCKS : FIRST_BLOCKS) + hz / START_PART + (size.waits != 0 ? WAITS_BLOCKS : 0);
    return n < size.block_max ? n : size.block_max;
}

/* Gives a memfd its size. The limit of files' sizes may be as low as the program likes: for this it is as high as it may be. */
static int size_set(int fd, uint64_t size)
{
    struct rlimit file;
    const bool raised = getrlimit(RLIMIT_FSIZE, &file) == 0 && file.rlim_cur < size;
    if (raised && setrlimit(RLIMIT_FSIZE, &(struct rlimit){file.rlim_max, file.rlim_max}) != 0)
        return -errno;
    int err = ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
    if (raised)
        setrlimit(RLIMIT_FSIZE, &file);
    return err;
}

static int map(int fd, struct stile__region_size size, uint32_t blocks, struct stile__region **region)
{
    struct stile__region_layout l = stile__region_layout(size);
    int err = size_set(fd, l.size);
    if (err == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        err = -errno;
    if (err != 0)
        return err;
    void *at = mmap(NULL, l.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, l.size, MADV_DONTDUMP);
    err = madvise(at, l.size, MADV_DONTFORK) == 0 ? 0 : -errno;
    if (err == 0)
        err = populate(at, STILE__PAGE);
    if (err == 0)
        err = populate((char *)at + l.blocks, (uint64_t)blocks * STILE__BLOCK_SIZE);
    if (err != 0) {
        munmap(at, l.size);
        return err;
    }
    *region = at;
    (*region)->magic = STILE__REGION_MAGIC;
    (*region)->version = STILE__REGION_VERSION;
    (*region)->size = size;
    atomic_store_explicit(&(*region)->blocks_ready, blocks, memory_order_relaxed);
    return 0;
}

int stile__region_make(struct stile__region **region, int *fd, unsigned hz, bool alone, bool waits)
{
    const struct stile__region_size least = {SLOTS_LEAST * 4,  BLOCKS_LEAST, STILE__RING_CELLS_MIN,
                                             RULE_PAGES_LEAST, waits,        REPORT_LEAST};
    struct stile__region_size size;
    struct rlimit file = {RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &file);
    /* What fits is told by the hard limit alone where the soft one would leave nothing. */
    int err = fit(&size, hz, waits, file.rlim_cur);
    if (err == -EFBIG)
        err = fit(&size, hz, waits, file.rlim_max);
    if (err != 0)
        return err;
    *fd = memfd_create("stile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return -errno;
    /* Address space may be limited too (RLIMIT_AS): less will do. A memfd of a smaller size needs a new seal. */
    err = map(*fd, size, blocks_first(size, hz, alone), region);
    if (err == -ENOMEM && size.slot_max > least.slot_max) {
        close(*fd);
        *fd = memfd_create("stile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (*fd < 0)
            return -errno;
        err = map(*fd, least, blocks_first(least, hz, alone), region);
    }
    if (err != 0)
        close(*fd);
    return err;
}

void stile__region_unmap(struct stile__region *r, struct stile__region_size size)
{
    munmap(r, stile__region_layout(size).size);
}

void stile__region_unmake(struct stile__region *r)
{
    stile__region_unmap(r, r->size);
}
