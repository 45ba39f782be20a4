/* How long the calling thread was ready to run and did not, by the kernel's books. */
#ifndef STILE_TEST_RUN_DELAY_H
#define STILE_TEST_RUN_DELAY_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* In nanoseconds, since the thread began. */
static uint64_t run_delay(void)
{
    char text[96] = "";
    uint64_t ns = 0;
    int fd = open("/proc/thread-self/schedstat", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || sscanf(text, "%*u %" SCNu64, &ns) != 1)
        abort();
    close(fd);
    return ns;
}

#endif
