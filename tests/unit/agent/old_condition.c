/* A program from before condition variables had their present type: it refers to the functions of the first version, with the
 * library before libc. Of the old type one pointer is used; what lies behind it belongs to somebody else. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define OLD(name) __asm__(".symver " #name ", " #name "@GLIBC_2.2.5")
OLD(pthread_cond_wait);
OLD(pthread_cond_timedwait);
OLD(pthread_cond_signal);
OLD(pthread_cond_broadcast);

#define GUARD 0x5a5a5a5a5a5a5a5aL
static struct {
    void *condition;
    long guards[8];
} old = {NULL, {GUARD, GUARD, GUARD, GUARD, GUARD, GUARD, GUARD, GUARD}};
#define CONDITION ((pthread_cond_t *)(void *)&old)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int let;

static void *wait_for_it(void *arg)
{
    pthread_mutex_lock(&mutex);
    while (!let)
        pthread_cond_wait(CONDITION, &mutex);
    pthread_mutex_unlock(&mutex);
    return arg;
}

int main(void)
{
    const struct timespec past = {1, 0};
    pthread_t t;

    if (dlsym(RTLD_DEFAULT, "stile_version") == NULL) {
        puts("the library is not here");
        return 2;
    }
    if (pthread_create(&t, NULL, wait_for_it, NULL) != 0)
        return 2;
    usleep(20000);
    pthread_mutex_lock(&mutex);
    let = 1;
    pthread_cond_signal(CONDITION);
    pthread_cond_broadcast(CONDITION);
    pthread_mutex_unlock(&mutex);
    pthread_join(t, NULL);
    pthread_mutex_lock(&mutex);
    pthread_cond_timedwait(CONDITION, &mutex, &past);
    for (int i = 0; i < 8; i++)
        if (old.guards[i] != GUARD) {
            printf("word %d behind the condition variable was overwritten\n", i + 1);
            return 1;
        }
    if (old.condition == NULL)
        puts("what was called was not of the first version");
    return old.condition == NULL;
}
