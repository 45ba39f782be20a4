/* Stubs: what a stack barrier puts in the place of a return address.
 *
 * A stub is two instructions that nobody can tell from a return: it marks its entry as hit and goes on to the address that
 * the entry has. It touches no register, no flag and no stack, and belongs to no thread: a hit is right whoever takes it.
 * Stubs and entries are private memory, so that a forked child has them as it has the stacks.
 *
 * Invariant: an entry's `ra` is right from before the stub stands in a slot until nobody can be in it any more; it
 * changes only when the stub is used again. So a stub that stays in a slot that nobody clears stays right for ever. */
#ifndef STILE_BARRIERS_STUB_H
#define STILE_BARRIERS_STUB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/layout.h"

#define STILE__STUB_NONE      0u /* stub 0 is never used, so that zeros are empty lists */
#define STILE__STUB_SELF_TEST 1u /* in no thread's list; see unwind/self_test.h */

enum stile__stub_state {
    STILE__STUB_IDLE,    /* in its thread's queue of those that can be used, or in no thread's */
    STILE__STUB_PENDING, /* taken for a place in the walk that is under way; in no slot yet */
    STILE__STUB_LIVE,    /* in a slot, on the chain of its thread */
    STILE__STUB_LEAVING  /* hit or dead, but somebody was seen inside: not to be used before he is gone */
};

/* The assembly knows where ra and hit are. */
struct stile__stub_entry {
    _Atomic uint64_t ra; /* where the stub goes on */
    uint64_t slot;       /* the address of the return address that it stands for */
    uint32_t kept;       /* frames from the root that are as they were as long as it is not hit */
    uint32_t next;       /* in the list that it is on */
    _Atomic uint8_t hit; /* set by the stub, and by the cleanup of an exception */
    uint8_t state;       /* enum stile__stub_state */
    uint8_t pad[2];
    uint32_t seen; /* number of the walk that last found somebody inside */
};
_Static_assert(sizeof(struct stile__stub_entry) == STILE__STUB_ENTRY, "as the assembly has it");
_Static_assert(offsetof(struct stile__stub_entry, ra) == 0 && offsetof(struct stile__stub_entry, hit) == 24,
               "as the assembly has it");

extern const uintptr_t stile__stubs; /* where the first one is */
extern struct stile__stub_entry stile__stub_entries[STILE__STUBS];

/* Stubs go to threads by the chunk. */
#define STILE__STUB_CHUNK 64u

/* Claims a chunk for the calling thread: its number, or UINT32_MAX if there is none. Async-signal-safe. */
uint32_t stile__stub_chunk_take(void);

/* Gives a chunk back. None of its stubs may stand in a slot. Async-signal-safe. */
void stile__stub_chunk_give_back(uint32_t chunk);

/* In the child of a fork, in its only thread, which has given its own back: so are those of all others. */
void stile__stub_chunks_forked(void);

/* The number of the stub that an address is in, or STILE__STUB_NONE. Async-signal-safe. */
static inline uint32_t stile__stub_of(uint64_t address)
{
    uint64_t at = address - stile__stubs;
    return at < (uint64_t)STILE__STUBS * STILE__STUB_BYTES ? (uint32_t)(at / STILE__STUB_BYTES)
                                                           : STILE__STUB_NONE;
}

static inline uint64_t stile__stub_address(uint32_t stub)
{
    return stile__stubs + (uint64_t)stub * STILE__STUB_BYTES;
}

/* Where a stub goes on. Async-signal-safe. */
static inline uint64_t stile__stub_ra(uint32_t stub)
{
    return atomic_load_explicit(&stile__stub_entries[stub].ra, memory_order_relaxed);
}

/* An address of code, or where it goes on if it is in a stub. Async-signal-safe. */
static inline uint64_t stile__stub_through(uint64_t address)
{
    uint32_t stub = stile__stub_of(address);
    return stub == STILE__STUB_NONE ? address : stile__stub_ra(stub);
}

#endif
