/* The process's threads, as the kernel lists them. Runs in the handlers of crashes. */
#include <dirent.h>
#include <fcntl.h>

#include "profiler/agent/crash/crash.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define PATH_BYTES 48u

static int open_raw(const char *path, int flags)
{
    return (int)stile__raw_syscall(SYS_openat, AT_FDCWD, (long)path, flags | O_RDONLY | O_CLOEXEC, 0);
}

bool stile__tasks_each(void (*fn)(uint32_t tid, void *arg), void *arg)
{
    _Alignas(struct dirent64) char buf[2048] = {0};
    const int fd = open_raw("/proc/self/task", O_DIRECTORY);
    long n;

    if (fd < 0)
        return false;
    while ((n = stile__raw_syscall(SYS_getdents64, fd, (long)buf, sizeof buf, 0)) > 0)
        for (long at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(buf + at);
            uint32_t tid = 0;
            for (const char *c = d->d_name; *c >= '0' && *c <= '9'; c++)
                tid = tid * 10 + (uint32_t)(*c - '0');
            if (tid != 0)
                fn(tid, arg);
            at += d->d_reclen;
        }
    stile__raw_syscall(SYS_close, fd, 0, 0, 0);
    return true;
}

/* "/proc/self/task/TID/" and a file's name. */
static void path_make(char *path, uint32_t tid, const char *file)
{
    static const char folder[] = "/proc/self/task/";
    char digits[10];
    size_t n = 0, k = 0;
    for (; folder[n] != '\0'; n++)
        path[n] = folder[n];
    do
        digits[k++] = (char)('0' + tid % 10);
    while ((tid /= 10) != 0);
    while (k > 0)
        path[n++] = digits[--k];
    path[n++] = '/';
    while ((path[n] = *file++) != '\0')
        n++;
}

/* Reads the beginning of a thread's file. Returns its bytes, 0 if it cannot be read. */
static size_t file_read(uint32_t tid, const char *file, char *bytes, size_t size)
{
    char path[PATH_BYTES];
    path_make(path, tid, file);
    const int fd = open_raw(path, 0);
    if (fd < 0)
        return 0;
    const long n = stile__raw_syscall(SYS_read, fd, (long)bytes, (long)size, 0);
    stile__raw_syscall(SYS_close, fd, 0, 0, 0);
    return n > 0 ? (size_t)n : 0;
}

void stile__task_look(uint32_t tid, struct stile__task *task)
{
    char text[128] = {0};
    size_t n = file_read(tid, "comm", text, sizeof text), k = 0;

    for (; k < n && k < sizeof task->name && text[k] != '\n'; k++)
        task->name[k] = text[k];
    if (k < sizeof task->name)
        task->name[k] = '\0';
    /* "TID (NAME) STATE ..."; a name may hold anything, parentheses too. */
    task->state = '?';
    n = file_read(tid, "stat", text, sizeof text);
    for (size_t i = n; i-- > 0;)
        if (text[i] == ')' && i + 2 < n) {
            task->state = text[i + 2];
            break;
        }
}
