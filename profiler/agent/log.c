/* Lines for the user, from the agent: at start and at the end, in normal context. */
#include "profiler/agent/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/agent/cancellation.h"
#include "profiler/region/raw_syscall.h"

static struct {
    int known;
    dev_t dev;
    ino_t ino;
} standard_error;

/* A pipe that nobody reads, a file at its limit (RLIMIT_FSIZE) and a terminal in whose background the program runs answer with
 * signals that would end or stop it. */
static void line_write(const char *line, size_t n)
{
    const uint64_t ours = 1ull << (SIGPIPE - 1) | 1ull << (SIGXFSZ - 1), stop = 1ull << (SIGTTOU - 1);
    const struct timespec at_once = {0, 0};
    uint64_t before = 0;
    const uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ours | stop);

    stile__raw_syscall(SYS_rt_sigpending, (long)&before, sizeof before, 0, 0);
    const uint64_t new = ours & ~before;
    const long err = stile__raw_syscall(SYS_write, STDERR_FILENO, (long)line, (long)n, 0);
    if ((err == -EPIPE || err == -EFBIG) && new != 0) /* and then there is nobody to tell */
        stile__raw_syscall(SYS_rt_sigtimedwait, (long)&new, 0, (long)&at_once, sizeof new);
    stile__raw_sigmask(SIG_SETMASK, mask);
}

void stile__log_init(void)
{
    struct stat st;
    int saved_errno = errno;
    if (fstat(STDERR_FILENO, &st) == 0) {
        standard_error.known = 1;
        standard_error.dev = st.st_dev;
        standard_error.ino = st.st_ino;
    }
    errno = saved_errno;
}

void stile__log(const char *format, ...)
{
    char line[1024];
    struct stat st;
    va_list args;
    int saved_errno = errno, cancellation = stile__cancellation_hold();

    if (!standard_error.known || fstat(STDERR_FILENO, &st) != 0 || st.st_dev != standard_error.dev ||
        st.st_ino != standard_error.ino)
        goto out;
    int n = snprintf(line, sizeof line, "stile: ");
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    if (m < 0)
        goto out;
    n += m;
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    line_write(line, (size_t)n);
out:
    stile__cancellation_restore(cancellation);
    errno = saved_errno;
}
