/* Jumps over many frames: `long_jumps WAY MS`, where WAY is `longjmp`, `siglongjmp`, `timer` (out of a handler of
 * signals that a timer sends every 100 us) or `thread` (the same, sent by another thread). A round goes down a
 * stack, some of whose frames can be jumped to, jumps a few times from where it is and goes down again, and
 * returns through all that is left. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "rounds.h"

#define EACH   12 /* frames that one of can be jumped to */
#define PLACES 32
#define DEEP   (EACH * PLACES - 1)

enum way { LONGJMP, SIGLONGJMP, TIMER, THREAD };
static const char *const ways[] = {"longjmp", "siglongjmp", "timer", "thread"};

static struct {
    uint64_t random;
    enum way way;
    union {
        jmp_buf plain;
        sigjmp_buf with_mask;
    } at[PLACES];
    unsigned bottom; /* of this descent */
    unsigned jumps;  /* that are left */
    unsigned place;  /* where the last one went */
    uint64_t value;
} round_now;

static volatile sig_atomic_t armed; /* the handler jumps */
static _Atomic bool over;
static pthread_t jumper;

static uint64_t descend(unsigned depth);

/* To one of those above. */
static void jump(void)
{
    round_now.jumps--;
    round_now.place = random_below(&round_now.random, round_now.bottom / EACH + 1);
    round_now.value = mix(round_now.random);
    if (round_now.way == LONGJMP)
        longjmp(round_now.at[round_now.place].plain, (int)(round_now.value & 0xffff) + 1);
    else
        siglongjmp(round_now.at[round_now.place].with_mask, (int)(round_now.value & 0xffff) + 1);
}

static void signalled(int number)
{
    (void)number;
    if (!armed || random_below(&round_now.random, 2) == 0)
        return;
    armed = 0;
    jump();
}

/* Until it is jumped from. */
WORK static void recurse(unsigned depth)
{
    work_a_little();
    if (depth != 0)
        recurse(depth - 1);
    __asm__ volatile("");
}

WORK static uint64_t bottom(void)
{
    if (round_now.jumps == 0)
        return 0;
    if (round_now.way == TIMER || round_now.way == THREAD) {
        unsigned below = random_below(&round_now.random, 100);
        atomic_signal_fence(memory_order_seq_cst);
        for (armed = 1;;)
            recurse(below);
    }
    jump();
    return 1;
}

static void descend_again(unsigned depth)
{
    round_now.bottom = depth + random_below(&round_now.random, DEEP - depth + 1);
}

/* A frame that can be jumped to. */
WORK static uint64_t stay(unsigned depth)
{
    const uint64_t local = mix(depth);
    volatile uint64_t on_stack = local;
    const unsigned place = depth / EACH;
    int value = round_now.way == LONGJMP ? setjmp(round_now.at[place].plain)
                                         : sigsetjmp(round_now.at[place].with_mask, 1);
    if (value != 0) {
        CHECK(round_now.place == place && value == (int)(round_now.value & 0xffff) + 1);
        descend_again(depth);
    }
    CHECK(on_stack == mix(depth));
    uint64_t sum = depth == round_now.bottom ? bottom() : descend(depth + 1);
    CHECK(on_stack == mix(depth));
    return sum + on_stack;
}

WORK static uint64_t descend(unsigned depth)
{
    if (depth % EACH == 0)
        return stay(depth) + 1;
    uint64_t local = mix(depth);
    work_a_little();
    uint64_t sum = depth == round_now.bottom ? bottom() : descend(depth + 1);
    work_a_little();
    return sum + local;
}

static void round_make(void)
{
    uint64_t sum = 0;

    round_now.jumps = 1 + random_below(&round_now.random, 8);
    descend_again(random_below(&round_now.random, 4) == 0 ? 20 : 200);
    uint64_t found = descend(0);
    for (unsigned depth = 0; depth <= round_now.bottom; depth++)
        sum += mix(depth) + (depth % EACH == 0 ? 1 : 0);
    CHECK(found == sum && round_now.jumps == 0);
}

static void *send(void *arg)
{
    uint64_t random = 1;
    (void)arg;
    while (!over) {
        const struct timespec some = {.tv_nsec = 1000 * (20 + random_below(&random, 200))};
        pthread_kill(jumper, SIGUSR1);
        nanosleep(&some, NULL);
    }
    return NULL;
}

static void timer_start(void)
{
    const struct itimerspec often = {.it_interval = {.tv_nsec = 100000}, .it_value = {.tv_nsec = 100000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
}

int main(int argc, char **argv)
{
    const uint64_t begun = process_cpu_ns();
    struct sigaction action = {.sa_handler = signalled, .sa_flags = SA_RESTART};
    pthread_t sender;

    if (argc != 3)
        return 2;
    while (strcmp(argv[1], ways[round_now.way]) != 0)
        if (++round_now.way > THREAD)
            return 2;
    jumper = pthread_self();
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    if (round_now.way == TIMER)
        timer_start();
    if (round_now.way == THREAD)
        CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
    for (int i = 0; i < 5 || process_cpu_ns() - begun < strtoull(argv[2], NULL, 10) * MS; i++)
        round_make();
    over = true;
    if (round_now.way == THREAD)
        CHECK(pthread_join(sender, NULL) == 0);
    puts("done");
    return 0;
}
