/* Fibers that threads resume from every depth of their own stacks, each thread any fiber: `fiber_moves MS`, with
 * the kind of fibers of fiber_ucontext.c, fiber_boost.cc or fiber_pth.c. */
#include <pthread.h>
#include <stdbool.h>

#include "fiber_moves.h"
#include "rounds.h"

#define FIBERS  4
#define THREADS 2

static struct {
    pthread_mutex_t lock; /* of who has it resumed */
    void *fiber;
    uint64_t random, turns;
    unsigned resumed_by;
    unsigned moves; /* from a thread to another one */
} fibers[FIBERS];

static struct thread {
    pthread_t thread;
    unsigned number;
    uint64_t random;
} threads[THREADS];

static uint64_t begun, ns;

WORK static uint64_t fiber_descend(unsigned number, unsigned depth)
{
    volatile uint64_t on_stack = mix(depth);
    uint64_t *random = &fibers[number].random, sum = 0;

    work_a_little();
    if (random_below(random, 16) == 0) {
        fibers[number].turns++;
        kind_yield(fibers[number].fiber);
    }
    if (depth != 0)
        sum = fiber_descend(number, depth - 1);
    else
        kind_try();
    CHECK(on_stack == mix(depth));
    if (random_below(random, 16) == 0) {
        fibers[number].turns++;
        kind_yield(fibers[number].fiber);
    }
    CHECK(on_stack == mix(depth));
    return sum + on_stack;
}

static uint64_t sum_to(unsigned depth)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= depth; i++)
        sum += mix(i);
    return sum;
}

void fiber_main(unsigned number, void *fiber)
{
    fibers[number].fiber = fiber;
    for (;;) {
        unsigned depth = random_below(&fibers[number].random, 100);
        uint64_t found = fiber_descend(number, depth);
        CHECK(found == sum_to(depth));
    }
}

/* One of the fibers, if no other thread has it. */
WORK static void resume_one(struct thread *t)
{
    unsigned number = random_below(&t->random, FIBERS);
    if (pthread_mutex_trylock(&fibers[number].lock) != 0)
        return;
    uint64_t turns = fibers[number].turns;
    kind_resume(fibers[number].fiber);
    CHECK(fibers[number].turns == turns + 1);
    fibers[number].moves += fibers[number].resumed_by != t->number;
    fibers[number].resumed_by = t->number;
    if (random_below(&t->random, 32) == 0) {
        kind_end(fibers[number].fiber);
        fibers[number].fiber = kind_make(number);
    }
    pthread_mutex_unlock(&fibers[number].lock);
}

WORK static uint64_t descend(struct thread *t, unsigned depth)
{
    volatile uint64_t on_stack = mix(depth);
    uint64_t sum = 0;

    work_a_little();
    if (random_below(&t->random, 16) == 0)
        resume_one(t);
    if (depth != 0)
        sum = descend(t, depth - 1);
    else
        kind_try();
    CHECK(on_stack == mix(depth));
    work_a_little();
    if (random_below(&t->random, 16) == 0)
        resume_one(t);
    CHECK(on_stack == mix(depth));
    return sum + on_stack;
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    for (int i = 0; i < 20 || process_cpu_ns() - begun < ns; i++) {
        unsigned depth = 20 + random_below(&t->random, i % 4 == 0 ? 20 : 280);
        uint64_t found = descend(t, depth);
        CHECK(found == sum_to(depth));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned moves = 0;

    if (argc != 2)
        return 2;
    begun = process_cpu_ns();
    ns = strtoull(argv[1], NULL, 10) * MS;
    for (unsigned i = 0; i < FIBERS; i++) {
        CHECK(pthread_mutex_init(&fibers[i].lock, NULL) == 0);
        fibers[i].fiber = kind_make(i);
    }
    for (unsigned i = 0; i < kind_threads(); i++)
        threads[i] = (struct thread){.number = i, .random = i};
    for (unsigned i = 1; i < kind_threads(); i++)
        CHECK(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]) == 0);
    thread_main(&threads[0]);
    for (unsigned i = 1; i < kind_threads(); i++)
        CHECK(pthread_join(threads[i].thread, NULL) == 0);
    for (unsigned i = 0; i < FIBERS; i++) {
        moves += fibers[i].moves;
        kind_end(fibers[i].fiber);
    }
    printf("done, %s\n", moves != 0 ? "moved" : "never moved");
    return 0;
}
