/* Reads /proc/self/maps without allocation. Normal context: at start, at the end, never in the handler. */
#include "profiler/agent/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "profiler/region/raw_syscall.h"

#define STACKS_MAX     65536u
#define LINE_MAX_BYTES 4608u /* a path may have 4096 bytes */

typedef bool line_fn(void *arg, const char *line, size_t len);

/* Calls fn with each line, its newline included, until it returns false. */
static int each_line(line_fn *fn, void *arg)
{
    static char buf[LINE_MAX_BYTES]; /* not on the stack: exit may be called on a small one */
    static _Atomic int32_t user;     /* the pid whose thread reads; of a parent's in the child of a fork */
    size_t have = 0;
    int32_t pid = stile__raw_getpid();

    if (atomic_exchange_explicit(&user, pid, memory_order_acquire) == pid)
        return -EBUSY;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        atomic_store_explicit(&user, 0, memory_order_release);
        return -errno;
    }
    for (;;) {
        ssize_t n = read(fd, buf + have, sizeof buf - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
        char *line = buf, *end;
        while ((end = memchr(line, '\n', have - (size_t)(line - buf))) != NULL) {
            if (!fn(arg, line, (size_t)(end + 1 - line)))
                goto out;
            line = end + 1;
        }
        have -= (size_t)(line - buf);
        memmove(buf, line, have);
        if (have == sizeof buf)
            have = 0; /* longer than any line can be: skip it */
    }
out:
    close(fd);
    atomic_store_explicit(&user, 0, memory_order_release);
    return 0;
}

/* "start-end perms ...": returns the permissions, or NULL. */
static const char *parse_range(const char *line, uintptr_t *start, uintptr_t *end)
{
    uintptr_t values[2] = {0, 0};
    for (int i = 0; i < 2; i++, line++)
        for (; *line != '-' && *line != ' '; line++) {
            int digit = *line >= 'a' ? *line - 'a' + 10 : *line - '0';
            if (digit < 0 || digit > 15)
                return NULL;
            values[i] = values[i] << 4 | (uintptr_t)digit;
        }
    *start = values[0];
    *end = values[1];
    return line;
}

struct publisher {
    char *text;
    uint32_t len, populated;
    bool full;
};

static bool publish_bytes(struct publisher *p, const char *bytes, size_t n)
{
    if (p->len + n > STILE__MODULES_BYTES)
        return false;
    while (p->len + n > p->populated) {
        if (madvise(p->text + p->populated, STILE__PAGE, MADV_POPULATE_WRITE) != 0 && errno != EINVAL)
            return false;
        p->populated += STILE__PAGE;
    }
    memcpy(p->text + p->len, bytes, n);
    p->len += (uint32_t)n;
    return true;
}

static bool publish_line(void *arg, const char *line, size_t len)
{
    struct publisher *p = arg;
    uintptr_t start, end;
    const char *perms = parse_range(line, &start, &end);
    if (perms != NULL && perms[2] == 'x' && !publish_bytes(p, line, len))
        p->full = true;
    return !p->full;
}

void stile__maps_publish(struct stile__region *r)
{
    int saved_errno = errno;
    uint32_t len = atomic_load_explicit(&r->modules_len, memory_order_relaxed); /* own word */
    struct publisher p = {
        .text = stile__region_modules(r), .len = len, .populated = len & ~(STILE__PAGE - 1)};

    if (len <= STILE__MODULES_BYTES && publish_bytes(&p, "@\n", 2) && each_line(publish_line, &p) == 0 &&
        !p.full)
        atomic_store_explicit(&r->modules_len, p.len,
                              memory_order_release); /* pairs with the collector's load */
    errno = saved_errno;
}

struct stack_list {
    struct stile__bounds *bounds;
    uint32_t n, max;
};

static bool list_stack(void *arg, const char *line, size_t len)
{
    struct stack_list *l = arg;
    struct stile__bounds b;
    const char *perms = parse_range(line, &b.lo, &b.hi);
    (void)len;
    /* Private ones only: no stack is shared memory, and our own region is. */
    if (perms != NULL && memcmp(perms, "rw", 2) == 0 && perms[3] == 'p' && l->n < l->max)
        l->bounds[l->n++] = b;
    return l->n < l->max;
}

uint32_t stile__maps_stacks(struct stile__bounds **bounds, size_t *bytes)
{
    struct stack_list l = {.max = STACKS_MAX};
    *bytes = l.max * sizeof *l.bounds; /* pages are touched only as far as the list goes */
    l.bounds = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l.bounds == MAP_FAILED)
        return 0;
    if (each_line(list_stack, &l) != 0)
        l.n = 0;
    *bounds = l.bounds;
    return l.n;
}

void stile__maps_stacks_free(struct stile__session *s)
{
    if (s->stacks != NULL)
        munmap((void *)(uintptr_t)s->stacks, STACKS_MAX * sizeof *s->stacks);
    s->stacks = NULL;
    s->n_stacks = 0;
}
