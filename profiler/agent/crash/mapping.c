/* The mapping that an address lies in, by /proc/self/maps. Runs in the handlers of crashes. */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>

#include "profiler/agent/crash/parts.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define PIECE_BYTES 1024u       /* read at once */
#define PATH_SHOWN  255u        /* bytes of a path */
#define BELOW_STACK (64u << 10) /* bytes below a stack where its overflow faults */

struct line {
    uint64_t start, end;
    char access[5]; /* rwxp */
    char path[PATH_SHOWN + 1];
};

/* Reads the file byte by byte, in pieces: lines may have any length. */
struct maps {
    long fd;
    size_t at, n;
    char piece[PIECE_BYTES];
};

/* The next byte; negative at the end. */
static int next(struct maps *m)
{
    if (m->at == m->n) {
        long n;
        do
            n = stile__raw_syscall(SYS_read, m->fd, (long)m->piece, sizeof m->piece, 0);
        while (n == -EINTR);
        if (n <= 0)
            return -1;
        m->n = (size_t)n;
        m->at = 0;
    }
    return (unsigned char)m->piece[m->at++];
}

/* A number and what ends it. */
static int number(struct maps *m, uint64_t *value)
{
    int c;
    *value = 0;
    while ((c = next(m)) >= 0 && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
        *value = *value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    return c;
}

static int skip_word(struct maps *m)
{
    int c;
    do
        c = next(m);
    while (c >= 0 && c != ' ' && c != '\n');
    return c;
}

/* START-END rwxp OFFSET DEVICE INODE PATH. False at the end, or where it is something else. */
static bool line_read(struct maps *m, struct line *l)
{
    size_t n = 0;
    int c;
    if (number(m, &l->start) != '-' || number(m, &l->end) != ' ')
        return false;
    while ((c = next(m)) >= 0 && c != ' ' && c != '\n')
        if (n < sizeof l->access - 1)
            l->access[n++] = (char)c;
    l->access[n] = '\0';
    for (unsigned word = 0; word < 3 && c == ' '; word++)
        c = skip_word(m);
    while (c == ' ')
        c = next(m);
    for (n = 0; c >= 0 && c != '\n'; c = next(m))
        if (n < PATH_SHOWN)
            l->path[n++] = (char)c;
    l->path[n] = '\0';
    return c == '\n';
}

/* What is around the address. */
struct around {
    struct line line; /* that has it, if there is one; otherwise the last one that was read */
    uint64_t below;   /* where the mapping before ends; 0: there is none */
    uint64_t above;   /* where the next one begins that is more than a guard; 0: there is none */
    bool has, above_is_stack;
};

static bool grows_to(const struct line *l)
{
    return l->access[0] == 'r' && l->access[1] == 'w';
}

static bool is_guard(const struct line *l)
{
    return l->access[0] == '-' && l->access[1] == '-' && l->access[2] == '-';
}

static void around_find(struct maps *m, uint64_t address, struct around *a)
{
    struct line l;
    a->below = a->above = 0;
    a->has = a->above_is_stack = false;
    while (line_read(m, &l)) {
        if (l.end <= address) {
            a->below = l.end;
        } else if (l.start <= address) {
            a->line = l;
            a->has = true;
            if (!is_guard(&l))
                return;
        } else {
            a->above = l.start;
            a->above_is_stack = grows_to(&l);
            return;
        }
    }
}

static void mapping_put(struct stile__text *t, const struct line *l)
{
    stile__text_hex(t, l->start, 1);
    stile__text(t, "-");
    stile__text_hex(t, l->end, 1);
    stile__text(t, " ");
    stile__text(t, l->access);
    if (l->path[0] != '\0') {
        stile__text(t, " ");
        stile__text_foreign(t, l->path, PATH_SHOWN);
    }
}

static void gap_put(struct stile__text *t, const struct around *a)
{
    stile__text(t, "none");
    if (a->below != 0) {
        stile__text(t, "; the nearest below ends at ");
        stile__text_hex(t, a->below, 1);
    }
    if (a->above != 0) {
        stile__text(t, a->below != 0 ? ", the nearest above begins at " : "; the nearest above begins at ");
        stile__text_hex(t, a->above, 1);
    }
}

static bool near(uint64_t a, uint64_t b)
{
    return (a > b ? a - b : b - a) <= BELOW_STACK;
}

void stile__report_mapping(struct stile__text *t, uint64_t address, uint64_t rsp)
{
    struct maps m = {.at = 0, .n = 0};
    struct around a;
    stile__text(t, "mapping: ");
    m.fd = stile__raw_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (m.fd < 0) {
        stile__text(t, "not known\n");
        return;
    }
    around_find(&m, address, &a);
    stile__raw_syscall(SYS_close, m.fd, 0, 0, 0);
    if (a.has)
        mapping_put(t, &a.line);
    else
        gap_put(t, &a);
    if ((!a.has || is_guard(&a.line)) && a.above_is_stack && a.above - address <= BELOW_STACK &&
        near(address, rsp))
        stile__text(t, "; perhaps a stack overflow");
    stile__text(t, "\n");
}
