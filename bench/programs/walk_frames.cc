// What a walk costs once warm, by depth: Stile's by rules, and others, of frames that are linked by rbp and of such as
// are not. Each benchmark tells the frames that its walks found.
#include <string>

#include <benchmark/benchmark.h>

#include "bench/programs/walk_here.h"

namespace
{

struct run {
    benchmark::State &state;
    walk_side side;
};

void walks(const walk_place *at, void *arg)
{
    run &r = *static_cast<run *>(arg);
    uint32_t frames = 0;
    walk_here_learn();
    for (auto _ : r.state)
        frames = walk_here(r.side, at);
    r.state.counters["frames"] = frames;
}

using stack_fn = void(uint32_t depth, const walk_stack *stack);

void add(const char *kind, stack_fn *stack, walk_side side, const char *name)
{
    for (uint32_t depth : {2, 10, 50, 200, 1000})
        benchmark::RegisterBenchmark((std::string(kind) + "/" + name + "/" + std::to_string(depth)).c_str(),
                                     [=](benchmark::State &state) {
                                         run r{state, side};
                                         walk_stack at{walks, &r};
                                         stack(depth, &at);
                                     });
}

} // namespace

int main(int argc, char **argv)
{
    if (!walk_here_begin(argv))
        return 1;
    benchmark::Initialize(&argc, argv);
    add("linked", walk_stack_linked, WALK_STILE, "stile");
    add("linked", walk_stack_linked, WALK_FRAME_POINTERS, "frame pointers");
    add("linked", walk_stack_linked, WALK_UNW_BACKTRACE, "unw_backtrace");
    add("linked", walk_stack_linked, WALK_UNW_STEP, "unw_step");
    add("plain", walk_stack_plain, WALK_STILE, "stile");
    add("plain", walk_stack_plain, WALK_UNW_BACKTRACE, "unw_backtrace");
    add("plain", walk_stack_plain, WALK_UNW_STEP, "unw_step");
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
