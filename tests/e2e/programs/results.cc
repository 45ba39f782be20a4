// What functions return, many calls deep: `results MS`. Results of every class of the ABI are compared with those of
// loops, bit by bit; and a chain of functions keeps values in registers that calls may change, since each callee is
// known not to (-fipa-ra).
#include <complex>
#include <cstring>
#include <immintrin.h>

#include "rounds.h"

namespace
{

struct two_words {
    uint64_t a, b;
};
struct mixed {
    double a;
    uint64_t b;
};
struct two_doubles {
    double a, b;
};
struct large { // in memory
    uint64_t words[9];
};
using wide = __int128;

// For each type: a value of a depth, and what a call makes of the one below it.
template <typename T> struct kind;

template <> struct kind<uint64_t> {
    static uint64_t step(uint64_t below, uint64_t depth)
    {
        return mix(below ^ depth);
    }
};
template <> struct kind<wide> {
    static wide step(wide below, uint64_t depth)
    {
        return below * 0x10001 + (static_cast<wide>(mix(depth)) << 60);
    }
};
template <> struct kind<float> {
    static float step(float below, uint64_t depth)
    {
        return below * 0.75f + static_cast<float>(depth % 100) / 7;
    }
};
template <> struct kind<double> {
    static double step(double below, uint64_t depth)
    {
        return below * 0.75 + static_cast<double>(depth) / 7;
    }
};
template <> struct kind<long double> {
    static long double step(long double below, uint64_t depth)
    {
        return below * 0.75L + static_cast<long double>(depth) / 7;
    }
};
template <> struct kind<_Complex long double> { // in both registers at the top of the x87's stack
    static _Complex long double step(_Complex long double below, uint64_t depth)
    {
        long double a = __real__ below, b = __imag__ below;
        _Complex long double made;
        __real__ made = a * 0.5L + b * 0.25L + 1.0L / static_cast<long double>(depth + 3);
        __imag__ made = a * 0.25L - b * 0.5L + static_cast<long double>(depth) / 7;
        return made;
    }
};
template <> struct kind<two_words> {
    static two_words step(two_words below, uint64_t depth)
    {
        return {mix(below.b), below.a + depth};
    }
};
template <> struct kind<mixed> {
    static mixed step(mixed below, uint64_t depth)
    {
        return {below.a * 0.5 + static_cast<double>(below.b % 1000) / 3, mix(below.b + depth)};
    }
};
template <> struct kind<two_doubles> {
    static two_doubles step(two_doubles below, uint64_t depth)
    {
        return {below.b * 0.5 + 1, below.a * 0.25 + static_cast<double>(depth) / 3};
    }
};
template <> struct kind<large> {
    static large step(const large &below, uint64_t depth)
    {
        large made;
        for (unsigned i = 0; i < 9; i++)
            made.words[i] = mix(below.words[(i + 1) % 9] + depth + i);
        return made;
    }
};
template <> struct kind<__m128i> {
    static __m128i step(__m128i below, uint64_t depth)
    {
        __m128i made = _mm_set1_epi64x(static_cast<long long>(mix(depth)));
        return _mm_add_epi64(_mm_shuffle_epi32(below, 0x39), made);
    }
};
#ifdef __AVX2__
template <> struct kind<__m256i> {
    static __m256i step(__m256i below, uint64_t depth)
    {
        __m256i made = _mm256_set1_epi64x(static_cast<long long>(mix(depth)));
        return _mm256_add_epi64(_mm256_permute4x64_epi64(below, 0x39), made);
    }
};
#endif

// What compares equal. (A long double has six bytes that mean nothing.)
template <typename T> bool same(const T &a, const T &b)
{
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}
template <> bool same(const long double &a, const long double &b)
{
    return std::memcmp(&a, &b, 10) == 0;
}
template <> bool same(const _Complex long double &a, const _Complex long double &b)
{
    return same<long double>(__real__ a, __real__ b) && same<long double>(__imag__ a, __imag__ b);
}

constexpr unsigned DEEP = 300;

template <typename T> T expected[DEEP + 1]; // of each depth

template <typename T> T first()
{
    T value;
    std::memset(&value, 0, sizeof(value));
    return value;
}

template <typename T> WORK T call(unsigned depth)
{
    work_a_little();
    if (depth == 0)
        return first<T>();
    T below = call<T>(depth - 1);
    CHECK(same<T>(below, expected<T>[depth - 1]));
    return kind<T>::step(below, depth);
}

template <typename T> void try_type(unsigned depth)
{
    if (depth == 0) { // before all others
        expected<T>[0] = first<T>();
        for (unsigned i = 1; i <= DEEP; i++)
            expected<T>[i] = kind<T>::step(expected<T>[i - 1], i);
        return;
    }
    T found = call<T>(depth);
    CHECK(same<T>(found, expected<T>[depth]));
}

template <typename... T> void try_types(unsigned depth)
{
    (try_type<T>(depth), ...);
}

void try_all(unsigned depth)
{
    try_types<uint64_t, wide, float, double, long double, _Complex long double, two_words, mixed, two_doubles,
              large, __m128i>(depth);
#ifdef __AVX2__
    try_types<__m256i>(depth);
#endif
}

// Each function of the chain has a value of its own over the call, an integer or a floating-point number by
// turns. The compiler knows what the callees change, which is little: so it leaves values in registers that any
// other call might change.
constexpr int LINKS = 24;

template <int N> __attribute__((noinline, noclone)) static double link(double x, uint64_t y)
{
    if constexpr (N == 0) {
        uint64_t z = y | 1;
        for (int i = 0; i < 2000; i++) {
            z = z * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(z));
        }
        return x + static_cast<double>(z % 1024);
    } else if constexpr (N % 3 == 0) {
        double below = link<N - 1>(x + 1, y + 1);
        return below + static_cast<double>(y % 4096) * N;
    } else {
        double below = link<N - 1>(x + 0.5, y + 3);
        return below * 0.5 + x;
    }
}

