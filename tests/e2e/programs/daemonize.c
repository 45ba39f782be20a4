/* Becomes a daemon half way: `daemonize FILE`, where it leaves its pid when all is done. */
#include <stdio.h>
#include <unistd.h>

#include "work.h"

WORK static uint64_t work_before_daemon(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_in_daemon(uint64_t ns)
{
    return burn(ns);
}

int main(int argc, char **argv)
{
    FILE *f;

    if (argc < 2)
        return 2;
    work_before_daemon(300 * MS);
    if (daemon(0, 0) != 0)
        return 1;
    work_in_daemon(400 * MS);
    f = fopen(argv[1], "w");
    if (!f)
        return 1;
    fprintf(f, "%d\n", (int)getpid());
    return fclose(f) == 0 ? 0 : 1;
}
