// A regular expression on long strings: `deep_regex CHARS ROUNDS`. The library's matcher goes some frames deeper with each
// character, and at the bottom it tries one way after the other, since there is no match. Short strings come first, so
// that its code is known to a profiler before stacks are deep.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <regex>
#include <string>

#include "work.h"

namespace
{

constexpr size_t stack_size = size_t{1} << 30;
constexpr size_t tries = 40; // to the fifth power, about
constexpr uint64_t short_ns = 400 * uint64_t{MS};

struct job {
    size_t chars;
    int rounds;
    uint64_t found = 0;
};

std::string text_of(size_t chars)
{
    std::string text(chars, 'a');
    for (size_t i = 0; i < chars; i += 3)
        text[i] = 'b';
    return text + std::string(tries, 'c');
}

extern "C" void *match_all(void *arg)
{
    job *j = static_cast<job *>(arg);
    const std::regex pattern("(a|b)*c*c*c*c*c*d");
    const std::string brief = text_of(20), text = text_of(j->chars);
    for (uint64_t start = thread_cpu_ns(); thread_cpu_ns() - start < short_ns;)
        if (std::regex_match(brief, pattern))
            abort();
    for (int i = 0; i < j->rounds; i++) {
        std::smatch groups;
        j->found += std::regex_match(text, groups, pattern) ? 1 : groups.size() + text.size();
    }
    return nullptr;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    job j = {strtoul(argv[1], nullptr, 10), atoi(argv[2])};
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    if (pthread_attr_setstacksize(&attr, stack_size) != 0 ||
        pthread_create(&thread, &attr, match_all, &j) != 0)
        return 1;
    pthread_join(thread, nullptr);
    printf("%llu\n", static_cast<unsigned long long>(j.found));
    return 0;
}
