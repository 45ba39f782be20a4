/* Calls what wrapped_library.c wraps, each function twice, one at a time, and prints how many calls came there. */
#include "tests/e2e/programs/wrapped.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn;

static void *answers(void *arg)
{
    pthread_mutex_lock(&mutex);
    turn = 1;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&mutex);
    return arg;
}

int main(void)
{
    static const struct timespec past;
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        pthread_mutex_lock(&mutex);
        turn = 0;
        if (pthread_create(&thread, NULL, answers, NULL) != 0)
            return 1;
        while (turn == 0)
            pthread_cond_wait(&cond, &mutex);
        pthread_cond_timedwait(&cond, &mutex, &past);
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&mutex);
        pthread_join(thread, NULL);
    }
    printf("%u\n", wrapped_calls);
    return 0;
}
