// Coroutines of C++20: `coroutines MS`. Chains of them that wait for one another, on a deep stack or by jumps;
// exceptions that pass from each to the one that waits; generators in generators; and chains that are suspended at
// the bottom, and go on or are destroyed at another depth or on another thread.
#include <coroutine>
#include <exception>
#include <thread>
#include <utility>

#include "rounds.h"

namespace
{

long guards; // made and not yet destroyed

struct guard {
    guard()
    {
        guards++;
    }
    guard(const guard &) = delete;
    ~guard()
    {
        guards--;
    }
};

struct task {
    struct promise_type {
        uint64_t value = 0;
        std::exception_ptr thrown;
        std::coroutine_handle<> waits = std::noop_coroutine();

        task get_return_object()
        {
            return task(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() noexcept
        {
            return {};
        }
        struct final_awaiter : std::suspend_always {
            std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) noexcept
            {
                return h.promise().waits;
            }
        };
        final_awaiter final_suspend() noexcept
        {
            return {};
        }
        void return_value(uint64_t v)
        {
            value = v;
        }
        void unhandled_exception()
        {
            thrown = std::current_exception();
        }
    };

    explicit task(std::coroutine_handle<promise_type> h) : handle(h)
    {
    }
    task(task &&other) noexcept : handle(std::exchange(other.handle, nullptr))
    {
    }
    ~task()
    {
        if (handle)
            handle.destroy();
    }
    uint64_t result() const
    {
        if (handle.promise().thrown)
            std::rethrow_exception(handle.promise().thrown);
        return handle.promise().value;
    }

    std::coroutine_handle<promise_type> handle;
};

// Begins another one by a jump.
struct by_jump {
    task child;
    bool await_ready() const
    {
        return false;
    }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> h) const
    {
        child.handle.promise().waits = h;
        return child.handle;
    }
    uint64_t await_resume() const
    {
        return child.result();
    }
};

// Begins it as a call, which returns when that one is suspended.
WORK void resume(std::coroutine_handle<> h)
{
    h.resume();
    __asm__ volatile("");
}

struct by_call {
    task child;
    bool await_ready() const
    {
        return false;
    }
    bool await_suspend(std::coroutine_handle<>) const
    {
        resume(child.handle);
        return !child.handle.done();
    }
    uint64_t await_resume() const
    {
        return child.result();
    }
};

std::coroutine_handle<> suspended; // who waits at the bottom

struct suspend_here : std::suspend_always {
    void await_suspend(std::coroutine_handle<> h) noexcept
    {
        suspended = h;
    }
};

enum class bottom { returns, throws, suspends };

task jumps(unsigned depth, bottom how)
{
    guard g;
    uint64_t below = 0;
    work_a_little();
    if (depth != 0) {
        by_jump awaited{jumps(depth - 1, how)}; // a temporary one some compilers destroy twice
        below = co_await awaited;
    } else if (how == bottom::suspends)
        co_await suspend_here();
    else if (how == bottom::throws)
        throw 42L;
    work_a_little();
    co_return below + mix(depth);
}

task calls(unsigned depth, bottom how)
{
    guard g;
    uint64_t below = 0;
    work_a_little();
    if (depth != 0) {
        by_call awaited{calls(depth - 1, how)}; // a temporary one some compilers destroy twice
        below = co_await awaited;
    } else if (how == bottom::throws)
        throw 42L;
    work_a_little();
    co_return below + mix(depth);
}

uint64_t sum_to(unsigned depth)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= depth; i++)
        sum += mix(i);
    return sum;
}

// Frames between which a coroutine is resumed.
WORK void resume_below(unsigned depth, std::coroutine_handle<> h)
{
    guard g;
    work_a_little();
    if (depth == 0)
        h.resume();
    else
        resume_below(depth - 1, h);
    work_a_little();
}

void try_task(task t, unsigned depth, unsigned above, bottom how)
{
    resume_below(above, t.handle);
    CHECK(t.handle.done());
    try {
        CHECK(t.result() == sum_to(depth) && how == bottom::returns);
    } catch (long thrown) {
        CHECK(thrown == 42 && how == bottom::throws);
    }
}

void try_suspended(unsigned depth, uint64_t *random)
{
    task t = jumps(depth, bottom::suspends);
    const unsigned above = 20 + random_below(random, 200), then = 20 + random_below(random, 200);
    resume_below(above, t.handle);
    CHECK(!t.handle.done());
    switch (random_below(random, 3)) {
    case 0:
        resume_below(then, suspended);
        break;
    case 1:
        std::thread([then] { resume_below(then, suspended); }).join();
        break;
    default:
        CHECK(guards == static_cast<long>(depth) + 1);
        return; // and they are destroyed
    }
    CHECK(t.handle.done() && t.result() == sum_to(depth));
}

struct generator {
    struct promise_type {
        uint64_t value = 0;
        generator get_return_object()
        {
            return generator(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() noexcept
        {
            return {};
        }
        std::suspend_always final_suspend() noexcept
        {
            return {};
        }
        std::suspend_always yield_value(uint64_t v)
        {
            value = v;
            return {};
        }
        void return_void()
        {
        }
        void unhandled_exception()
        {
            throw;
        }
    };

    explicit generator(std::coroutine_handle<promise_type> h) : handle(h)
    {
    }
    generator(const generator &) = delete;
    ~generator()
    {
        handle.destroy();
    }
    bool next() const
    {
        resume(handle);
        return !handle.done();
    }

    std::coroutine_handle<promise_type> handle;
};

// Yields what the one below yields, and one more; the last one ends with an exception, which passes all.
generator generate(unsigned depth, bool throws)
{
    guard g;
    work_a_little();
    if (depth != 0) {
        generator below = generate(depth - 1, throws);
        while (below.next())
            co_yield below.handle.promise().value + 1;
    } else if (throws) {
        co_yield 0;
        throw 42L;
    }
    co_yield 0;
}

void try_generator(unsigned depth, bool throws)
{
    uint64_t values = 0, sum = 0;
    bool caught = false;
    try {
        generator g = generate(depth, throws);
        for (; g.next(); values++)
            sum += g.handle.promise().value;
    } catch (long thrown) {
        caught = thrown == 42;
    }
    CHECK(caught == throws);
    CHECK(throws ? values == 1 && sum == depth
                 : values == depth + 1 && sum == uint64_t{depth} * (depth + 1) / 2);
}

} // namespace

int main(int argc, char **argv)
{
    uint64_t random = 1, begun = process_cpu_ns();

    if (argc != 2)
        return 2;
    for (int i = 0; i < 5 || process_cpu_ns() - begun < std::strtoull(argv[1], nullptr, 10) * MS; i++) {
        const unsigned depth = 20 + random_below(&random, i % 4 == 0 ? 20 : 130);
        const unsigned above = 10 + random_below(&random, 200);
        for (bottom how : {bottom::returns, bottom::throws}) {
            try_task(jumps(depth, how), depth, above, how);
            try_task(calls(depth, how), depth, above, how);
        }
        try_suspended(depth, &random);
        try_generator(depth, false);
        try_generator(depth, true);
        CHECK(guards == 0);
    }
    std::puts("done");
    return 0;
}
