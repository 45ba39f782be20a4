/* The region's memory: a memfd, sized once, sealed, populated only where it is needed. Normal context. */
#include "profiler/agent/region_make.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Together with the header and the first slot's pages these make 64 KiB. */
#define FIRST_BLOCKS 2u
#define SLOTS_LEAST  16u
#define BLOCKS_LEAST 64u

/* The largest region that the program's limits allow. */
static int fit(uint32_t *slot_max, uint32_t *block_max)
{
    struct rlimit file;
    *slot_max = STILE__SLOT_MAX;
    *block_max = STILE__BLOCK_MAX;
    /* Where address space is limited, it is the program's. */
    if (getrlimit(RLIMIT_AS, &file) == 0 && file.rlim_cur != RLIM_INFINITY) {
        *slot_max = SLOTS_LEAST * 16;
        *block_max = BLOCKS_LEAST * 2;
    }
    if (getrlimit(RLIMIT_FSIZE, &file) != 0 || file.rlim_cur == RLIM_INFINITY)
        return 0;
    while (stile__region_layout(*slot_max, *block_max).size > file.rlim_cur) {
        if (*slot_max == SLOTS_LEAST && *block_max == BLOCKS_LEAST)
            return -EFBIG;
        if (*slot_max > SLOTS_LEAST)
            *slot_max /= 2;
        if (*block_max > BLOCKS_LEAST)
            *block_max /= 2;
    }
    return 0;
}

static int populate(void *at, uint64_t bytes)
{
    return madvise(at, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
}

static int map(int fd, uint32_t slot_max, uint32_t block_max, struct stile__region **region)
{
    struct stile__region_layout l = stile__region_layout(slot_max, block_max);
    if (ftruncate(fd, (off_t)l.size) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        return -errno;
    void *at = mmap(NULL, l.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, l.size, MADV_DONTDUMP);
    int err = madvise(at, l.size, MADV_DONTFORK) == 0 ? 0 : -errno;
    if (err == 0)
        err = populate(at, STILE__PAGE);
    if (err == 0)
        err = populate((char *)at + l.blocks, (uint64_t)FIRST_BLOCKS * STILE__BLOCK_SIZE);
    if (err != 0) {
        munmap(at, l.size);
        return err;
    }
    *region = at;
    (*region)->magic = STILE__REGION_MAGIC;
    (*region)->version = STILE__REGION_VERSION;
    (*region)->slot_max = slot_max;
    (*region)->block_max = block_max;
    atomic_store_explicit(&(*region)->blocks_ready, FIRST_BLOCKS, memory_order_relaxed);
    return 0;
}

int stile__region_make(struct stile__region **region, int *fd)
{
    uint32_t slot_max, block_max;
    int err = fit(&slot_max, &block_max);
    if (err != 0)
        return err;
    *fd = memfd_create("stile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return -errno;
    /* Address space may be limited too (RLIMIT_AS): less will do. A memfd of a smaller size needs a new seal. */
    err = map(*fd, slot_max, block_max, region);
    if (err == -ENOMEM && slot_max > SLOTS_LEAST * 4) {
        close(*fd);
        *fd = memfd_create("stile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (*fd < 0)
            return -errno;
        err = map(*fd, SLOTS_LEAST * 4, BLOCKS_LEAST, region);
    }
    if (err != 0)
        close(*fd);
    return err;
}

void stile__region_unmake(struct stile__region *r)
{
    munmap(r, stile__region_layout(r->slot_max, r->block_max).size);
}
