/* Whatever changes, leaves or reads a stack, at random and all at once, and each step checks itself:
 *
 *   torture SECONDS SEED PLUGIN [KIND...]    all kinds, or these
 *
 * Prints the seed first, and how often each thing was done last, with the CPU time that the process has used. What goes
 * wrong is said in one line, and aborts. */
#include "torture.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <ctime>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>

std::atomic<uint64_t> done[KINDS];

namespace
{

constexpr unsigned N_WORKERS = 3;

const char *plugin;
std::atomic<bool> over;

struct Thrown : std::runtime_error {
    Thrown(uint64_t n, const char *what) : std::runtime_error(what), number(n)
    {
    }
    uint64_t number;
};

/* Throws and catches while an exception is on its way. */
struct Nested {
    explicit Nested(uint64_t n) : number(n)
    {
    }
    Nested(const Nested &) = delete;
    Nested &operator=(const Nested &) = delete;
    ~Nested()
    {
        try {
            auto bottom = [this]() -> uint64_t { throw Thrown(number, "nested"); };
            descend(static_cast<uint32_t>(number % 20), 1, bottom);
            wrong("nested exception", 0, number);
        } catch (const Thrown &t) {
            expect("nested exception", t.number, number);
        }
    }
    uint64_t number;
};

/* Down to where it is thrown; some frames catch it and throw it on, some have something to clean up. */
WORK uint64_t exception_down(uint32_t depth, int &guards, Chance &c, uint64_t number)
{
    switch (depth == 0 ? 4 : c.below(8)) {
    case 0: {
        const Guard guard(guards, number);
        return exception_down(depth - 1, guards, c, number) + 1;
    }
    case 1:
        try {
            return exception_down(depth - 1, guards, c, number) + 1;
        } catch (const std::logic_error &) {
            wrong("kind of an exception", 1, 0);
        }
    case 2:
        try {
            return exception_down(depth - 1, guards, c, number) + 1;
        } catch (const Thrown &t) {
            expect("exception that is thrown on", t.number, number);
            throw;
        }
    case 3: {
        if (c.below(6) != 0)
            return exception_down(depth - 1, guards, c, number) + 1;
        const Nested nested(number);
        return exception_down(depth - 1, guards, c, number) + 1;
    }
    case 4: {
        if (depth != 0)
            return exception_down(depth - 1, guards, c, number) + 1;
        const Guard guard(guards, number);
        throw Thrown(number, "thrown");
    }
    default: {
        char *some = static_cast<char *>(__builtin_alloca(16 + number % 7 * 32));
        __asm__ volatile("" ::"r"(some) : "memory");
        return exception_down(depth - 1, guards, c, number) + 1;
    }
    }
}

void exception_turn(Chance &c)
{
    const uint64_t number = c.state;
    int guards = 0;
    std::exception_ptr kept;
    try {
        exception_down(c.between(1, 250), guards, c, number);
        wrong("exception", 0, 1);
    } catch (const Thrown &t) {
        expect("exception", t.number, number);
        kept = std::current_exception();
    }
    expect("guards that are left", static_cast<uint64_t>(guards), 0);
    if (c.below(4) == 0) {
        try {
            auto bottom = [&kept]() -> uint64_t { std::rethrow_exception(kept); };
            descend(c.between(1, 100), 1, bottom);
        } catch (const Thrown &t) {
            expect("exception that was kept", t.number, number);
        }
    }
    done[EXCEPTIONS]++;
}

void recursion_turn(Chance &c)
{
    const uint32_t depth = c.below(50) == 0 ? c.between(1000, 4000) : c.between(1, 400);
    const uint64_t x = c.state;
    auto bottom = [x, &c] {
        uint64_t sum = 0;
        for (uint32_t i = c.between(1, 40); i > 0; i--) { /* up and down below it */
            const uint32_t more = c.between(0, 30);
            auto leaf = [x] { return mix(x); };
            expect("recursion below", descend(more, x, leaf), mix(x) + more + 1);
            sum = mix(x);
        }
        return sum;
    };
    expect("recursion", descend(depth, x, bottom), mix(x) + depth + 1);
    done[RECURSIONS]++;
}

uint64_t from_plugin(uint64_t x)
{
    auto bottom = [x] { return mix(x); };
    return descend(30, x, bottom);
}

/* One at a time, and not so often that all time is spent in waiting for the collector. */
void plugin_turn(Chance &c)
{
    static std::mutex lock;
    static std::atomic<uint64_t> next_ns;
    const std::unique_lock<std::mutex> held(lock, std::try_to_lock);
    if (!held.owns_lock() || now_ns() < next_ns)
        return;
    void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr)
        wrong("dlopen", 0, 1);
    typedef uint64_t deep_fn(unsigned, uint64_t (*)(uint64_t), uint64_t);
    auto *deep = reinterpret_cast<deep_fn *>(dlsym(handle, "plugin_deep"));
    if (deep == nullptr)
        wrong("dlsym", 0, 1);
    for (uint32_t i = c.between(1, 50); i > 0; i--) {
        const uint32_t depth = c.between(1, 100);
        expect("recursion in a library", deep(depth, from_plugin, i), mix(i) + 31 + depth + 1);
    }
    expect("dlclose", static_cast<uint64_t>(dlclose(handle)), 0);
    done[PLUGINS]++;
    next_ns = now_ns() + 50 * 1000000ull;
}

