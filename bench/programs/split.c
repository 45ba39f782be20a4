/* Spends CPU time in functions of known shares, and says in JSON what each took by the clock of its thread:
 *
 *   split shares MS        one thread in part_0, part_1, part_2: 50, 30, 20 %
 *   split threads MS       eight threads at once, each in a part of its own, the last eight times as long as the first
 *   split pool MS          the shares again, but each turn in new threads, two at a time
 *   split kernel MS        the shares again, part_1 in system calls
 *   split deep MS DEPTH    in part_0, so many calls below main
 *   split paths MS DEPTH   the shares again, each turn at the end of another path of so many calls
 *
 * No turn is as long as the last one, so that no clock is in step with them. */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define APART   __attribute__((noipa))
#define PARTS   8
#define MS      1000000u
#define TURN_NS 500000u /* the longest, of all parts together */
#define CHUNK   2000

static const unsigned shares[PARTS] = {50, 30, 20};
static uint64_t used[PARTS];
static unsigned depth;

static uint64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13; /* xorshift32, Marsaglia 2003 */
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static inline __attribute__((always_inline)) void burn(uint64_t ns)
{
    uint64_t end = now(CLOCK_THREAD_CPUTIME_ID) + ns, x = end | 1;
    do {
        for (int i = 0; i < CHUNK; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(x));
        }
    } while (now(CLOCK_THREAD_CPUTIME_ID) < end);
}

#define PART(i)                                                                                              \
    APART static void part_##i(uint64_t ns)                                                                  \
    {                                                                                                        \
        burn(ns);                                                                                            \
        __asm__ volatile("");                                                                                \
    }
PART(0)
PART(1)
PART(2)
PART(3)
PART(4)
PART(5)
PART(6)
PART(7)

static void (*const parts[PARTS])(uint64_t) = {part_0, part_1, part_2, part_3,
                                               part_4, part_5, part_6, part_7};

/* Not libc's: it has no frame pointer, and who follows those would miss its caller. */
static inline __attribute__((always_inline)) ssize_t read_here(int fd, void *buffer, size_t size)
{
    ssize_t n;
    __asm__ volatile("syscall"
                     : "=a"(n)
                     : "a"((long)SYS_read), "D"((long)fd), "S"(buffer), "d"(size)
                     : "rcx", "r11", "memory");
    return n;
}

APART static void part_kernel(uint64_t ns)
{
    static char buffer[1 << 16];
    static int zeros = -1;
    uint64_t end = now(CLOCK_THREAD_CPUTIME_ID) + ns;
    if (zeros < 0)
        zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    do {
        if (read_here(zeros, buffer, sizeof buffer) != (ssize_t)sizeof buffer)
            exit(1);
    } while (now(CLOCK_THREAD_CPUTIME_ID) < end);
}

static void timed(unsigned i, void (*part)(uint64_t), uint64_t ns)
{
    uint64_t begin = now(CLOCK_THREAD_CPUTIME_ID);
    part(ns);
    __atomic_fetch_add(&used[i], now(CLOCK_THREAD_CPUTIME_ID) - begin, __ATOMIC_RELAXED);
}

/* ---- one path of calls among many ---- */

static void path(unsigned level, unsigned i, uint64_t ns, uint32_t *random);

#define STEP(name)                                                                                           \
    APART static void step_##name(unsigned level, unsigned i, uint64_t ns, uint32_t *random)                 \
    {                                                                                                        \
        path(level, i, ns, random);                                                                          \
        __asm__ volatile("");                                                                                \
    }
STEP(a)
STEP(b)
STEP(c)
STEP(d)

static inline __attribute__((always_inline)) void path(unsigned level, unsigned i, uint64_t ns,
                                                       uint32_t *random)
{
    static void (*const steps[])(unsigned, unsigned, uint64_t, uint32_t *) = {step_a, step_b, step_c, step_d};
    if (level == 0)
        timed(i, parts[i], ns);
    else
        steps[next_random(random) % 4](level - 1, i, ns, random);
}

APART static void down(unsigned level, uint64_t ns)
{
    if (level == 0)
        timed(0, part_0, ns);
    else
        down(level - 1, ns);
    __asm__ volatile("");
}

/* ---- who does it ---- */

struct turn {
    unsigned part;
    uint64_t ns;
};

static void *turn_main(void *turn)
{
    struct turn *t = turn;
    timed(t->part, parts[t->part], t->ns);
    return NULL;
}

static void in_threads(struct turn *turns, unsigned n)
{
    pthread_t handles[PARTS];
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&handles[i], NULL, turn_main, &turns[i]) != 0)
            exit(1);
    for (unsigned i = 0; i < n; i++)
        pthread_join(handles[i], NULL);
}

static void at_once(uint64_t ns)
{
    struct turn turns[PARTS];
    for (unsigned i = 0; i < PARTS; i++)
        turns[i] = (struct turn){.part = i, .ns = ns * (i + 1) * 2 / (PARTS * (PARTS + 1))};
    in_threads(turns, PARTS);
}

static uint64_t sum(void)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < PARTS; i++)
        all += used[i];
    return all;
}

static void in_turns(const char *how, uint64_t ns)
{
    bool pool = strcmp(how, "pool") == 0, kernel = strcmp(how, "kernel") == 0,
         paths = strcmp(how, "paths") == 0;
    uint32_t random = 2463534242u;
    while (sum() < ns)
        for (unsigned i = 0; shares[i] != 0; i++) {
            uint64_t turn = TURN_NS / 100 * shares[i] / 2 * (1024 + next_random(&random) % 1024) / 1024;
            if (pool)
                in_threads((struct turn[]){{i, turn / 2}, {i, turn / 2}}, 2);
            else if (paths)
                path(depth, i, turn, &random);
            else
                timed(i, kernel && i == 1 ? part_kernel : parts[i], turn);
        }
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fputs("split shares|threads|pool|kernel|deep|paths MS [DEPTH]\n", stderr);
        return 2;
    }
    uint64_t ns = strtoull(argv[2], NULL, 10) * MS;
    depth = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    if (strcmp(argv[1], "threads") == 0)
        at_once(ns);
    else if (strcmp(argv[1], "deep") == 0)
        down(depth, ns);
    else
        in_turns(argv[1], ns);
    printf("{\"cpu\": %llu, \"parts\": {", (unsigned long long)now(CLOCK_PROCESS_CPUTIME_ID));
    for (unsigned i = 0, n = 0; i < PARTS; i++)
        if (used[i] != 0)
            printf("%s\"%s\": %llu", n++ == 0 ? "" : ", ",
                   strcmp(argv[1], "kernel") == 0 && i == 1
                       ? "part_kernel"
                       : (const char[]){'p', 'a', 'r', 't', '_', (char)('0' + i), 0},
                   (unsigned long long)used[i]);
    puts("}}");
    return 0;
}
