/* What a program and its children see of SIGPROF: argv[1] names what is done first. Prints one line per place. */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
/* What `signal` is in a program compiled for strict POSIX. */
extern void (*__sysv_signal(int signal, void (*handler)(int)))(int);

static void handler(int signal)
{
    (void)signal;
}

static void look(const char *where)
{
    struct sigaction action;
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigaction(SIGPROF, NULL, &action);
    printf("%s: blocked %d, %s\n", where, sigismember(&mask, SIGPROF),
           action.sa_handler == SIG_DFL   ? "default"
           : action.sa_handler == SIG_IGN ? "ignored"
                                          : "handled");
    fflush(stdout);
}

static void prepare(const char *how)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGPROF);
    if (strcmp(how, "block") == 0)
        sigprocmask(SIG_BLOCK, &one, NULL);
    else if (strcmp(how, "ignore") == 0)
        signal(SIGPROF, SIG_IGN);
    else if (strcmp(how, "sysv") == 0)
        __sysv_signal(SIGPROF, SIG_DFL);
    else if (strcmp(how, "handle") == 0)
        signal(SIGPROF, handler);
    else if (strcmp(how, "handle-block") == 0) {
        signal(SIGPROF, handler);
        sigprocmask(SIG_BLOCK, &one, NULL);
        raise(SIGPROF);
        sigpending(&one);
        printf("pending %d\n", sigismember(&one, SIGPROF));
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (strcmp(argv[1], "look") == 0) {
        look(argv[2]);
        return 0;
    }
    prepare(argv[1]);
    look("program");
    pid_t pid = fork();
    if (pid == 0) {
        look("fork");
        execl(argv[0], argv[0], "look", "fork and exec", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
    char *args[] = {argv[0], (char *)"look", (char *)"spawn", NULL};
    if (strcmp(argv[1], "ignore") != 0 && posix_spawn(&pid, argv[0], NULL, NULL, args, environ) == 0)
        waitpid(pid, NULL, 0);
    for (volatile long i = 0; i < 200000000; i++)
        ;
    execl("/nonexistent", "x", (char *)NULL);
    look("program after an exec that failed");
    return 0;
}