enum End { RETURNS, EXITS, CANCELLED }; /* the latter two from the bottom, through all frames */

struct Short {
    uint32_t depth;
    End end;
    int guards;
};

WORK uint64_t exit_down(uint32_t depth, Short *s)
{
    const Guard guard(s->guards, depth);
    if (depth == 0 && s->end == EXITS)
        pthread_exit(s);
    while (depth == 0)
        pause();
    return exit_down(depth - 1, s) + 1;
}

void *short_main(void *arg)
{
    auto *s = static_cast<Short *>(arg);
    auto bottom = [s] { return mix(s->depth); };
    for (int i = 0; i < 10; i++)
        expect("recursion in a short thread", descend(s->depth, 5, bottom), mix(s->depth) + s->depth + 1);
    if (s->end != RETURNS)
        exit_down(s->depth, s);
    return s;
}

/* Not so many in a minute that numbers of threads come again. */
void threads_turn(Chance &c)
{
    static std::atomic<uint64_t> next_ns;
    uint64_t due = next_ns;
    const uint64_t now = now_ns();
    if (now < due || !next_ns.compare_exchange_strong(due, now + 15 * 1000000ull))
        return;
    Short shorts[4];
    pthread_t threads[4];
    const uint32_t n = c.between(1, 4);
    for (uint32_t i = 0; i < n; i++) {
        shorts[i] = {c.between(1, 200), static_cast<End>(c.below(3)), 0};
        expect("pthread_create",
               static_cast<uint64_t>(pthread_create(&threads[i], nullptr, short_main, &shorts[i])), 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        void *result = nullptr;
        const void *wanted = shorts[i].end == CANCELLED ? PTHREAD_CANCELED : &shorts[i];
        if (shorts[i].end == CANCELLED)
            expect("pthread_cancel", static_cast<uint64_t>(pthread_cancel(threads[i])), 0);
        expect("pthread_join", static_cast<uint64_t>(pthread_join(threads[i], &result)), 0);
        expect("result of a thread", result == wanted, 1);
        expect("guards of a thread", static_cast<uint64_t>(shorts[i].guards), 0);
    }
    done[THREADS] += n;
}

void backtrace_turn(Chance &c)
{
    const uint32_t depth = c.between(1, 200);
    auto bottom = [depth]() -> uint64_t {
        void *frames[256];
        return static_cast<uint64_t>(backtrace(frames, 256)) >= depth + 2;
    };
    expect("frames of a backtrace", descend(depth, 7, bottom), 1 + depth + 1);
    done[BACKTRACES]++;
}

struct {
    const char *name;
    uint32_t weight;
    void (*turn)(Chance &);
} const kinds[KINDS] = {{"recursions", 6, recursion_turn},
                        {"exceptions", 4, exception_turn},
                        {"jumps", 6, jump_turn},
                        {"escapes", 4, escape_turn},
                        {"fibers", 6, fiber_turn},
                        {"forks", 2, fork_turn},
                        {"spawns", 2, spawn_turn},
                        {"plugins", 1, plugin_turn},
                        {"threads", 2, threads_turn},
                        {"storms", 0, nullptr},
                        {"backtraces", 2, backtrace_turn},
                        {"throws", 3, throw_turn},
                        {"nests", 3, nest_turn}};

uint32_t weights[KINDS], all_weights;

void worker_main(uint64_t seed)
{
    Chance c{seed};
    signals_thread_begin(c.between(500, 4000));
    while (!over) {
        uint32_t at = c.below(all_weights), i = 0;
        for (; at >= weights[i]; i++)
            at -= weights[i];
        kinds[i].turn(c);
    }
    signals_thread_end();
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0)
        return child_main(argv[2]);
    if (argc < 4)
        return 2;
    const uint64_t seed = strtoull(argv[2], nullptr, 10);
    plugin = argv[3];
    for (unsigned i = 0; i < KINDS; i++) {
        const bool wanted = argc == 4 || std::any_of(argv + 4, argv + argc, [i](const char *a) {
                                return strcmp(a, kinds[i].name) == 0;
                            });
        all_weights += weights[i] = wanted ? kinds[i].weight : 0;
    }
    if (all_weights == 0)
        return 2;
    printf("seed %llu\n", static_cast<unsigned long long>(seed));
    fflush(stdout);

    processes_begin("/proc/self/exe");
    signals_begin();
    fibers_make(seed * 1000);
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < N_WORKERS; i++)
        workers.emplace_back(worker_main, seed * 100 + i);
    struct timespec left = {atoi(argv[1]), 0};
    while (nanosleep(&left, &left) != 0)
        ;
    over = true;
    for (auto &w : workers)
        w.join();
    Chance c{seed};
    const uint64_t turns = fibers_finish(c);
    printf("done:");
    for (unsigned i = 0; i < KINDS; i++)
        printf(" %s %llu,", kinds[i].name, static_cast<unsigned long long>(done[i]));
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf(" turns %llu; cpu %lld ns\n", static_cast<unsigned long long>(turns),
           static_cast<long long>(used.tv_sec) * 1000000000 + used.tv_nsec);
    return 0;
}
