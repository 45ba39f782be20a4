/* Finds libstile.so beside this executable, and reads from a command's file why a preload cannot have worked. */
#include "cli/preload.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* Opens a command as execvp finds it. */
static int command_open(const char *command)
{
    char path[PATH_MAX];
    const char *dirs = strchr(command, '/') != NULL ? "" : getenv("PATH");
    while (dirs != NULL) {
        const char *end = strchrnul(dirs, ':');
        bool direct = strchr(command, '/') != NULL;
        snprintf(path, sizeof path, "%.*s%s%s", (int)(end - dirs), dirs, direct ? "" : "/", command);
        if (access(path, X_OK) == 0)
            return open(path, O_RDONLY | O_CLOEXEC);
        dirs = *end == ':' ? end + 1 : NULL;
    }
    return -1;
}

static bool has_interpreter(int fd, const Elf64_Ehdr *eh)
{
    Elf64_Phdr ph;
    for (unsigned i = 0; i < eh->e_phnum; i++)
        if (pread(fd, &ph, sizeof ph, (off_t)(eh->e_phoff + i * sizeof ph)) == sizeof ph &&
            ph.p_type == PT_INTERP)
            return true;
    return false;
}

const char *stile__preload_obstacle(const char *command)
{
    const char *why = "it did not load libstile, or ended before that";
    Elf64_Ehdr eh;
    struct stat st;
    int fd = command_open(command);

    if (fd < 0)
        return why;
    ssize_t n = pread(fd, &eh, sizeof eh, 0);
    if (fstat(fd, &st) == 0 && (st.st_mode & (S_ISUID | S_ISGID)) != 0)
        why = "it is setuid or setgid, and such programs take no preload; run it as that user instead";
    else if (n > 2 && memcmp(&eh, "#!", 2) == 0)
        why = "its interpreter is a program that takes no preload";
    else if (n > EI_CLASS && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 && eh.e_ident[EI_CLASS] == ELFCLASS32)
        why = "it is a 32-bit program; Stile profiles 64-bit ones";
    else if (n == sizeof eh && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 && !has_interpreter(fd, &eh))
        why = "it is statically linked and takes no preload; link it dynamically";
    close(fd);
    return why;
}
