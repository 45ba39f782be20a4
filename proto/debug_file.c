/* Finds separate debug files for the symbolizer, as gdb and Debian lay them out.
 * Context: any normal context; single-threaded; blocking file reads. */
#include "proto/debug_file.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BUILD_ID_MOST = 64, /* bytes; SHA-1 has 20 */
};

/* How a candidate proves that it belongs to the module. */
struct proof {
    const uint8_t *build_id;
    size_t build_id_size; /* 0: go by crc */
    uint32_t crc;
};

static int regular_open(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static uint32_t file_crc(int fd)
{
    uint8_t bytes[16384];
    uLong crc = crc32(0, NULL, 0);
    off_t at = 0;
    ssize_t n;

    while ((n = pread(fd, bytes, sizeof(bytes), at)) > 0) {
        crc = crc32(crc, bytes, (uInt)n);
        at += n;
    }
    return (uint32_t)crc;
}

static int candidate_open(const char *path, const struct proof *proof, struct stile__elf_file *out)
{
    const uint8_t *id;
    int fd = regular_open(path);

    if (fd < 0)
        return -ENOENT;
    if (!proof->build_id_size && file_crc(fd) != proof->crc) {
        close(fd);
        return -ENOENT;
    }
    if (stile__elf_file_open(out, fd))
        return -ENOENT;
    if (proof->build_id_size && (stile__elf_file_build_id(out, &id) != proof->build_id_size ||
                                 memcmp(id, proof->build_id, proof->build_id_size))) {
        stile__elf_file_close(out);
        return -ENOENT;
    }
    return 0;
}

/* Tries the path that the format makes; on success it is left in *found if wanted. */
static int __attribute__((format(printf, 4, 5)))
candidate_try(const struct proof *proof, struct stile__elf_file *out, char **found, const char *format, ...)
{
    va_list args;
    char *path;
    int n, err;

    va_start(args, format);
    n = vasprintf(&path, format, args);
    va_end(args);
    if (n < 0)
        return -ENOMEM;
    err = candidate_open(path, proof, out);
    if (!err && found)
        *found = path;
    else
        free(path);
    return err;
}

static int by_build_id(const struct proof *proof, const char *root, const char *ending,
                       struct stile__elf_file *out, char **found)
{
    char hex[2 * BUILD_ID_MOST + 1];

    if (proof->build_id_size < 2 || proof->build_id_size > BUILD_ID_MOST)
        return -ENOENT;
    for (size_t i = 0; i < proof->build_id_size; i++)
        snprintf(hex + 2 * i, 3, "%02x", proof->build_id[i]);
    return candidate_try(proof, out, found, "%s/.build-id/%.2s/%s%s", root, hex, hex + 2, ending);
}

/* The length of path's directory without the last slash, -1 if path is in no directory. */
static int directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash - path < INT_MAX ? (int)(slash - path) : -1;
}

static int by_link(const struct proof *proof, const char *link, const char *path, const char *root,
                   struct stile__elf_file *out, char **found)
{
    char *real = realpath(path, NULL);
    int length, err = -ENOENT;

    if (real)
        path = real;
    length = directory_length(path);
    if (length >= 0 && !strchr(link, '/')) {
        err = candidate_try(proof, out, found, "%.*s/%s", length, path, link);
        if (err)
            err = candidate_try(proof, out, found, "%.*s/.debug/%s", length, path, link);
        if (err)
            err = candidate_try(proof, out, found, "%s%.*s/%s", root, length, path, link);
    }
    free(real);
    return err;
}

int stile__debug_file_open(const struct stile__elf_file *module, const char *path, const char *root,
                           struct stile__elf_file *out, char **found_path)
{
    struct proof proof = {0};
    GElf_Word crc = 0;
    const char *link;
    int err;

    *out = (struct stile__elf_file){.fd = -1};
    proof.build_id_size = stile__elf_file_build_id(module, &proof.build_id);
    err = by_build_id(&proof, root, ".debug", out, found_path);
    if (!err || err == -ENOMEM)
        return err;
    link = dwelf_elf_gnu_debuglink(module->elf, &crc);
    if (!link || !*link || !path)
        return -ENOENT;
    proof.crc = crc;
    return by_link(&proof, link, path, root, out, found_path);
}

int stile__debug_file_find(const uint8_t *id, size_t id_size, const char *root, struct stile__elf_file *out,
                           char **found_path)
{
    const struct proof proof = {.build_id = id, .build_id_size = id_size};
    int err;

    *out = (struct stile__elf_file){.fd = -1};
    err = by_build_id(&proof, root, ".debug", out, found_path);
    return err == -ENOENT ? by_build_id(&proof, root, "", out, found_path) : err;
}

int stile__debug_file_open_alt(Dwarf *dwarf, const char *path, const char *root, struct stile__elf_file *out)
{
    struct proof proof = {0};
    const char *name = NULL;
    const void *id = NULL;
    ssize_t id_size = dwelf_dwarf_gnu_debugaltlink(dwarf, &name, &id);
    char *real;
    int err, length;

    *out = (struct stile__elf_file){.fd = -1};
    if (id_size <= 0 || !name || !*name)
        return -ENOENT;
    proof.build_id = id;
    proof.build_id_size = (size_t)id_size;
    err = by_build_id(&proof, root, ".debug", out, NULL);
    if (!err || err == -ENOMEM)
        return err;
    if (*name == '/')
        return candidate_try(&proof, out, NULL, "%s", name);
    real = path ? realpath(path, NULL)
                : NULL; /* build-id files are often links; the name is relative to the file */
    length = real ? directory_length(real) : -1;
    err = length >= 0 ? candidate_try(&proof, out, NULL, "%.*s/%s", length, real, name) : -ENOENT;
    free(real);
    return err;
}
