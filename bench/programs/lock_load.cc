// What takes the locks of stacks: `lock_load WAY MS`. Each way works for so long by the clock on the
// wall: `normal` does some of all in a few threads; `fork`, `threads` and `throw` do one thing again and again.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace
{

constexpr int depth = 300, passed = 40, threads = 4;
std::atomic<uint64_t> sink;
std::chrono::steady_clock::time_point end;

bool over()
{
    return std::chrono::steady_clock::now() >= end;
}

void work(int n)
{
    uint64_t x = sink | 1;
    for (int i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    sink = x;
}

// Calls `then` under so many frames.
__attribute__((noipa)) void down(int more, void (*then)())
{
    work(4);
    if (more <= 1)
        then();
    else
        down(more - 1, then);
    work(4);
}

// ---- the ways ----

void throw_up()
{
    work(200);
    throw std::runtime_error("passes frames");
}

void throw_once()
{
    try {
        down(passed, throw_up);
    } catch (const std::exception &) {
        work(100);
    }
}

void fork_once()
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, nullptr, 0);
}

void *thread_main(void *)
{
    down(depth, [] { work(20000); });
    return nullptr;
}

void thread_once()
{
    pthread_t thread;
    if (pthread_create(&thread, nullptr, thread_main, nullptr) == 0)
        pthread_join(thread, nullptr);
}

void recurse_once()
{
    down(depth, [] { work(2000); });
}

// Of a hundred rounds mostly recursion, some exceptions, a thread, and now and then a fork: as programs do.
void *normal_main(void *)
{
    for (int round = 0; !over(); round++) {
        recurse_once();
        if (round % 5 == 0)
            throw_once();
        if (round % 100 == 0)
            thread_once();
        if (round % 1000 == 0)
            fork_once();
    }
    return nullptr;
}

void again_and_again(void (*once)())
{
    while (!over())
        once();
}

void normal()
{
    pthread_t others[threads - 1];
    for (pthread_t &other : others)
        pthread_create(&other, nullptr, normal_main, nullptr);
    normal_main(nullptr);
    for (pthread_t &other : others)
        pthread_join(other, nullptr);
}

// Where the stack is deep.
void forks()
{
    down(depth, [] { again_and_again(fork_once); });
}

void throws()
{
    down(depth, [] { again_and_again(throw_once); });
}

void thread_after_thread()
{
    again_and_again(thread_once);
}

} // namespace

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)();
    } ways[] = {{"normal", normal}, {"fork", forks}, {"threads", thread_after_thread}, {"throw", throws}};
    if (argc != 3)
        return 2;
    end = std::chrono::steady_clock::now() + std::chrono::milliseconds(atol(argv[2]));
    for (const auto &way : ways)
        if (strcmp(way.name, argv[1]) == 0) {
            way.run();
            return 0;
        }
    return 2;
}
