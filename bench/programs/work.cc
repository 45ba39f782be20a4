// What is compiled, to have the compiler work.
#include <algorithm>
#include <functional>
#include <map>
#include <regex>
#include <string>
#include <unordered_map>

template <int N> struct S {
    std::map<int, std::string> m;
    std::function<int(int)> f;
    int go()
    {
        std::regex r("a+b");
        std::unordered_map<std::string, S<N - 1>> u;
        std::sort(&m[0], &m[N], [](auto &a, auto &b) { return a.size() < b.size() + N; });
        return u["x"].go() + f(N);
    }
};
template <> struct S<0> {
    int go()
    {
        return 0;
    }
};

int main()
{
    S<6> s;
    return s.go();
}
