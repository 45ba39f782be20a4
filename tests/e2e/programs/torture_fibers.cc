/* Fibers for torture.cc. Nothing in a fiber may use what belongs to a thread across a switch. */
#include "torture.h"

#include <mutex>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

namespace
{

constexpr size_t STACK = 256 << 10;
constexpr unsigned N_FIBERS = 12;

struct Fiber {
    ucontext_t self, back;
    Chance c;
    uint64_t turns;
    bool last, ended;
};

std::mutex lock;
std::vector<Fiber *> idle;
std::atomic<uint64_t> turns_in_fibers;

/* No tail call: what stands in the slot of its own return address is what swapcontext keeps. */
WORK void swap(ucontext_t *from, ucontext_t *to)
{
    expect("swapcontext", static_cast<uint64_t>(swapcontext(from, to)), 0);
    __asm__ volatile("" ::: "memory");
}

WORK uint64_t throw_through(uint32_t depth, int &n)
{
    Guard guard(n, depth);
    if (depth == 0)
        throw static_cast<uint64_t>(n);
    return throw_through(depth - 1, n) + 1;
}

WORK void fiber_work(Fiber *f)
{
    const uint32_t depth = f->c.between(1, 300);
    const uint64_t x = f->c.state;
    auto bottom = [f, x] {
        for (uint32_t i = f->c.below(4); i > 0; i--) {
            mix(x);
            f->turns++;
            swap(&f->self, &f->back);
        }
        return x;
    };
    expect("recursion in a fiber", descend(depth, x, bottom), x + depth + 1);
    if (f->c.below(2) != 0) {
        int n = 0;
        const uint32_t frames = f->c.between(1, 60);
        try {
            throw_through(frames, n);
            wrong("exception in a fiber", 0, frames + 1);
        } catch (uint64_t thrown) {
            expect("exception in a fiber", thrown, frames + 1);
        }
        expect("guards in a fiber", static_cast<uint64_t>(n), 0);
    }
}

void fiber_main(unsigned low, unsigned high)
{
    auto *f = reinterpret_cast<Fiber *>(static_cast<uint64_t>(high) << 32 | low);
    while (!f->last) {
        fiber_work(f);
        f->turns++;
        swap(&f->self, &f->back);
    }
    f->ended = true;
    for (;;)
        swap(&f->self, &f->back);
}

void resume(Fiber *f)
{
    const uint64_t before = f->turns;
    Canary canary(before);
    swap(&f->back, &f->self);
    expect("canary beside a fiber", canary.value(), before);
    if (!f->ended)
        expect("turns of a fiber", f->turns, before + 1);
    turns_in_fibers++;
}

void fiber_begin(Fiber *f, void *stack, size_t size, uint64_t seed)
{
    if (getcontext(&f->self) != 0)
        abort();
    f->c.state = seed;
    f->self.uc_stack.ss_sp = stack;
    f->self.uc_stack.ss_size = size;
    const auto at = reinterpret_cast<uint64_t>(f);
    makecontext(&f->self, reinterpret_cast<void (*)()>(fiber_main), 2, static_cast<unsigned>(at),
                static_cast<unsigned>(at >> 32));
}

} // namespace

void fibers_make(uint64_t seed)
{
    for (unsigned i = 0; i < N_FIBERS; i++) {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED)
            abort();
        idle.push_back(new Fiber{});
        fiber_begin(idle.back(), stack, STACK, seed + i);
    }
}

/* A fiber whose stack is an array in a live frame: it may hold nothing of ours. Where the frame was are soon others. */
void nest_turn(Chance &c)
{
    auto bottom = [&c] {
        alignas(16) char stack[STACK];
        Fiber f{};
        fiber_begin(&f, stack, sizeof stack, c.state);
        for (uint32_t i = c.between(1, 6); i > 0; i--)
            resume(&f);
        f.last = c.below(2) != 0;
        for (uint32_t i = c.between(1, 6); i > 0 && !f.ended; i--)
            resume(&f);
        return uint64_t{1};
    };
    const uint32_t depth = c.between(0, 150);
    expect("recursion around a nested fiber", descend(depth, 15, bottom), depth + 2);
    done[NESTS]++;
}

void fiber_turn(Chance &c)
{
    Fiber *f = nullptr;
    {
        const std::lock_guard<std::mutex> held(lock);
        if (idle.empty())
            return;
        std::swap(idle[c.below(static_cast<uint32_t>(idle.size()))], idle.back());
        f = idle.back();
        idle.pop_back();
    }
    /* From the depth of this thread's stack that chance has it. */
    auto bottom = [f, &c] {
        for (uint32_t i = c.between(1, 5); i > 0; i--)
            resume(f);
        return uint64_t{7};
    };
    const uint32_t depth = c.between(0, 100);
    expect("recursion around a fiber", descend(depth, 3, bottom), 8 + depth);
    done[FIBERS]++;
    const std::lock_guard<std::mutex> held(lock);
    idle.push_back(f);
}

uint64_t fibers_finish(Chance &)
{
    expect("fibers that are there", idle.size(), N_FIBERS);
    for (Fiber *f : idle) {
        f->last = true;
        for (int i = 0; i < 10 && !f->ended; i++)
            resume(f);
        expect("end of a fiber", f->ended, 1);
    }
    return turns_in_fibers;
}
