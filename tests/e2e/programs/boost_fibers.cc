// The same with Boost's fibers, whose stacks begin in assembly: `boost_fibers MS`.
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "work.h"

namespace context = boost::context;

static uint64_t work_ns;

WORK static uint64_t spin_on_fiber(uint64_t ns)
{
    return burn(ns);
}

// At the bottom it works a little, goes back to main, and so on.
WORK static context::fiber descend_on_fiber(int depth, context::fiber caller)
{
    if (depth > 1) {
        context::fiber below = descend_on_fiber(depth - 1, std::move(caller));
        return below;
    }
    for (uint64_t used = 0; used < work_ns;) {
        used += spin_on_fiber(2 * MS);
        caller = std::move(caller).resume();
    }
    return caller;
}

WORK static context::fiber boost_main(context::fiber caller)
{
    context::fiber below = descend_on_fiber(50, std::move(caller));
    return below;
}

template <typename Stack> static void run(Stack stack)
{
    context::fiber fiber(std::allocator_arg, stack,
                         [](context::fiber &&caller) { return boost_main(std::move(caller)); });
    while (fiber)
        fiber = std::move(fiber).resume();
}

int main(int, char **argv)
{
    work_ns = std::strtoull(argv[1], nullptr, 10) * MS / 2;
    run(context::fixedsize_stack(65536));
    run(context::protected_fixedsize_stack(65536));
    std::puts("done");
    return 0;
}
