/* Reads from a command's file whether a preload gets into it. The file may be anything: every offset of it is checked,
 * and what makes no sense is left to the kernel to refuse. Context: the command line. */
#include "cli/command_check.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#if defined(__x86_64__)
#    define OUR_MACHINE EM_X86_64
#    define OUR_LOADER  "/lib64/ld-linux-x86-64.so.2"
#else
#    error "which ELF machine is this?"
#endif

#define SCRIPTS_MAX  5   /* interpreters of interpreters: the kernel follows as many */
#define SCRIPT_LINE  256 /* of a script's first line the kernel reads so much */
#define SEGMENTS_MAX 1024
#define DYNAMIC_MAX  4096
#define NAME_BYTES   128

struct elf {
    int fd;
    unsigned n;
    Elf64_Phdr segments[SEGMENTS_MAX];
};

static bool read_at(int fd, uint64_t offset, void *to, size_t n)
{
    return offset <= INT64_MAX - n && pread(fd, to, n, (off_t)offset) == (ssize_t)n;
}

/* The text there, which may be cut off; "" if there is none. */
static void text_at(int fd, uint64_t offset, char *to, size_t size)
{
    ssize_t n = offset <= INT64_MAX - size ? pread(fd, to, size - 1, (off_t)offset) : 0;
    to[n > 0 ? n : 0] = '\0';
}

static const Elf64_Phdr *segment_find(const struct elf *e, uint32_t type)
{
    for (unsigned i = 0; i < e->n; i++)
        if (e->segments[i].p_type == type)
            return &e->segments[i];
    return NULL;
}

/* Where in the file an address is. */
static bool offset_of(const struct elf *e, uint64_t address, uint64_t *offset)
{
    for (unsigned i = 0; i < e->n; i++) {
        const Elf64_Phdr *p = &e->segments[i];
        if (p->p_type == PT_LOAD && address >= p->p_vaddr && address - p->p_vaddr < p->p_filesz) {
            *offset = p->p_offset + (address - p->p_vaddr);
            return *offset >= p->p_offset;
        }
    }
    return false;
}

/* Whether the dynamic linker loads a library of AddressSanitizer for it: GCC's or Clang's. */
static bool needs_asan(const struct elf *e)
{
    const Elf64_Phdr *dynamic = segment_find(e, PT_DYNAMIC);
    static Elf64_Dyn all[DYNAMIC_MAX];
    uint64_t strings = 0, size = 0;
    char name[NAME_BYTES];

    if (dynamic == NULL)
        return false;
    size_t n = dynamic->p_filesz / sizeof *all;
    n = n < DYNAMIC_MAX ? n : DYNAMIC_MAX;
    if (!read_at(e->fd, dynamic->p_offset, all, n * sizeof *all))
        return false;
    for (size_t i = 0; i < n && all[i].d_tag != DT_NULL; i++) {
        if (all[i].d_tag == DT_STRTAB && !offset_of(e, all[i].d_un.d_ptr, &strings))
            return false;
        if (all[i].d_tag == DT_STRSZ)
            size = all[i].d_un.d_val;
    }
    for (size_t i = 0; i < n && all[i].d_tag != DT_NULL; i++) {
        if (all[i].d_tag != DT_NEEDED || all[i].d_un.d_val >= size || strings > INT64_MAX - all[i].d_un.d_val)
            continue;
        text_at(e->fd, strings + all[i].d_un.d_val, name, sizeof name);
        if (strncmp(name, "libasan.", 8) == 0 || strncmp(name, "libclang_rt.asan", 16) == 0)
            return true;
    }
    return false;
}

static bool is_our_loader(int fd)
{
    struct stat st, loader;
    return fstat(fd, &st) == 0 && stat(OUR_LOADER, &loader) == 0 && st.st_dev == loader.st_dev &&
           st.st_ino == loader.st_ino;
}

