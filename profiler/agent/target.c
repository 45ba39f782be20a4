/* The name of the file to be written. Used by the agent and by `stile record`, in normal context; no allocation. */
#include "profiler/agent/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *program_name(void)
{
    return program_invocation_short_name != NULL ? program_invocation_short_name : "program";
}

int stile__target_expand(const char *path, char *out, size_t size)
{
    char value[256];
    size_t n = 0;

    for (const char *p = path; *p != '\0'; p++) {
        const char *piece = value;
        value[0] = *p;
        value[1] = '\0';
        if (*p == '%' && p[1] == 'p')
            snprintf(value, sizeof value, "%d", (int)getpid());
        else if (*p == '%' && p[1] == 'e')
            piece = program_name();
        else if (*p == '%' && p[1] == 't')
            snprintf(value, sizeof value, "%lld", (long long)time(NULL));
        if (*p == '%' && p[1] != '\0' && strchr("pet%", p[1]) != NULL)
            p++;
        size_t len = strlen(piece);
        if (n + len >= size)
            return -ENAMETOOLONG;
        memcpy(out + n, piece, len);
        n += len;
    }
    out[n] = '\0';
    return 0;
}

int stile__target_check(const char *path)
{
    char dir[4096];
    struct stat st;

    if (lstat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return -EISDIR;
        if (S_ISLNK(st.st_mode))
            return -ELOOP;
        if (!S_ISREG(st.st_mode))
            return -EINVAL;
    } else if (errno != ENOENT) {
        return -errno;
    }
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    if (n >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, slash == NULL ? "." : path, n);
    dir[n] = '\0';
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) != 0)
        return -errno;
    return 0;
}
