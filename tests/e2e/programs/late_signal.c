/* A handler that ends the program with _exit, or lets it run on, some microseconds after main has returned: the moment
 * at which a profile is being waited for. argv: MICROSECONDS. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void end(int signal)
{
    (void)signal;
    _exit(3);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    signal(SIGALRM, end);
    ualarm((useconds_t)atoi(argv[1]), 0);
    return 0;
}
