/* Threads that stand where the test knows: in a lock, a condition variable, a pipe, a raw futex that no hook sees; one that runs.
 * Says "standing" once they do. standing [run] [kill|segv]: waits to be ended, or ends itself. */
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "work.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int fds[2];
static uint32_t word;
static volatile int *volatile nowhere;

WORK static void stand_in_mutex(void)
{
    pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
}

WORK static void stand_in_cond(void)
{
    pthread_mutex_lock(&mutex);
    for (;;)
        pthread_cond_wait(&cond, &mutex);
}

WORK static void stand_in_pipe(void)
{
    char byte;
    while (read(fds[0], &byte, 1) >= 0)
        ;
}

WORK static void stand_unseen(void)
{
    for (;;)
        syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

WORK static void keep_running(void)
{
    for (;;)
        burn(10 * MS);
}

static const struct place {
    const char *name;
    void (*stand)(void);
} places[] = {{"in mutex", stand_in_mutex},
              {"in cond", stand_in_cond},
              {"in pipe", stand_in_pipe},
              {"unseen", stand_unseen},
              {"runs", keep_running}};

static void *stands(void *arg)
{
    const struct place *p = arg;
    pthread_setname_np(pthread_self(), p->name);
    p->stand();
    return NULL;
}

WORK static void end_as(const char *how)
{
    usleep(500000);
    if (strcmp(how, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(how, "segv") == 0)
        *nowhere = 1;
}

int main(int argc, char **argv)
{
    int run = argc > 1 && strcmp(argv[1], "run") == 0;
    if (pipe(fds) != 0)
        return 1;
    pthread_mutex_lock(&held);
    for (size_t i = 0; i < sizeof places / sizeof *places - !run; i++) {
        pthread_t t;
        pthread_create(&t, NULL, stands, (void *)&places[i]);
    }
    usleep(100000);
    puts("standing");
    fflush(stdout);
    if (argc > 1)
        end_as(argv[argc - 1]);
    for (;;)
        pause();
}
