/* Which chunks of stubs are whose. Async-signal-safe. */
#include "barriers/stub.h"

#include "profiler/agent/signal/faults.h"

#include "profiler/agent/signal/poison.h"

#define CHUNKS (STILE__STUBS / STILE__STUB_CHUNK)
_Static_assert(CHUNKS % 64 == 0, "words of bits");

static _Atomic uint64_t claimed[CHUNKS / 64];
static _Atomic uint32_t next; /* goes round: a chunk that was given back rests as long as can be */

/* Bounded: looks at each chunk once. */
uint32_t stile__stub_chunk_take(void)
{
    uint32_t from = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed);
    for (uint32_t k = 0; k < CHUNKS; k++) {
        uint32_t chunk = (from + k) % CHUNKS;
        uint64_t bit = 1ull << chunk % 64;
        if (chunk * STILE__STUB_CHUNK >= stile__fault_stubs())
            continue;
        /* Acquire pairs with the release of who had it: his stubs are in no slot any more. */
        if (!(atomic_load_explicit(&claimed[chunk / 64], memory_order_relaxed) & bit) &&
            !(atomic_fetch_or_explicit(&claimed[chunk / 64], bit, memory_order_acquire) & bit)) {
            if (k != 0)
                atomic_store_explicit(&next, chunk + 1, memory_order_relaxed);
            return chunk;
        }
    }
    return UINT32_MAX;
}

void stile__stub_chunk_give_back(uint32_t chunk)
{
    atomic_fetch_and_explicit(&claimed[chunk / 64], ~(1ull << chunk % 64), memory_order_release);
}

void stile__stub_chunks_forked(void)
{
    for (uint32_t i = 0; i < CHUNKS / 64; i++)
        atomic_store_explicit(&claimed[i], 0, memory_order_relaxed);
}
