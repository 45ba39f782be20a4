/* Exceptions for test_every_instruction.c: through frames with and without clean-up, caught, thrown again. */
#include "tests/unit/signal/every_instruction.h"

namespace
{
struct counted {
    explicit counted(int n) : n_(n)
    {
    }
    ~counted()
    {
        passed += n_;
    }
    int n_;
    static volatile int passed;
};
volatile int counted::passed;

[[gnu::noinline]] int deep(int n)
{
    if (n == 0)
        throw counted::passed + 1;
    if (n % 3 == 0) {
        counted here(n);
        return deep(n - 1) + here.n_;
    }
    if (n % 7 == 0) {
        try {
            return deep(n - 1) + 1;
        } catch (long) {
            return -1;
        } catch (int) {
            if (n % 2 == 0)
                throw;
            return deep(n - 2) + 2;
        }
    }
    return deep(n - 1) + 1;
}
} // namespace

extern "C" int throw_through(int n)
{
    counted::passed = 0;
    try {
        return deep(n);
    } catch (int) {
        return counted::passed;
    }
}
