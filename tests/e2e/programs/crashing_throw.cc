// crashing_throw KIND: an exception that nobody catches.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

namespace shop
{
struct out_of_stock : std::runtime_error {
    using std::runtime_error::runtime_error;
};
} // namespace shop

__attribute__((noinline)) static void sell()
{
    throw shop::out_of_stock("no more bolts");
}

static void destroyed() noexcept
{
    sell();
}

int main(int argc, char **argv)
{
    const std::string kind = argc > 1 ? argv[1] : "";
    if (kind == "thrown")
        sell();
    if (kind == "int")
        throw 42;
    if (kind == "noexcept")
        destroyed();
    if (kind == "thread")
        std::thread(sell).join();
    if (kind == "terminate")
        std::terminate();
    if (kind == "joinable")
        std::thread t([] { std::this_thread::sleep_for(std::chrono::hours(1)); });
    return 99;
}
