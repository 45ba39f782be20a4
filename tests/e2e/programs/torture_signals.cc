/* Signals for torture.cc: a storm on each thread, handlers inside handlers, on the stack and beside it, and jumps. */
#include "torture.h"

#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <ctime>

#include <sys/mman.h>

namespace
{

constexpr size_t ALT_STACK = 128 << 10;
const int STORM = SIGUSR1, NESTED = SIGUSR2, LEAP = SIGRTMIN + 2, THROW = SIGRTMIN + 3;

struct Thread {
    timer_t timer;
    void *stack;
    sigjmp_buf way_out;
    volatile sig_atomic_t may_leap;
    uint64_t storms;
    unsigned nested;
};
thread_local Thread own;

WORK uint64_t handler_work(uint32_t depth)
{
    auto bottom = [depth] { return mix(depth) | 1; };
    return descend(depth, depth, bottom);
}

void on_nested(int)
{
    const int kept = errno;
    const uint64_t wanted = (mix(9) | 1) + 10;
    expect("nested handler", handler_work(9), wanted);
    errno = kept;
}

void on_storm(int)
{
    const int kept = errno;
    Canary canary(own.storms);
    const uint64_t count = own.storms;
    done[STORMS]++;
    if (own.may_leap) {
        own.storms++;
        own.may_leap = 0;
        siglongjmp(own.way_out, 5);
    }
    const uint32_t depth = 5 + static_cast<uint32_t>(count % 40);
    if (count % 3 == 0 && own.nested < 2) {
        own.nested++;
        raise(NESTED);
        own.nested--;
    }
    expect("handler", handler_work(depth), (mix(depth) | 1) + depth + 1);
    expect("canary of a handler", canary.value(), count);
    own.storms = count + 1;
    errno = kept;
}

void on_leap(int)
{
    auto bottom = []() -> uint64_t { siglongjmp(own.way_out, 6); };
    descend(static_cast<uint32_t>(own.storms % 30), 11, bottom);
}

void on_throw(int)
{
    auto bottom = []() -> uint64_t { throw own.storms; };
    descend(static_cast<uint32_t>(own.storms % 30), 12, bottom);
}

void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction sa = {};
    sa.sa_handler = handler;
    sa.sa_flags = SA_RESTART | flags;
    sigaddset(&sa.sa_mask, STORM); /* a storm of storms would end where the stack does */
    if (sigaction(signal, &sa, nullptr) != 0)
        abort();
}

/* Uses processor time in so many frames until a storm jumps out of them. */
WORK uint64_t wait_for_storm(uint32_t depth)
{
    volatile uint64_t canary = depth;
    if (depth == 0)
        for (uint64_t i = 0;; i++)
            canary = mix(canary + i);
    const uint64_t below = wait_for_storm(depth - 1);
    return below + canary;
}

WORK uint64_t jump_down(uint32_t depth, jmp_buf to, int value)
{
    volatile uint64_t canary = depth;
    if (depth == 0)
        longjmp(to, value);
    const uint64_t below = jump_down(depth - 1, to, value);
    return below + canary;
}

} // namespace

void signals_begin()
{
    handle(STORM, on_storm, SA_ONSTACK);
    handle(NESTED, on_nested, 0);
    handle(LEAP, on_leap, SA_ONSTACK);
    handle(THROW, on_throw, 0);
}

void signals_thread_begin(uint32_t storm_us)
{
    memset(&own, 0, sizeof own);
    own.stack = mmap(nullptr, ALT_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t ss = {};
    ss.ss_sp = own.stack;
    ss.ss_size = ALT_STACK;
    struct sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = STORM;
    event._sigev_un._tid = gettid();
    const long ns = static_cast<long>(storm_us) * 1000;
    const struct itimerspec every = {{0, ns}, {0, ns}};
    if (own.stack == MAP_FAILED || sigaltstack(&ss, nullptr) != 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &own.timer) != 0 ||
        timer_settime(own.timer, 0, &every, nullptr) != 0)
        abort();
}

void signals_thread_end()
{
    timer_delete(own.timer);
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    if (sigaltstack(&none, nullptr) != 0)
        abort();
    munmap(own.stack, ALT_STACK);
}

/* An exception out of a handler passes the signal's frame. Nobody but the unwinder restores what the handler has blocked. */
void throw_turn(Chance &c)
{
    int (*volatile raises)(int) = raise; /* or the compiler knows that it does not throw */
    int guards = 0;
    sigset_t before;
    auto signalled = [raises, &guards]() -> uint64_t {
        const Guard guard(guards, 13);
        return static_cast<uint64_t>(raises(THROW));
    };
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    const uint32_t depth = c.between(0, 100);
    auto bottom = [&] {
        try {
            descend(depth, 3, signalled);
            wrong("exception out of a handler", 0, 1);
        } catch (uint64_t) {
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
        }
        return uint64_t{2};
    };
    const uint32_t frames = c.between(0, 100);
    expect("recursion around an exception", descend(frames, 14, bottom), frames + 3);
    expect("guards before a handler", static_cast<uint64_t>(guards), 0);
    done[THROWS]++;
}

/* Out of a handler: of one's own signal, or of a storm that comes when it comes. */
void escape_turn(Chance &c)
{
    volatile uint32_t depth = c.between(1, 200), frames = c.between(0, 150);
    volatile bool storm = c.below(3) == 0;
    auto bottom = [&] {
        const Canary canary(depth);
        const int value = sigsetjmp(own.way_out, 1);
        if (value == 0) {
            if (storm) {
                own.may_leap = 1;
                wait_for_storm(frames);
            }
            auto leap = [] {
                raise(LEAP);
                return uint64_t{0};
            };
            descend(frames, 1, leap);
            wrong("jump out of a handler", 0, 1);
        }
        expect("value of a jump out of a handler", static_cast<uint64_t>(value), storm ? 5 : 6);
        expect("canary beside a jump", canary.value(), depth);
        return uint64_t{1};
    };
    expect("recursion around a jump", descend(depth, 2, bottom), depth + 2u);
    done[ESCAPES]++;
}

void jump_turn(Chance &c)
{
    volatile uint32_t depth = c.between(1, 200);
    const uint32_t times = c.between(1, 8);
    Chance *chance = &c;
    auto bottom = [&depth, times, chance] {
        jmp_buf here;
        volatile uint32_t n = 0;
        const int value = setjmp(here);
        expect("value of a jump", static_cast<uint64_t>(value), n == 0 ? 0 : n + 100);
        if (n < times) {
            n = n + 1;
            jump_down(chance->between(0, 300), here, static_cast<int>(n + 100));
            wrong("jump", 0, n);
        }
        return uint64_t{n};
    };
    expect("recursion around jumps", descend(depth, 4, bottom), times + depth + 1u);
    done[JUMPS]++;
}
