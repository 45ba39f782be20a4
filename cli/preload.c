/* Finds libstile.so beside this executable. */
#include "cli/preload.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int stile__preload_value(char *value, size_t size)
{
    static const char *const places[] = {"/../lib/libstile.so", "/../" STILE_LIBDIR "/libstile.so"};
    char self[PATH_MAX], path[PATH_MAX + 64];
    const char *before = getenv("LD_PRELOAD");
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n < 0)
        n = 0;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char real[PATH_MAX];
        snprintf(path, sizeof path, "%s%s", self, places[i]);
        if (realpath(path, real) == NULL)
            continue;
        if (strpbrk(real, " :") != NULL) {
            fprintf(stderr, "stile record: %s cannot be preloaded: its path has a space or a colon\n", real);
            return -EINVAL;
        }
        bool more = before != NULL && *before != '\0';
        int len = snprintf(value, size, "%s%s%s", real, more ? ":" : "", more ? before : "");
        if (len >= (int)size) {
            fputs("stile record: LD_PRELOAD is too long\n", stderr);
            return -ENAMETOOLONG;
        }
        return 0;
    }
    fprintf(stderr, "stile record: libstile.so is not beside %s/stile\n", self);
    return -ENOENT;
}
