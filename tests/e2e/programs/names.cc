// Names of every kind: templates, namespaces, inlined functions, static and local ones, a lambda.
#include <cstdio>
#include <string>
#include <vector>

#include "work.h"

namespace shop
{

template <typename T> class Basket
{
  public:
    explicit Basket(T seed) : value(seed)
    {
    }

    __attribute__((noinline)) T fill(int rounds);

  private:
    T value;
};

static inline __attribute__((always_inline)) uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ (x << 7);
}

static inline __attribute__((always_inline)) uint64_t mix_twice(uint64_t x)
{
    return mix(mix(x) + 1);
}

template <typename T> T Basket<T>::fill(int rounds)
{
    uint64_t x = (uint64_t)value;
    for (int i = 0; i < rounds; i++)
        x = mix_twice(x);
    value = (T)x;
    return value;
}

} // namespace shop

namespace
{

WORK uint64_t hidden_sum(const std::vector<std::string> &words)
{
    uint64_t sum = 0;
    for (const auto &w : words)
        for (char c : w)
            sum = sum * 31 + (unsigned char)c;
    return sum;
}

} // namespace

WORK static uint64_t outer(uint64_t ns, const std::vector<std::string> &words)
{
    shop::Basket<unsigned long> longs(1);
    shop::Basket<short> shorts(2);
    auto both = [&](int n) __attribute__((noinline))
    {
        return longs.fill(n) + (uint64_t)shorts.fill(n);
    };
    uint64_t sum = 0, begin = thread_cpu_ns();
    while (thread_cpu_ns() - begin < ns) {
        sum += both(20000);
        sum += hidden_sum(words);
    }
    return sum;
}

int main()
{
    std::vector<std::string> words(500, "the quick brown fox jumps over the lazy dog");
    uint64_t sum = outer(1500ull * MS, words);
    std::printf("done %d\n", sum != 42);
    return 0;
}
