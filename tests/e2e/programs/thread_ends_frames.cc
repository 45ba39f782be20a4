// The same in C++: destructors, handlers that rethrow, and handlers of C.
#include <cxxabi.h>
#include <pthread.h>

#include "rounds.h"
#include "thread_ends.h"

namespace
{

struct guard {
    unsigned depth;
    ~guard()
    {
        frame_cleaned(depth);
    }
};

WORK void catch_and_go_on(unsigned depth, void (*at_the_bottom)())
{
    try {
        frames_descend(depth - 1, at_the_bottom);
    } catch (const abi::__forced_unwind &) {
        frame_cleaned(depth);
        throw;
    }
    frame_cleaned(depth);
}

WORK void handle(unsigned depth, void (*at_the_bottom)())
{
    pthread_cleanup_push(
        [](void *d) { frame_cleaned(static_cast<unsigned>(reinterpret_cast<uintptr_t>(d))); },
        reinterpret_cast<void *>(uintptr_t{depth}));
    frames_descend(depth - 1, at_the_bottom);
    pthread_cleanup_pop(1);
}

WORK void destroy(unsigned depth, void (*at_the_bottom)())
{
    guard g{depth};
    frames_descend(depth - 1, at_the_bottom);
}

} // namespace

WORK void frames_descend(unsigned depth, void (*at_the_bottom)())
{
    work_a_little();
    if (depth == 0)
        at_the_bottom();
    else if (depth % 5 == 0)
        catch_and_go_on(depth, at_the_bottom);
    else if (depth % 5 == 1)
        handle(depth, at_the_bottom);
    else
        destroy(depth, at_the_bottom);
    __asm__ volatile("");
}
