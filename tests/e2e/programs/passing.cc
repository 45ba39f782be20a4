// Exceptions that pass barriers: `passing WHAT [MS]`, see main. Its output is the same with libbarring.so, which has a
// barrier on every frame, with libstile.so, where each descent burns MS milliseconds at its bottom so that samples place
// some, and with neither.
#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include "barring.h"
#include "work.h"

namespace
{

constexpr int DEPTH = 40; // the innermost eight frames of a sample are spared
constexpr greg_t TF = 0x100;

unsigned (*bar)();
int (*stub_at)(uintptr_t);
int (*landing_at)(uintptr_t);
uintptr_t (*landing)(unsigned);
uint64_t burn_ns;

WORK uint64_t burn_there()
{
    return burn(burn_ns);
}

// Barriers on all frames from the caller on, or samples there.
WORK void bars()
{
    if (bar != nullptr)
        bar();
    if (burn_ns != 0)
        burn_there();
}

std::atomic<long> made, gone, guards;

struct thrown {
    long value;
    explicit thrown(long v) : value(v)
    {
        made++;
    }
    thrown(const thrown &other) : value(other.value)
    {
        made++;
    }
    ~thrown()
    {
        gone++;
    }
};

struct guard {
    ~guard()
    {
        guards++;
    }
};

void tell(const char *what, long value)
{
    std::printf("%s %ld: guards %ld, thrown %ld made %ld gone\n", what, value, guards.load(), made.load(),
                gone.load());
}

using action = void (*)();

// Frames with something to clean up, and between them some without.
WORK void descend(int depth, action at_the_bottom);

WORK void pass_by(int depth, action at_the_bottom)
{
    descend(depth, at_the_bottom);
    __asm__ volatile("");
}

WORK void descend(int depth, action at_the_bottom)
{
    guard g;
    if (depth == 0)
        at_the_bottom();
    else if (depth % 3 == 0)
        pass_by(depth - 1, at_the_bottom);
    else
        descend(depth - 1, at_the_bottom);
    __asm__ volatile("");
}

WORK void throw_it()
{
    bars();
    throw thrown(7);
}

// The frame that catches is the one that was called from behind a barrier, with no frame between, with one that cleans up,
// and with many.
WORK void catch_above()
{
    static constexpr int depths[] = {0, 1, 2, 5, DEPTH};
    try {
        throw_it();
    } catch (const thrown &t) {
        tell("caught directly", t.value);
    }
    try {
        bars();
        throw thrown(8);
    } catch (const thrown &t) {
        tell("caught where thrown", t.value);
    }
    for (int depth : depths) {
        try {
            descend(depth, throw_it);
        } catch (const thrown &t) {
            tell("caught", t.value);
        }
    }
}

WORK void descend_and_rethrow(int depth)
{
    guard g;
    try {
        depth == 0 ? throw_it() : descend_and_rethrow(depth - 1);
    } catch (thrown &t) {
        t.value++;
        if (depth % 2 == 0)
            bars();
        throw;
    }
}

WORK void rethrow()
{
    try {
        descend_and_rethrow(DEPTH);
    } catch (const thrown &t) {
        tell("rethrown", t.value);
    }
}

// While one exception unwinds another one passes barriers, some of them new.
struct throwing_guard {
    ~throwing_guard()
    {
        try {
            descend(3, throw_it);
        } catch (const thrown &t) {
            guards += t.value;
        }
    }
};

WORK void throw_outer()
{
    throw std::runtime_error("outer");
}

WORK void descend_to_throwing(int depth)
{
    throwing_guard g;
    if (depth == 0)
        throw_outer();
    else
        descend_to_throwing(depth - 1);
}

WORK void nested()
{
    try {
        bars();
        descend_to_throwing(10);
    } catch (const std::runtime_error &e) {
        tell(e.what(), std::uncaught_exceptions());
    }
}

// The barriers come when the search for the catch is over.
struct barring_guard {
    ~barring_guard()
    {
        guards++;
        bars();
    }
};

WORK void throw_through_barring_guard()
{
    barring_guard g;
    throw thrown(9);
}

WORK void throw_through_guard()
{
    guard g;
    throw_through_barring_guard();
    __asm__ volatile("");
}

WORK void meanwhile_at_the_bottom()
{
    try {
        throw_through_barring_guard();
    } catch (const thrown &t) {
        tell("meanwhile", t.value);
    }
    try {
        throw_through_guard();
    } catch (const thrown &t) {
        tell("meanwhile", t.value);
    }
    throw_through_guard();
}

WORK void meanwhile()
{
    try {
        descend(DEPTH, meanwhile_at_the_bottom);
    } catch (const thrown &t) {
        tell("meanwhile", t.value);
    }
}

WORK void no_more() noexcept
{
    descend(DEPTH, throw_it);
}

[[noreturn]] void tell_and_end()
{
    try {
        throw;
    } catch (const thrown &t) {
        tell("terminate", t.value);
    }
    std::fflush(stdout);
    _exit(3);
}

void in_child(action what, bool told)
{
    std::fflush(stdout);
    int status;
    pid_t child = fork();
    if (child == 0) {
        const rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        if (told)
            std::set_terminate(tell_and_end);
        what();
        _exit(0);
    }
    waitpid(child, &status, 0);
    std::printf("child ended with %#x\n", status & ~0x80);
}

WORK void uncaught_thread()
{
    std::thread(descend, DEPTH, throw_it).join();
}

WORK void terminates()
{
    in_child(no_more, true);
    in_child(no_more, false);
    in_child([] { descend(DEPTH, throw_it); }, true);
    in_child([] { descend(DEPTH, throw_it); }, false);
    in_child(uncaught_thread, true);
}

std::exception_ptr carried;

void rethrow_carried()
{
    bars();
    std::rethrow_exception(carried);
}

WORK void carry()
{
    for (int i = 0; i < 3; i++) {
        std::thread([] {
            try {
                descend(DEPTH, carried ? rethrow_carried : throw_it);
            } catch (const thrown &) {
                carried = std::current_exception();
            }
        }).join();
    }
    try {
        descend(DEPTH, rethrow_carried);
    } catch (const thrown &t) {
        tell("carried", t.value);
    }
    carried = nullptr;
    tell("dropped", 0);
}

_Unwind_Exception of_nobody;
long cleaned_up;

void throw_foreign()
{
    of_nobody = {};
    of_nobody.exception_class = 0x5354494c54455354; // "STILTEST"
    of_nobody.exception_cleanup = [](_Unwind_Reason_Code reason, _Unwind_Exception *) {
        cleaned_up += reason == _URC_FOREIGN_EXCEPTION_CAUGHT;
    };
    bars();
    _Unwind_RaiseException(&of_nobody);
    std::abort();
}

WORK void foreign()
{
    try {
        try {
            descend(DEPTH, throw_foreign);
        } catch (const thrown &) {
            std::puts("wrong");
        }
    } catch (...) {
        tell("foreign", cleaned_up);
    }
    tell("foreign", cleaned_up);
    try {
        try {
            descend(DEPTH, throw_foreign);
        } catch (...) {
            bars();
            throw;
        }
    } catch (...) {
        tell("foreign, rethrown", cleaned_up);
    }
    tell("foreign, rethrown", cleaned_up);
}

jmp_buf out;
uintptr_t out_frame;

_Unwind_Reason_Code stop(int, _Unwind_Action actions, _Unwind_Exception_Class, _Unwind_Exception *,
                         _Unwind_Context *context, void *)
{
    if ((actions & _UA_END_OF_STACK) != 0 || _Unwind_GetCFA(context) > out_frame)
        std::longjmp(out, 1);
    return _URC_NO_REASON;
}

void force()
{
    of_nobody = {};
    bars();
    _Unwind_ForcedUnwind(&of_nobody, stop, nullptr);
    std::abort();
}

WORK void forced()
{
    out_frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    if (setjmp(out) == 0)
        descend(DEPTH, force);
    tell("forced", 0);
}

long passed;
std::atomic<bool> there;

WORK void end_thread(action how)
{
    try {
        descend(DEPTH, how);
    } catch (const abi::__forced_unwind &) {
        passed++;
        bars();
        throw;
    }
}

void exit_thread()
{
    bars();
    pthread_exit(&passed);
}

void wait_for_cancellation()
{
    there = true;
    bars();
    for (;;)
        pause();
}

WORK void threads_end()
{
    void *result;
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void *) -> void * {
            guard g;
            end_thread(exit_thread);
            return nullptr;
        },
        nullptr);
    pthread_join(thread, &result);
    tell(result == &passed ? "exited" : "not exited", passed);
    pthread_create(
        &thread, nullptr,
        [](void *) -> void * {
            guard g;
            end_thread(wait_for_cancellation);
            return nullptr;
        },
        nullptr);
    while (!there)
        usleep(100);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    tell(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled", passed);
    pthread_create(
        &thread, nullptr,
        [](void *) -> void * {
            guard g;
            pthread_cancel(pthread_self());
            end_thread(wait_for_cancellation);
            return nullptr;
        },
        nullptr);
    pthread_join(thread, &result);
    tell(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled", passed);
}

// What a function returns passes a stub in registers of every kind.
struct pair {
    uint64_t a, b;
};
struct mixed {
    double a;
    uint64_t b;
};

WORK pair give_pair()
{
    bars();
    return {1, 2};
}

WORK mixed give_mixed()
{
    bars();
    return {0.5, 3};
}

WORK long double give_long()
{
    bars();
    return 0.25L;
}

WORK std::string give_string()
{
    bars();
    return "a string that is too long to be short";
}

WORK void give()
{
    pair p = give_pair();
    mixed m = give_mixed();
    std::printf("%lu %lu %.2f %lu ", p.a, p.b, m.a, m.b);
    std::printf("%.2Lf %s\n", give_long(), give_string().c_str());
}

WORK void returns()
{
    descend(DEPTH, give);
    tell("returned", 0);
}

// Each instruction of a landing, with an unwinder's walk from there: the callers are the last of those of the throw. A
// breakpoint is at the first; signals are blocked in the personality routine, which therefore nobody can step through.
constexpr int FRAMES = 256;
constexpr unsigned char BREAKPOINT = 0xcc;

struct list {
    uintptr_t at[FRAMES];
    int n;
};

list at_throw;
unsigned char first_byte;
long at_landing[16], wrong[16], misaligned, resumed;

_Unwind_Reason_Code seen(_Unwind_Context *context, void *arg)
{
    auto *l = static_cast<list *>(arg);
    uintptr_t ip = _Unwind_GetIP(context);
    if (ip != 0 && l->n < FRAMES && stub_at(ip) < 0 && stub_at(ip - 1) < 0 && landing_at(ip) < 0)
        l->at[l->n++] = ip;
    return _URC_NO_REASON;
}

// The walk from a signal at an instruction has this handler, the signal's frame, and callers.
WORK void walk_check(int at)
{
    static list now;
    now.n = 0;
    _Unwind_Backtrace(seen, &now);
    int same = 0; // from the root
    while (same < now.n && same < at_throw.n &&
           now.at[now.n - 1 - same] == at_throw.at[at_throw.n - 1 - same])
        same++;
    wrong[at] += now.n - same != 3 || same < 3;
}

void landings_set(bool broken)
{
    for (unsigned k = 0; landing(k) != 0; k++) {
        auto *first = reinterpret_cast<unsigned char *>(landing(k));
        first_byte = broken ? *first : first_byte;
        *first = broken ? BREAKPOINT : first_byte;
    }
}

WORK void trapped(int, siginfo_t *, void *context)
{
    greg_t *regs = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    int at = landing_at(static_cast<uintptr_t>(regs[REG_RIP]));
    if (at == 1 && (regs[REG_EFL] & TF) == 0) { // behind the breakpoint
        regs[REG_RIP] -= 1;
        regs[REG_EFL] |= TF;
        at = 0;
        landings_set(false);
    }
    if (at >= 0) {
        at_landing[at]++;
        walk_check(at);
        return;
    }
    resumed++;
    misaligned += regs[REG_RSP] % 16 != 8; // as after any call
    regs[REG_EFL] &= ~TF;
    landings_set(true);
}

WORK void throw_to_landings()
{
    bars();
    at_throw.n = 0;
    _Unwind_Backtrace(seen, &at_throw);
    throw thrown(5);
}

WORK void steps()
{
    struct sigaction trap = {};
    trap.sa_sigaction = trapped;
    trap.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &trap, nullptr);
    const uintptr_t from = landing(0) & ~uintptr_t{4095};
    if (mprotect(reinterpret_cast<void *>(from), landing(0) + 8192 - from,
                 PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
        std::abort();
    landings_set(true);
    try {
        descend(5, throw_to_landings);
    } catch (const thrown &t) {
        landings_set(false);
        tell("stepped", t.value);
    }
    std::printf("landings %ld at push %ld mov %ld jmp %ld, wrong there %ld %ld %ld, misaligned %ld\n",
                resumed, at_landing[0], at_landing[1], at_landing[4], wrong[0], wrong[1], wrong[4],
                misaligned);
}

const struct {
    const char *name;
    action run;
} all[] = {
    {"catch", catch_above},    {"rethrow", rethrow}, {"nested", nested},   {"meanwhile", meanwhile},
    {"terminate", terminates}, {"carry", carry},     {"foreign", foreign}, {"forced", forced},
    {"threads", threads_end},  {"return", returns},  {"steps", steps},
};

} // namespace

namespace
{

// Unwinders fill tables when they first unwind by themselves, without which libgcc's aborts when libc (which has loaded one
// for itself) or libstdc++ asks it about another one's frame.
WORK void throw_first()
{
    guard g;
    throw std::logic_error("first");
}

WORK void unwind_once()
{
    try {
        throw_first();
    } catch (const std::logic_error &) {
        guards = 0;
    }
}

} // namespace

int main(int argc, char **argv)
{
    bar = reinterpret_cast<decltype(bar)>(dlsym(RTLD_DEFAULT, "bar_stack"));
    stub_at = reinterpret_cast<decltype(stub_at)>(dlsym(RTLD_DEFAULT, "bar_at"));
    landing_at = reinterpret_cast<decltype(landing_at)>(dlsym(RTLD_DEFAULT, "bar_landing_at"));
    landing = reinterpret_cast<decltype(landing)>(dlsym(RTLD_DEFAULT, "bar_landing"));
    burn_ns = argc > 2 ? std::strtoull(argv[2], nullptr, 10) * MS : 0;
    if (argc > 1 && std::strcmp(argv[1], "unwinder") == 0) {
        Dl_info info = {};
        dladdr(reinterpret_cast<void *>(&_Unwind_RaiseException), &info);
        std::puts(info.dli_fname);
        return 0;
    }
    unwind_once();
    for (const auto &one : all) {
        if (argc > 1 && std::strcmp(argv[1], one.name) == 0) {
            one.run();
            std::puts("done");
            return 0;
        }
    }
    return 2;
}
