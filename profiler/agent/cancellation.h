/* Nothing of ours is a point of cancellation where the program's call is none: a thread that is cancelled among our locks
 * and counts leaves them behind, and one that has all signals blocked waits in libc for that of its cancellation for ever.
 * Around what opens, closes, reads, writes or waits, in normal context. What is pending acts at the program's next point. */
#ifndef STILE_AGENT_CANCELLATION_H
#define STILE_AGENT_CANCELLATION_H

#include <pthread.h>

static inline int stile__cancellation_hold(void)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

static inline void stile__cancellation_restore(int before)
{
    pthread_setcancelstate(before, NULL);
}

#endif
