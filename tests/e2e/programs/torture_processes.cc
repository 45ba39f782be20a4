/* Processes for torture.cc: forks from deep stacks that return through them, vfork, posix_spawn. At most four at once. */
#include "torture.h"

#include <cstring>
#include <mutex>

#include <csignal>
#include <cerrno>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

namespace
{

constexpr unsigned AT_ONCE = 4, RETURNED = 7, SPAWNED = 3;
constexpr uint64_t APART_NS =
    100 * 1000000ull; /* each starts a profile of its own, and costs what that costs */

std::atomic<unsigned> alive;
std::atomic<uint64_t> next_ns;
const char *self;

/* Whether it is time for one more. */
bool may_start()
{
    uint64_t due = next_ns;
    const uint64_t now = now_ns();
    if (now < due || !next_ns.compare_exchange_strong(due, now + APART_NS))
        return false;
    if (alive.fetch_add(1) < AT_ONCE)
        return true;
    alive--;
    return false;
}

void finish(pid_t pid, int wanted)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    alive--;
    expect("child that was waited for", static_cast<uint64_t>(got), static_cast<uint64_t>(pid));
    if (status != wanted << 8) { /* and leave its core where it is */
        fprintf(stderr, "wrong: status of child %d: %#x, not %#x\n", pid, status, wanted << 8);
        _exit(97);
    }
}

WORK pid_t fork_here()
{
    const pid_t pid = fork();
    __asm__ volatile("" ::: "memory");
    return pid;
}

WORK pid_t vfork_and_exec(char **argv)
{
    const pid_t pid = vfork();
    if (pid == 0) {
        execve(self, argv, environ);
        _exit(99);
    }
    return pid;
}

} // namespace

void processes_begin(const char *path)
{
    self = path;
}

/* What an executed child does; there is no process below it. */
int child_main(const char *what)
{
    const uint32_t depth = static_cast<uint32_t>(atoi(what));
    for (uint64_t x = 0; x < 20; x++) {
        auto bottom = [x] { return mix(x); };
        expect("recursion in a child", descend(depth, x, bottom), mix(x) + depth + 1);
    }
    return SPAWNED;
}

/* The child returns through the parent's frames, and the barriers on them. */
void fork_turn(Chance &c)
{
    if (!may_start())
        return;
    pid_t pid = -1;
    const uint32_t depth = c.between(1, 400);
    auto bottom = [&pid, &c] {
        pid = fork_here();
        if (pid == 0)
            for (uint64_t i = 0; i < 40; i++) {
                auto deep = [i] { return mix(i); };
                const uint32_t more = c.between(0, 300);
                expect("recursion in a fork", descend(more, i, deep), mix(i) + more + 1);
            }
        return uint64_t{5};
    };
    expect("recursion around a fork", descend(depth, 6, bottom), depth + 6);
    if (pid == 0)
        _exit(RETURNED);
    expect("fork", pid > 0, 1);
    done[FORKS]++;
    finish(pid, RETURNED);
}

void spawn_turn(Chance &c)
{
    if (!may_start())
        return;
    char depth[16], child[] = "child", name[] = "torture";
    snprintf(depth, sizeof depth, "%u", c.between(10, 500));
    char *argv[] = {name, child, depth, nullptr};
    pid_t pid = -1;
    const bool spawn = c.below(2) != 0;
    auto bottom = [&] {
        if (spawn)
            expect("posix_spawn",
                   static_cast<uint64_t>(posix_spawn(&pid, self, nullptr, nullptr, argv, environ)), 0);
        else
            pid = vfork_and_exec(argv);
        return uint64_t{9};
    };
    const uint32_t frames = c.between(1, 200);
    expect("recursion around a spawn", descend(frames, 8, bottom), frames + 10);
    expect("vfork", pid > 0, 1);
    done[SPAWNS]++;
    finish(pid, SPAWNED);
}
