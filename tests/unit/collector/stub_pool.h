/* Stubs as the program's barriers have them, with their unwind information, for walks through copies of stacks. */
#ifndef STILE_TESTS_UNIT_STUB_POOL_H
#define STILE_TESTS_UNIT_STUB_POOL_H

#include "profiler/collector/unwinder.h"

extern const char stub_pool[] __attribute__((visibility("hidden")));
extern uint8_t stub_pool_entries[] __attribute__((visibility("hidden")));

static inline struct stubs stub_pool_places(void)
{
    return (struct stubs){(uintptr_t)stub_pool, (uintptr_t)stub_pool_entries};
}

static inline uint64_t stub_pool_address(uint64_t stub)
{
    return (uintptr_t)stub_pool + stub * STILE__STUB_BYTES;
}

/* Puts a stub into the place of the return address that the copy of a stack has at an address. */
static inline struct stile__barrier_seen stub_pool_place(const struct snapshot *s, uint8_t *bytes,
                                                         uint64_t slot, uint64_t stub)
{
    struct stile__barrier_seen b = {.stub = stub};
    uint64_t address = stub_pool_address(stub);
    __builtin_memcpy(&b.ra, bytes + (slot - s->start), sizeof b.ra);
    __builtin_memcpy(bytes + (slot - s->start), &address, sizeof address);
    return b;
}

#endif
