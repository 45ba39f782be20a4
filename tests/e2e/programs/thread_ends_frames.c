/* Frames of C that clean up by handlers. Without -fexceptions these are setjmp's, with it they are the unwinder's. */
#include <pthread.h>
#include <stdint.h>

#include "rounds.h"
#include "thread_ends.h"

static void clean(void *depth)
{
    frame_cleaned((unsigned)(uintptr_t)depth);
}

WORK static void pass_by(unsigned depth, void (*at_the_bottom)(void))
{
    frames_descend(depth, at_the_bottom);
    __asm__ volatile("");
}

WORK void frames_descend(unsigned depth, void (*at_the_bottom)(void))
{
    if (depth == 0) {
        at_the_bottom();
        return;
    }
    pthread_cleanup_push(clean, (void *)(uintptr_t)depth);
    work_a_little();
    if (depth % 3 == 0)
        pass_by(depth - 1, at_the_bottom);
    else
        frames_descend(depth - 1, at_the_bottom);
    pthread_cleanup_pop(1);
}
