/* Waits of who runs on another's thread-local storage: a vfork's child, and a thread of a bare clone while its maker waits,
 * too. waits_borrowed vfork|clone. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 1000

static char stack[65536] __attribute__((aligned(64)));
static _Atomic int done;

static int sleeps(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++)
        usleep(50);
    done = 1;
    syscall(SYS_exit, 0); /* this thread alone */
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (strcmp(argv[1], "vfork") == 0) {
        int status;
        pid_t pid = vfork();
        if (pid == 0) {
            usleep(1000);
            _exit(3);
        }
        return pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 3;
    }
    if (clone(sleeps, stack + sizeof stack,
              CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL) < 0)
        return 1;
    while (!done)
        usleep(50);
    return 0;
}
