// terminate_cases CASE: ends by std::terminate. Also a plugin, whose function does it.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <typeinfo>
#include <unistd.h>
#include <unwind.h>

namespace
{

void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        _exit(98);
}

struct other {
    virtual ~other() = default;
    long filler[7] = {};
};

struct second : other, std::runtime_error {
    second() : std::runtime_error("not at the beginning")
    {
    }
};

struct ambiguous_a : std::runtime_error {
    ambiguous_a() : std::runtime_error("a")
    {
    }
};
struct ambiguous_b : std::runtime_error {
    ambiguous_b() : std::runtime_error("b")
    {
    }
};
struct ambiguous : ambiguous_a, ambiguous_b {
};

struct virtual_base : virtual std::exception {
    const char *what() const noexcept override
    {
        return "through a virtual base";
    }
};

struct hidden : private std::exception {
};

struct long_text : std::exception {
    std::string text = std::string(5000, 'x');
    const char *what() const noexcept override
    {
        return text.c_str();
    }
};

struct crashing : std::exception {
    const char *what() const noexcept override
    {
        abort();
    }
};

struct nested : std::exception {
    const char *what() const noexcept override
    {
        throw 5;
    }
};

struct throws_at_end {
    ~throws_at_end()
    {
        throw std::logic_error("from a destructor");
    } // which is noexcept
};

void own_handler()
{
    say(std::get_terminate() == own_handler ? "own handler\n" : "another's\n");
    abort();
}

void throwing_handler()
{
    say("throwing handler\n");
    throw 6;
}

int set_before = (getenv("SET_BEFORE") != nullptr ? (void)std::set_terminate(own_handler) : void(), 0);

void handlers()
{
    std::terminate_handler first = std::get_terminate();
    if (std::set_terminate(own_handler) != first || std::get_terminate() != own_handler)
        _exit(97);
    if (std::set_terminate(first) != own_handler || std::get_terminate() != first)
        _exit(96);
    std::set_terminate(own_handler);
}

// Another language's exception: before it is no header of C++'s, but what looks like one.
struct foreign {
    const std::type_info *not_a_type = &typeid(long_text);
    char rest[72] = {};
    _Unwind_Exception exception = {};
} thrown;
static_assert(offsetof(foreign, exception) == 80);

void run(const std::string &name)
{
    if (name == "runtime_error")
        throw std::runtime_error("plain");
    if (name == "second")
        throw second();
    if (name == "virtual_base")
        throw virtual_base();
    if (name == "ambiguous")
        throw ambiguous();
    if (name == "hidden")
        throw hidden();
    if (name == "long_text")
        throw long_text();
    if (name == "crashing")
        throw crashing();
    if (name == "nested")
        throw nested();
    if (name == "int")
        throw 42;
    if (name == "string")
        throw "characters";
    if (name == "pointer") {
        static std::runtime_error pointed("pointed to");
        throw &pointed;
    }
    if (name == "rethrown") {
        try {
            throw std::out_of_range("once more");
        } catch (...) {
            throw;
        }
    }
    if (name == "pointer_rethrown") {
        std::exception_ptr p;
        try {
            throw second();
        } catch (...) {
            p = std::current_exception();
        }
        std::rethrow_exception(p);
    }
    if (name == "noexcept") {
        throws_at_end t;
        return;
    }
    if (name == "thread")
        std::thread([] { throw std::range_error("in a thread"); }).join();
    if (name == "foreign_thrown") {
        std::set_terminate(own_handler);
        thrown.exception.exception_class = 0x4d4f5a0052555354; // Rust's
        try {
            _Unwind_RaiseException(&thrown.exception);
        } catch (...) {
            std::terminate();
        }
    }
    if (name == "foreign") // not C++'s own: pthread_exit's
        std::thread([]() noexcept { pthread_exit(nullptr); }).join();
    if (name == "joinable") {
        std::thread t([] { pause(); });
        return;
    }
    if (name == "none")
        std::terminate();
    if (name == "own") {
        handlers();
        throw std::runtime_error("for its own");
    }
    if (name == "throwing_handler") {
        std::set_terminate(throwing_handler);
        throw std::runtime_error("first");
    }
    if (name == "caught") { // and all goes on as ever
        for (int i = 0; i < 1000; i++) {
            try {
                throw second();
            } catch (const std::exception &e) {
                if (strcmp(e.what(), "not at the beginning") != 0)
                    _exit(95);
            }
        }
        say("all caught\n");
        _exit(0);
    }
}

} // namespace

extern "C" __attribute__((visibility("default"))) void terminate_case(const char *name) noexcept
{
    run(name);
}

int main(int, char **argv)
{
    (void)set_before;
    run(argv[1]);
    return 0;
}
