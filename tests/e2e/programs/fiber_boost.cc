// Boost's fibers, and exceptions on them: thrown and caught there, and the one by which Boost ends a fiber.
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <memory>
#include <utility>

#include "fiber_moves.h"
#include "rounds.h"

namespace context = boost::context;

namespace
{

constexpr unsigned FRAMES = 30; // that have something to destroy

struct fiber {
    context::fiber here, back;
    unsigned number = 0;
    bool begun = false;
    unsigned guards = 0; // destroyed
};

struct guard {
    unsigned *destroyed;
    ~guard()
    {
        ++*destroyed;
    }
};

WORK void yield_below(fiber *f, unsigned depth)
{
    guard g{&f->guards};
    if (depth > 1)
        yield_below(f, depth - 1);
    else
        f->back = std::move(f->back).resume();
    __asm__ volatile("");
}

WORK void throw_below(unsigned depth, unsigned *destroyed)
{
    guard g{destroyed};
    work_a_little();
    if (depth > 1)
        throw_below(depth - 1, destroyed);
    else
        throw static_cast<long>(depth);
    __asm__ volatile("");
}

} // namespace

unsigned kind_threads()
{
    return 2;
}

void *kind_make(unsigned number)
{
    auto *f = new fiber;
    f->number = number;
    f->here = context::fiber(std::allocator_arg, context::fixedsize_stack(FIBER_STACK),
                             [f](context::fiber &&caller) {
                                 f->back = std::move(caller);
                                 f->begun = true;
                                 fiber_main(f->number, f);
                                 return std::move(f->back);
                             });
    return f;
}

WORK void kind_resume(void *one)
{
    auto *f = static_cast<fiber *>(one);
    f->here = std::move(f->here).resume();
}

WORK void kind_yield(void *one)
{
    auto *f = static_cast<fiber *>(one);
    yield_below(f, FRAMES);
    CHECK(f->guards == FRAMES);
    f->guards = 0;
}

void kind_try()
{
    unsigned destroyed = 0;
    long caught = 0;
    try {
        throw_below(FRAMES, &destroyed);
    } catch (long thrown) {
        caught = thrown;
    }
    CHECK(caught == 1 && destroyed == FRAMES);
}

void kind_end(void *one)
{
    auto *f = static_cast<fiber *>(one);
    f->here = context::fiber();
    CHECK(f->guards == (f->begun ? FRAMES : 0));
    delete f;
}
