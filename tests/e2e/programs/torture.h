/* What the parts of torture.cc share: chance, checks, counts, and stacks of frames that look after themselves. */
#ifndef STILE_E2E_TORTURE_H
#define STILE_E2E_TORTURE_H

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

#include "work.h"

/* Reproducible as far as threads are. */
struct Chance {
    uint64_t state;
    uint32_t below(uint32_t n)
    {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>((state >> 33) % n);
    }
    uint32_t between(uint32_t a, uint32_t b)
    {
        return a + below(b - a + 1);
    }
};

[[noreturn]] inline void wrong(const char *what, uint64_t is, uint64_t wanted)
{
    char line[200];
    int n = snprintf(line, sizeof line, "wrong: %s: %llu, not %llu\n", what,
                     static_cast<unsigned long long>(is), static_cast<unsigned long long>(wanted));
    if (write(2, line, static_cast<size_t>(n)) < 0)
        _exit(98);
    abort();
}

inline void expect(const char *what, uint64_t is, uint64_t wanted)
{
    if (is != wanted)
        wrong(what, is, wanted);
}

/* A word on the stack that has to be there, unchanged, when its frame goes. */
class Canary
{
  public:
    explicit Canary(uint64_t x) : word(x ^ reinterpret_cast<uintptr_t>(this))
    {
    }
    uint64_t value() const
    {
        return word ^ reinterpret_cast<uintptr_t>(this);
    }

  private:
    volatile uint64_t word;
};

/* One per frame that an exception or the thread's end takes away. */
class Guard
{
  public:
    Guard(int &count, uint64_t x) : n(count), canary(x), wanted(x)
    {
        n++;
    }
    Guard(const Guard &) = delete;
    Guard &operator=(const Guard &) = delete;
    ~Guard()
    {
        expect("canary of a guard", canary.value(), wanted);
        n--;
    }

  private:
    int &n;
    Canary canary;
    uint64_t wanted;
};

inline uint64_t now_ns()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

WORK inline uint64_t mix(uint64_t x)
{
    for (int i = 0; i < 200; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    return x;
}

/* Down so many frames of different sizes, and up again. What `bottom` returns comes back, and one for each frame. */
template <typename Fn> WORK uint64_t descend(uint32_t depth, uint64_t x, Fn &bottom)
{
    Canary canary(x + depth);
    char *some = static_cast<char *>(__builtin_alloca(16 + (x + depth) % 5 * 48));
    some[0] = static_cast<char>(depth);
    __asm__ volatile("" ::"r"(some) : "memory");
    uint64_t below;
    if (depth == 0)
        below = bottom();
    else
        below = descend(depth - 1, x, bottom);
    expect("canary of a frame", canary.value(), x + depth);
    expect("what is in a frame", static_cast<uint8_t>(some[0]), static_cast<uint8_t>(depth));
    return below + 1;
}

enum Kind {
    RECURSIONS,
    EXCEPTIONS,
    JUMPS,
    ESCAPES,
    FIBERS,
    FORKS,
    SPAWNS,
    PLUGINS,
    THREADS,
    STORMS,
    BACKTRACES,
    THROWS,
    NESTS,
    KINDS
};
extern std::atomic<uint64_t> done[KINDS];

/* torture_fibers.cc: work in fibers that any thread takes up where another one has left it. */
void fibers_make(uint64_t seed);
void fiber_turn(Chance &c);
void nest_turn(Chance &c);
uint64_t fibers_finish(Chance &c);

/* torture_signals.cc */
void signals_begin();
void signals_thread_begin(uint32_t storm_us);
void signals_thread_end();
void escape_turn(Chance &c);
void throw_turn(Chance &c);
void jump_turn(Chance &c);

/* torture_processes.cc */
void processes_begin(const char *self);
int child_main(const char *what);
void fork_turn(Chance &c);
void spawn_turn(Chance &c);

#endif
