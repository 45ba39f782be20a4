/* PROFILE_COLLECTOR of a program that is kept to one processor: `stile` on the others, with the same arguments. What a
 * program starts is kept where it is, and a collector would take its turns there with what is compared.
 *
 * Without others it is `stile` where it is. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The kernel takes of all processors those that may be used here. */
static void leave(void)
{
    cpu_set_t here, others;
    if (sched_getaffinity(0, sizeof here, &here) != 0)
        return;
    memset(&others, 0xff, sizeof others);
    CPU_XOR(&others, &others, &here);
    sched_setaffinity(0, sizeof others, &others);
}

int main(int argc, char **argv)
{
    (void)argc;
    char path[PATH_MAX];
    static const char stile[] = "../bin/stile"; /* beside this one's directory */
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof stile);
    if (n < 0)
        return 127;
    path[n] = '\0';
    strcpy(strrchr(path, '/') + 1, stile);
    leave();
    execv(path, argv);
    return 127;
}