static void look_at_segments(struct stile__command *c, const struct elf *e)
{
    const Elf64_Phdr *interpreter = segment_find(e, PT_INTERP);
    char loader[PATH_MAX];

    if (interpreter == NULL) {
        if (!is_our_loader(
                e->fd)) /* who calls it himself has it run another program, with all that it loads */
            c->kind = STILE__COMMAND_STATIC;
        return;
    }
    text_at(e->fd, interpreter->p_offset, loader,
            interpreter->p_filesz < sizeof loader ? (size_t)interpreter->p_filesz + 1 : sizeof loader);
    const char *slash = strrchr(loader, '/');
    if (loader[0] == '/' && access(loader, F_OK) != 0 && errno == ENOENT) {
        c->kind = STILE__COMMAND_INCOMPLETE;
        memcpy(c->file, loader, sizeof c->file);
    } else if (slash != NULL && strncmp(slash, "/ld-musl", 8) == 0)
        c->kind = STILE__COMMAND_OTHER_LIBC;
    else if (needs_asan(e))
        c->kind = STILE__COMMAND_ASAN;
}

/* Whether the kernel gives the program rights that we do not have, upon which its loader ignores what we preload. */
static bool gains_rights(int fd)
{
    struct stat st;
    struct statvfs mount;
    char rights[64];
    ssize_t n;

    if (fstat(fd, &st) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
        (fstatvfs(fd, &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0))
        return false;
    if ((st.st_mode & S_ISUID) != 0 && st.st_uid != getuid())
        return true;
    if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid())
        return true;
    if (getuid() == 0 || geteuid() == 0) /* has all that a file could give */
        return false;
    n = fgetxattr(fd, "security.capability", rights, sizeof rights);
    for (ssize_t i = 4; i < n && i < 20;
         i++) /* behind the version: what is permitted, what may be inherited */
        if (rights[i] != 0)
            return true;
    return false;
}

static void look_at_elf(struct stile__command *c, int fd)
{
    static struct elf e;
    Elf64_Ehdr eh;

    if (!read_at(fd, 0, &eh, EI_NIDENT + sizeof eh.e_type + sizeof eh.e_machine))
        return;
    if (eh.e_ident[EI_CLASS] == ELFCLASS32 && (eh.e_machine == EM_386 || eh.e_machine == OUR_MACHINE)) {
        c->kind = STILE__COMMAND_32_BIT;
        return;
    }
    if (eh.e_machine != OUR_MACHINE || eh.e_ident[EI_CLASS] != ELFCLASS64) {
        c->kind = STILE__COMMAND_FOREIGN;
        return;
    }
    if (!read_at(fd, 0, &eh, sizeof eh) || eh.e_phentsize != sizeof *e.segments || eh.e_phnum == 0 ||
        eh.e_phnum > SEGMENTS_MAX || (eh.e_type != ET_EXEC && eh.e_type != ET_DYN))
        return;
    e.fd = fd;
    e.n = eh.e_phnum;
    if (!read_at(fd, eh.e_phoff, e.segments, e.n * sizeof *e.segments))
        return;
    look_at_segments(c, &e);
    if ((c->kind == STILE__COMMAND_PLAIN || c->kind == STILE__COMMAND_ASAN) && gains_rights(fd))
        c->kind = STILE__COMMAND_PRIVILEGED;
}

/* The interpreter that a script's first line names. False: it names none. */
static bool interpreter_of(const char *line, char *path, size_t size)
{
    const char *at = line + 2 + strspn(line + 2, " \t");
    size_t n = strcspn(at, " \t\n");
    if (n == 0 || n >= size)
        return false;
    memcpy(path, at, n);
    path[n] = '\0';
    return true;
}

