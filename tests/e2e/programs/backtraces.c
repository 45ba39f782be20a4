/* Asks for its own stack from below deep work, all the time, by backtrace() and by _Unwind_Backtrace, in normal context and in
 * a signal handler: each frame of its own is there, in order, down to the start of the program or of the thread.
 *
 *   backtraces SECONDS   of CPU time of the process; prints what was wrong: nothing */
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unwind.h>

#define DEPTH  150
#define FRAMES 1000

static _Atomic unsigned long wrong;
static double end;
static _Thread_local void *frames[FRAMES];
static _Thread_local int n_frames;

static double seconds_used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Unwind_Reason_Code frame_add(struct _Unwind_Context *context, void *unused)
{
    (void)unused;
    if (n_frames < FRAMES)
        frames[n_frames++] = (void *)_Unwind_GetIP(context);
    return _URC_NO_REASON;
}

static int within(const void *address, const void *function)
{
    return _Unwind_FindEnclosingFunction((char *)(uintptr_t)address - 1) == function;
}

static unsigned down(unsigned n, unsigned depth);

/* So many frames of down(), one after the other as far as this program's own functions go, and then its caller's. */
static void check(unsigned depth, const void *caller)
{
    unsigned own = 0;
    int i = 0;
    while (i < n_frames && own < depth + 1)
        own += (unsigned)within(frames[i++], (void *)down);
    while (i < n_frames && !within(frames[i], caller))
        wrong += (unsigned)within(frames[i++], (void *)down);
    wrong += own != depth + 1 || i == n_frames || n_frames - i > 16;
}

static _Thread_local unsigned how;

static void look(int signal)
{
    (void)signal;
    n_frames = 0;
    if (how % 2 == 0)
        n_frames = backtrace(frames, FRAMES);
    else
        _Unwind_Backtrace(frame_add, NULL);
}

static unsigned worked(unsigned n)
{
    for (unsigned i = 0; i < 3000; i++)
        n = n * 1664525u + 1013904223u;
    return n;
}

__attribute__((noipa)) static unsigned down(unsigned n, unsigned depth)
{
    if (depth > 0)
        return down(n, depth - 1) + 1;
    n = worked(n);
    how = n >> 16;
    if (how & 2)
        raise(SIGUSR1);
    else
        look(0);
    return n + 1;
}

__attribute__((noipa)) static void *go_on(void *unused)
{
    for (unsigned i = 0; seconds_used() < end; i++) {
        unsigned depth = DEPTH - i % 50;
        down(i, depth);
        check(depth, (void *)go_on);
    }
    return unused;
}

__attribute__((noipa)) int main(int argc, char **argv)
{
    end = argc == 2 ? atof(argv[1]) : 0;
    signal(SIGUSR1, look);
    backtrace(frames, FRAMES); /* loads the unwinder */
    pthread_t thread;
    if (pthread_create(&thread, NULL, go_on, NULL) != 0)
        return 2;
    go_on(NULL);
    pthread_join(thread, NULL);
    printf("wrong: %lu\n", wrong);
    return 0;
}
