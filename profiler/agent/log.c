/* Lines for the user, from the agent: at start and at the end, in normal context. */
#include "profiler/agent/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/agent/cancellation.h"

static struct {
    int known;
    dev_t dev;
    ino_t ino;
} standard_error;

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
    if (write(STDERR_FILENO, line, (size_t)n) < 0) {
        /* Nobody to tell. */
    }
out:
    stile__cancellation_restore(cancellation);
    errno = saved_errno;
}
