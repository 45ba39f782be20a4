/* The calls that wait, for the tests of their hooks. */
#ifndef STILE_TESTS_UNIT_AGENT_WAITS_H
#define STILE_TESTS_UNIT_AGENT_WAITS_H

#include <semaphore.h>
#include <stddef.h>
#include <time.h>

/* A way of waiting: for 60 ms or longer. Returns 0 if nothing came in between, or the error. */
struct wait {
    const char *name;
    int (*wait)(void);
};
extern const struct wait waits[];
extern const size_t n_waits;

/* What they wait on: nothing ever comes, and what is timed gives up after 60 ms. */
extern int waits_fds[2], waits_timed[2], waits_epoll_fd;
extern sem_t waits_sem;
extern const struct timespec waits_soon;

int waits_make(void);
void waits_remove(void);

#endif
