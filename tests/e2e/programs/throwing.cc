// Exceptions through deep stacks: counts what was caught and destroyed, which nobody may change. `throwing MS` throws
// for so long through one to twenty frames, each a function of its own, and nothing else.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include "work.h"

namespace deep
{

long destroyed;

struct guard {
    ~guard()
    {
        destroyed++;
    }
};

WORK uint64_t leaf_work(uint64_t ns)
{
    return burn(ns);
}

WORK long descend(long depth, uint64_t ns, bool fail)
{
    guard g;
    if (depth == 0) {
        leaf_work(ns);
        if (fail)
            throw std::runtime_error("bottom");
        return 0;
    }
    long below = descend(depth - 1, ns, fail);
    return below + 1;
}

WORK long descend_and_rethrow(long depth)
{
    guard g;
    if (depth == 0)
        throw std::logic_error("rethrown");
    try {
        return descend_and_rethrow(depth - 1) + 1;
    } catch (const std::logic_error &) {
        throw;
    }
}

} // namespace deep

namespace many
{

struct thrown {
    int frames;
};

WORK void raise_it(int frames)
{
    deep::guard g;
    throw thrown{frames};
}

// The frame number N from the one that throws.
template <int N> WORK void through(int frames)
{
    deep::guard g;
    if constexpr (N == 1)
        raise_it(frames);
    else
        through<N - 1>(frames);
}

template <int... N> WORK long catch_one(int frames, std::integer_sequence<int, N...>)
{
    static constexpr std::array<void (*)(int), sizeof...(N)> ways = {through<N + 1>...};
    try {
        ways[frames - 1](frames);
    } catch (const thrown &t) {
        return t.frames;
    }
    return 0;
}

WORK long throw_for(uint64_t ns)
{
    long wrong = 0;
    for (uint64_t begin = thread_cpu_ns(); thread_cpu_ns() - begin < ns;)
        for (int frames = 1; frames <= 20; frames++)
            wrong += catch_one(frames, std::make_integer_sequence<int, 20>()) != frames;
    return wrong;
}

} // namespace many

int main(int argc, char **argv)
{
    if (argc > 1) {
        std::printf("wrong %ld\n", many::throw_for(std::strtoull(argv[1], nullptr, 10) * MS));
        return 0;
    }
    long caught = 0, depth = 0;
    for (int i = 0; i < 200; i++) {
        try {
            deep::descend(500, 3 * MS, true);
        } catch (const std::runtime_error &e) {
            caught += std::string(e.what()) == "bottom";
        }
        try {
            deep::descend_and_rethrow(50);
        } catch (const std::logic_error &) {
            caught++;
        }
    }
    depth = deep::descend(1000, 400 * MS, false);
    std::printf("caught %ld destroyed %ld depth %ld\n", caught, deep::destroyed, depth);
    return 0;
}