// The same as one loop: inlined, so that there is no call.
template <int N> __attribute__((always_inline)) static inline double links(double x, uint64_t y)
{
    if constexpr (N == 0) {
        uint64_t z = y | 1;
        for (int i = 0; i < 2000; i++)
            z = z * 6364136223846793005u + 1442695040888963407u;
        return x + static_cast<double>(z % 1024);
    } else if constexpr (N % 3 == 0) {
        double below = links<N - 1>(x + 1, y + 1);
        return below + static_cast<double>(y % 4096) * N;
    } else {
        double below = links<N - 1>(x + 0.5, y + 3);
        return below * 0.5 + x;
    }
}

WORK double links_inline(double x, uint64_t y)
{
    return links<LINKS>(x, y);
}

WORK void try_chain(unsigned depth, uint64_t y)
{
    double x = static_cast<double>(y % 512);
    if (depth != 0)
        try_chain(depth - 1, y + 1);
    else
        for (unsigned i = 0; i < 1000; i++)
            CHECK(link<LINKS>(x, y + i) == links_inline(x, y + i));
    __asm__ volatile("");
}

} // namespace

int main(int argc, char **argv)
{
    uint64_t random = 1, begun = process_cpu_ns();

    if (argc != 2)
        return 2;
#ifdef __AVX2__
    if (!__builtin_cpu_supports("x86-64-v3")) {
        std::puts("not on this processor");
        return 77;
    }
#endif
    try_all(0);
    for (int i = 0; i < 10 || process_cpu_ns() - begun < std::strtoull(argv[1], nullptr, 10) * MS; i++) {
        try_all(20 + random_below(&random, i % 4 == 0 ? 20 : DEEP - 20));
        try_chain(random_below(&random, 200), random);
    }
    std::puts("done");
    return 0;
}
