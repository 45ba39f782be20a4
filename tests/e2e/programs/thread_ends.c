/* Threads that end deep in their stacks: `thread_ends MS`, with the frames of thread_ends_frames.c or .cc. They
 * exit, are cancelled where they ask, where they wait, and wherever they are; and at last the main thread exits.
 * Each frame has to be cleaned up, the innermost first. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "rounds.h"
#include "thread_ends.h"

static unsigned cleaned;   /* the frame that was cleaned up last */
static bool key_destroyed; /* the thread's own storage is gone */
static _Atomic bool there; /* at the bottom */
static unsigned depth_now, below;
static pthread_key_t key;
static pthread_t first;

void frame_cleaned(unsigned depth)
{
    CHECK(depth == cleaned + 1);
    cleaned = depth;
}

/* Frames without anything to clean up, which may be left anywhere. */
WORK static void recurse(unsigned depth)
{
    work_a_little();
    if (depth != 0)
        recurse(depth - 1);
    work_a_little();
}

static void exit_here(void)
{
    recurse(below);
    pthread_exit(&cleaned);
}

static void return_here(void)
{
    recurse(below);
}

static void cancel_myself(void)
{
    pthread_cancel(pthread_self());
    recurse(below);
    pthread_testcancel();
    CHECK(false);
}

static void test_for_cancellation(void)
{
    for (there = true;; pthread_testcancel())
        recurse(below);
}

static void wait_for_cancellation(void)
{
    recurse(below);
    for (there = true;;)
        pause();
}

static void be_cancelled_anywhere(void)
{
    int before;
    CHECK(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before) == 0);
    for (there = true;;)
        recurse(below);
}

static void *thread_main(void *end)
{
    void (*at_the_bottom)(void);
    memcpy(&at_the_bottom, &end, sizeof(end));
    CHECK(pthread_setspecific(key, &key) == 0);
    frames_descend(depth_now, at_the_bottom);
    return &key;
}

static void destroy_key(void *value)
{
    CHECK(value == &key && cleaned == depth_now);
    key_destroyed = true;
}

static const struct {
    void (*at_the_bottom)(void);
    bool cancel; /* by us */
    void *result;
} ends[] = {
    {return_here, false, &key},
    {exit_here, false, &cleaned},
    {cancel_myself, false, PTHREAD_CANCELED},
    {test_for_cancellation, true, PTHREAD_CANCELED},
    {wait_for_cancellation, true, PTHREAD_CANCELED},
    {be_cancelled_anywhere, true, PTHREAD_CANCELED},
};

static void begin(unsigned depth)
{
    cleaned = 0;
    key_destroyed = false;
    there = false;
    depth_now = depth;
}

static void thread_end(size_t end, uint64_t *random)
{
    pthread_t thread;
    void *result, *bottom;

    begin(random_below(random, 4) == 0 ? 20 : 100 + random_below(random, 100));
    below = random_below(random, 100);
    memcpy(&bottom, &ends[end].at_the_bottom, sizeof(bottom));
    CHECK(pthread_create(&thread, NULL, thread_main, bottom) == 0);
    if (ends[end].cancel) {
        const struct timespec some = {.tv_nsec = 1000 * (1 + random_below(random, 1000))};
        while (!there)
            usleep(50);
        nanosleep(&some, NULL);
        CHECK(pthread_cancel(thread) == 0);
    }
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == ends[end].result);
    CHECK(cleaned == depth_now && key_destroyed);
}

static void *join_first(void *arg)
{
    void *result;
    (void)arg;
    CHECK(pthread_join(first, &result) == 0);
    CHECK(result == &cleaned && cleaned == depth_now && key_destroyed);
    puts("done");
    exit(0);
}

int main(int argc, char **argv)
{
    uint64_t random = 1, begun = process_cpu_ns();
    pthread_t last;

    if (argc != 2)
        return 2;
    CHECK(pthread_key_create(&key, destroy_key) == 0);
    for (int i = 0; i < 5 || process_cpu_ns() - begun < strtoull(argv[1], NULL, 10) * MS; i++)
        for (size_t end = 0; end < sizeof(ends) / sizeof(*ends); end++)
            thread_end(end, &random);
    first = pthread_self();
    begin(150);
    CHECK(pthread_setspecific(key, &key) == 0 && pthread_create(&last, NULL, join_first, NULL) == 0);
    frames_descend(depth_now, exit_here);
    return 1;
}
