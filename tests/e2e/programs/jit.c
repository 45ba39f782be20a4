/* Compiles two functions at run time and names them as a runtime does that perf is to read: `jit [kill]`. jit_outer calls
 * jit_inner a thousand times, which counts down; both keep frame pointers and have no unwind tables. main calls them for
 * a second of CPU time, says how long that was, and returns or kills itself. The map stays. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "work.h"

static const uint8_t inner[] = {
    0x55,                   /* push %rbp */
    0x48, 0x89, 0xe5,       /* mov %rsp, %rbp */
    0x48, 0x0f, 0xaf, 0xc0, /* imul %rax, %rax: slow, so samples fall on each of these */
    0x48, 0x0f, 0xaf, 0xc0, /* imul %rax, %rax */
    0x48, 0x0f, 0xaf, 0xc0, /* imul %rax, %rax */
    0x48, 0xff, 0xcf,       /* dec %rdi */
    0x75, 0xef,             /* jnz to the first imul */
    0x5d,                   /* pop %rbp */
    0xc3,                   /* ret */
};

static const uint8_t outer[] = {
    0x55,                         /* push %rbp */
    0x48, 0x89, 0xe5,             /* mov %rsp, %rbp */
    0x53,                         /* push %rbx */
    0x41, 0x54,                   /* push %r12 */
    0x49, 0x89, 0xfc,             /* mov %rdi, %r12: for inner */
    0xbb, 0xe8, 0x03, 0x00, 0x00, /* mov $1000, %ebx */
    0x4c, 0x89, 0xe7,             /* mov %r12, %rdi */
    0xe8, 0xe9, 0x00, 0x00, 0x00, /* call inner: at 0x100, and this ends at 0x17 */
    0xff, 0xcb,                   /* dec %ebx */
    0x75, 0xf4,                   /* jnz to the mov */
    0x41, 0x5c,                   /* pop %r12 */
    0x5b,                         /* pop %rbx */
    0x5d,                         /* pop %rbp */
    0xc3,                         /* ret */
};

#define INNER_AT 0x100

static int names_write(const char *code)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return -1;
    /* The page was used before, by code that is gone. */
    fprintf(f, "%lx %x jit_earlier\n", (long)code, 4096);
    fprintf(f, "%lx %zx jit_outer\n", (long)code, sizeof outer);
    fprintf(f, "%lx %zx jit_inner of a jit\n", (long)code + INNER_AT, sizeof inner);
    return fclose(f);
}

int main(int argc, char **argv)
{
    char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void (*call)(uint64_t rounds);

    if (code == MAP_FAILED)
        return 1;
    memcpy(code, outer, sizeof outer);
    memcpy(code + INNER_AT, inner, sizeof inner);
    if (mprotect(code, 4096, PROT_READ | PROT_EXEC) != 0 || names_write(code) != 0)
        return 1;
    *(void **)&call = code;
    uint64_t begin = thread_cpu_ns(), used;
    do {
        call(20000); /* so many rounds that what is around them is nothing */
        used = thread_cpu_ns() - begin;
    } while (used < 1000 * MS);
    printf("%lu\n", (unsigned long)used);
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "kill") == 0)
        raise(SIGKILL);
    return 0;
}