/* Looks at c->file. Returns whether another file is to be looked at instead, which is in c->file then. */
static bool look_at_file(struct stile__command *c)
{
    char line[SCRIPT_LINE + 1], path[PATH_MAX];
    int fd = open(c->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    bool again = false;

    if (fd < 0) { /* a command that we may execute and not read is none of our business */
        if (c->script && errno == ENOENT)
            c->kind = STILE__COMMAND_INCOMPLETE;
        return false;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        text_at(fd, 0, line, sizeof line);
        if (memcmp(line, ELFMAG, SELFMAG) == 0) {
            look_at_elf(c, fd);
        } else if (memcmp(line, "#!", 2) == 0 && interpreter_of(line, path, sizeof path)) {
            memcpy(c->file, path, sizeof path);
            c->script = again = true;
        }
    }
    close(fd);
    return again;
}

/* The file that execvp tries first of those that it may execute. */
static bool file_find(struct stile__command *c, const char *command)
{
    const char *dirs = getenv("PATH");
    const bool direct = strchr(command, '/') != NULL;
    struct stat st;

    if (*command == '\0')
        return false;
    if (direct)
        return snprintf(c->file, sizeof c->file, "%s", command) < (int)sizeof c->file;
    for (dirs = dirs != NULL ? dirs : "/bin:/usr/bin"; dirs != NULL;) {
        const char *end = strchrnul(dirs, ':');
        const int n = snprintf(c->file, sizeof c->file, "%.*s%s%s", (int)(end - dirs), dirs,
                               end == dirs ? "" : "/", command);
        if (n < (int)sizeof c->file && stat(c->file, &st) == 0 && S_ISREG(st.st_mode) &&
            faccessat(AT_FDCWD, c->file, X_OK, AT_EACCESS) == 0)
            return true;
        dirs = *end == ':' ? end + 1 : NULL;
    }
    return false;
}

void stile__command_look(struct stile__command *c, const char *command)
{
    *c = (struct stile__command){.kind = STILE__COMMAND_PLAIN};
    if (!file_find(c, command)) {
        c->file[0] = '\0';
        return;
    }
    for (unsigned i = 0; i <= SCRIPTS_MAX && look_at_file(c); i++)
        ;
}

bool stile__command_check(struct stile__command *c, const char *command)
{
    static const char *const words[] = {
        [STILE__COMMAND_STATIC] =
            "statically linked and takes no preload: link it dynamically, then it can be profiled",
        [STILE__COMMAND_PRIVILEGED] =
            ("setuid, setgid or has capabilities, and such programs take no preload: "
             "run it as the user it becomes, or run a copy without those bits"),
        [STILE__COMMAND_32_BIT] =
            "a 32-bit program, and there is no libstile for those: build it for 64 bits",
        [STILE__COMMAND_FOREIGN] = "a program for another processor: build it for this one",
        [STILE__COMMAND_OTHER_LIBC] = "linked with musl, and libstile needs glibc: build it for glibc",
        [STILE__COMMAND_INCOMPLETE] = NULL,
    };
    stile__command_look(c, command);
    if (c->kind >= sizeof words / sizeof *words || words[c->kind] == NULL)
        return false;
    if (c->script)
        fprintf(stderr, "stile record: no profile of %s: %s, which runs it, is %s\n", command, c->file,
                words[c->kind]);
    else
        fprintf(stderr, "stile record: no profile of %s: it is %s\n", command, words[c->kind]);
    return true;
}

void stile__command_environment(const struct stile__command *c, const char *preload)
{
    static const char no_order[] = "verify_asan_link_order=0";
    const char *options = getenv("ASAN_OPTIONS");
    char *more;

    if (c->kind == STILE__COMMAND_32_BIT || c->kind == STILE__COMMAND_FOREIGN ||
        c->kind == STILE__COMMAND_OTHER_LIBC)
        return;
    setenv("LD_PRELOAD", preload, 1);
    /* libstile says so itself, but where the program has options of its own these count. */
    if (c->kind != STILE__COMMAND_ASAN)
        return;
    if (options == NULL || *options == '\0')
        setenv("ASAN_OPTIONS", no_order, 1);
    else if (asprintf(&more, "%s:%s", options, no_order) > 0)
        setenv("ASAN_OPTIONS", more, 1);
}

int stile__command_failed(const struct stile__command *c, const char *command, int error)
{
    if (error == ENOENT && c->kind == STILE__COMMAND_INCOMPLETE)
        fprintf(stderr, "stile record: cannot run %s: it needs %s, which is not there\n", command, c->file);
    else if (error == ENOENT && strchr(command, '/') == NULL)
        fprintf(stderr, "stile record: cannot run %s: no such command in PATH\n", command);
    else
        fprintf(stderr, "stile record: cannot run %s: %s\n", command, strerror(error));
    return error == ENOENT ? 127 : 126;
}
