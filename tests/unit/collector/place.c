/* What a place in a program looks like: its stack and registers, as a snapshot has them. */
#include "tests/unit/collector/place.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"

/* Other frames' memory: past every sanitizer. */
static void copy(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

void place_fill(struct place *p, const ucontext_t *uc)
{
    static const uint8_t order[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                    REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                    REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    pthread_attr_t attr;
    void *low;
    size_t size;

    pthread_getattr_np(pthread_self(), &attr);
    pthread_attr_getstack(&attr, &low, &size);
    pthread_attr_destroy(&attr);
    for (int i = 0; i < STILE__REG_COUNT; i++)
        p->snapshot.regs[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
    p->snapshot.start = p->snapshot.regs[STILE__REG_RSP] - 128;
    p->snapshot.len = (uintptr_t)low + size - p->snapshot.start;
    p->snapshot.bytes = p->bytes;
    if (p->snapshot.len > sizeof p->bytes)
        p->snapshot.len = sizeof p->bytes;
    copy(p->bytes, (const void *)p->snapshot.start, p->snapshot.len);
}

int place_mappings(struct mapping_table *mappings)
{
    mappings_init(mappings, getpid());
    char *maps = file_text("/proc/self/maps");
    int err = mappings_update(mappings, maps, strlen(maps), 0);
    free(maps);
    return err;
}
