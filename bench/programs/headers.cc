// What cc1plus is given to compile, after the preprocessor: never run. With LONG it is several times as much.
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

using Table = std::map<std::string, std::vector<int>>;

void add(Table &table, const std::string &name, int value)
{
    auto &values = table[name];
    values.insert(std::upper_bound(values.begin(), values.end(), value), value);
}

void print(const Table &table)
{
    std::vector<std::pair<int, std::string>> sums;
    for (const auto &[name, values] : table) {
        int sum = 0;
        for (int v : values)
            sum += v;
        sums.emplace_back(sum, name);
    }
    std::sort(sums.begin(), sums.end());
    for (const auto &[sum, name] : sums)
        std::cout << name << '\t' << sum << '\n';
}

#ifdef LONG
#    include <deque>
#    include <functional>
#    include <random>
#    include <sstream>
#    include <unordered_map>

template <typename Key, typename Value> std::string counted(const std::vector<std::pair<Key, Value>> &pairs)
{
    std::unordered_map<Key, std::deque<Value>> by_key;
    std::function<bool(const Value &, const Value &)> less = [](const Value &a, const Value &b) {
        return a < b;
    };
    for (const auto &[key, value] : pairs)
        by_key[key].push_back(value);
    std::ostringstream out;
    std::mt19937_64 random(1);
    for (auto &[key, values] : by_key) {
        std::shuffle(values.begin(), values.end(), random);
        std::stable_sort(values.begin(), values.end(), less);
        out << key << ' ' << values.front() << ' ' << values.size() << '\n';
    }
    return out.str();
}

template std::string counted(const std::vector<std::pair<int, int>> &);
template std::string counted(const std::vector<std::pair<std::string, std::string>> &);
#endif
