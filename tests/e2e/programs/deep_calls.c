/* Calls a hundred thousand deep: `deep_calls WAY STACK MS`. WAY is how functions call: `recursion`, `mutual`, or
 * `tail`: each frame was entered by a jump, so that its return address was left to another function than the one
 * that uses it. STACK is `thread`, one with a large stack, or `main`. It spends its time going up and down at the
 * bottom, where it works at few places, since what a profile holds is frames by different stacks; before that less
 * deep, so that the code is known. */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "rounds.h"

#define DEPTH      100000u
#define SHALLOW    60u
#define SHALLOW_NS (300ull * MS)
#define NEAR       24u   /* frames above the bottom: from there it goes down again, most often */
#define FAR        1000u /* and from there until its time is over */
#define TURNS      200u  /* near ones for each far one */
#define WORK_EACH  8u
#define STACK      (256ul << 20)

struct calls {
    uint64_t begun, ns;
    unsigned bottom, near, far, turns;
};

typedef uint64_t call(struct calls *c, unsigned depth, uint64_t above);

static call recurse, even, odd, tail_here, tail_there, tail_odd, tail_even;

static inline void work(const struct calls *c, unsigned depth)
{
    if (depth >= c->near && depth % WORK_EACH == 0)
        work_a_little();
}

static bool again(struct calls *c, unsigned depth)
{
    if (depth == c->near)
        return ++c->turns % TURNS != 0;
    return depth == c->far && process_cpu_ns() - c->begun < c->ns;
}

WORK static uint64_t recurse(struct calls *c, unsigned depth, uint64_t above)
{
    uint64_t mine = mix(above), below = 0;
    work(c, depth);
    if (depth == c->bottom)
        return mine;
    do
        below = recurse(c, depth + 1, mine);
    while (again(c, depth));
    return below + mine;
}

WORK static uint64_t even(struct calls *c, unsigned depth, uint64_t above)
{
    uint64_t mine = mix(above), below = 0;
    work(c, depth);
    if (depth == c->bottom)
        return mine;
    do
        below = odd(c, depth + 1, mine);
    while (again(c, depth));
    return below + mine;
}

WORK static uint64_t odd(struct calls *c, unsigned depth, uint64_t above)
{
    uint64_t mine = mix(above);
    return even(c, depth + 1, mine) + mine;
}

/* A thousand jumps. */
WORK static uint64_t tail_even(struct calls *c, unsigned left, uint64_t above)
{
    return left == 0 ? above : tail_odd(c, left - 1, mix(above));
}

WORK static uint64_t tail_odd(struct calls *c, unsigned left, uint64_t above)
{
    return left == 0 ? above : tail_even(c, left - 1, mix(above));
}

WORK static uint64_t tail_there(struct calls *c, unsigned depth, uint64_t mine)
{
    uint64_t below = 0;
    work(c, depth);
    if (depth == c->bottom)
        return tail_even(c, 1000, mine);
    do
        below = tail_here(c, depth + 1, mine);
    while (again(c, depth));
    return below + mine;
}

WORK static uint64_t tail_here(struct calls *c, unsigned depth, uint64_t above)
{
    return tail_there(c, depth, mix(above));
}

static const struct {
    const char *name;
    call *first;
    unsigned jumps; /* behind the bottom */
} ways[] = {{"recursion", recurse, 0}, {"mutual", even, 0}, {"tail", tail_here, 1000}};

static size_t way;
static uint64_t work_ns;

/* Goes as deep as that, and swings there for so long. */
static void calls_make(unsigned depth, uint64_t ns)
{
    struct calls c = {process_cpu_ns(), ns, depth, depth - NEAR, depth > FAR ? depth - FAR : 0, 0};
    uint64_t found = ways[way].first(&c, 0, depth), sum = 0, mine = depth;
    for (unsigned i = 0; i < depth; i++)
        sum += mine = mix(mine);
    mine = mix(mine);
    for (unsigned i = 0; i < ways[way].jumps; i++)
        mine = mix(mine);
    CHECK(found == sum + mine);
    printf("%u: %llx\n", depth, (unsigned long long)found);
}

static void *run(void *arg)
{
    calls_make(SHALLOW, SHALLOW_NS);
    calls_make(DEPTH, work_ns);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_attr_t attr;
    pthread_t thread;

    if (argc != 4)
        return 2;
    while (strcmp(argv[1], ways[way].name) != 0)
        if (++way == sizeof(ways) / sizeof(*ways))
            return 2;
    work_ns = strtoull(argv[3], NULL, 10) * MS;
    if (strcmp(argv[2], "main") == 0) {
        run(NULL);
        return 0;
    }
    CHECK(pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, STACK) == 0);
    CHECK(pthread_create(&thread, &attr, run, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}
