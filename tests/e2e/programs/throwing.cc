// Exceptions through deep stacks: counts what was caught and destroyed, which nobody may change.
#include <cstdio>
#include <stdexcept>
#include <string>

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

int main()
{
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
