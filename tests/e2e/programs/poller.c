/* Works and waits in turns, and counts the waits that a signal broke off: the program itself has none. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

WORK static uint64_t work_between_waits(uint64_t ns)
{
    return burn(ns);
}

/* Thousands of short waits: nearly all of the time is the waits' own work in the kernel. */
static int wait_often(int epoll_fd, int kind)
{
    struct timespec moment = {0, 1000};
    struct epoll_event event;
    struct pollfd p = {.fd = 0, .events = 0};
    struct timeval none = {0, 0};
    int broken = 0;

    for (int i = 0; i < 2000; i++) {
        int r = 0;
        errno = 0;
        if (kind == 0)
            r = poll(&p, 0, 0);
        else if (kind == 1)
            r = ppoll(&p, 0, &moment, NULL);
        else if (kind == 2)
            r = select(0, NULL, NULL, NULL, &none);
        else if (kind == 3)
            r = epoll_wait(epoll_fd, &event, 1, 0);
        else if (kind == 4)
            r = nanosleep(&moment, NULL);
        else
            r = pselect(0, NULL, NULL, NULL, &moment, NULL);
        broken += r < 0 && errno == EINTR;
    }
    return broken;
}

int main(void)
{
    static const char *const names[] = {"poll", "ppoll", "select", "epoll_wait", "nanosleep", "pselect"};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int broken[6] = {0};

    for (int round = 0; round < 3; round++) {
        for (int kind = 0; kind < 6; kind++)
            broken[kind] += wait_often(epoll_fd, kind);
        work_between_waits(50 * MS);
    }
    for (int kind = 0; kind < 6; kind++)
        printf("%s %d\n", names[kind], broken[kind]);
    return 0;
}
