/* Reads /tmp/perf-PID.map. Runs in the writer process, normal context. */
#include "profiler/collector/perf_map.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/collector/process.h"

/* Node writes 50 bytes a function; a program that has compiled for weeks would have us read for longer than its user
 * waits. */
#define FILE_BYTES_MAX (256u << 20)
#define LINES_MAX      (4u << 20)
#define OLDER_NS       1000000000ull /* a file's time comes from a coarser clock than the program's */

/* --- Lines */

static void blanks_skip(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '\t'))
        ++*at;
}

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A number and the blank after it. */
static bool number_read(const char **at, const char *end, uint64_t *value)
{
    blanks_skip(at, end);
    if (end - *at > 2 && (*at)[0] == '0' && ((*at)[1] | 0x20) == 'x')
        *at += 2;
    const char *first = *at;
    for (*value = 0; *at < end && digit(**at) >= 0; ++*at) {
        if (*value >> 60 != 0)
            return false;
        *value = *value << 4 | (uint64_t)digit(**at);
    }
    return *at != first && *at < end && (**at == ' ' || **at == '\t');
}

/* Ends the name within its line. It will be shown on terminals: no control character is left, of ASCII or of Latin 1. */
static bool name_end(char *name, char *end)
{
    while (end > name && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    if (end - name > (ptrdiff_t)PERF_MAP_NAME_MAX)
        for (end = name + PERF_MAP_NAME_MAX;
             end > name && (*end & 0xc0) == 0x80;) /* not within a character */
            end--;
    for (char *c = name; c < end; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
        else if (end - c > 1 && (unsigned char)c[0] == 0xc2 && (unsigned char)c[1] < 0xa0)
            c[0] = c[1] = '?';
    }
    *end = '\0'; /* in place of the newline at the latest */
    return end != name;
}

static bool line_parse(char *text, char *line, char *newline, struct perf_map_range *r)
{
    const char *at = line;
    uint64_t size;
    if (!number_read(&at, newline, &r->start) || !number_read(&at, newline, &size) || size == 0 ||
        size > UINT64_MAX - r->start)
        return false;
    blanks_skip(&at, newline);
    r->end = r->start + size;
    r->name = (uint32_t)(at - text);
    return name_end(text + r->name, newline);
}

static uint32_t lines_count(const char *text, size_t size)
{
    uint32_t n = 0;
    const char *end = text + size;
    while ((text = memchr(text, '\n', (size_t)(end - text))) != NULL) {
        text++;
        n++;
    }
    return n;
}

/* --- Ranges */

static int by_start(const void *a, const void *b)
{
    const struct perf_map_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* The lines that begin at or before the place that has been reached, the latest on top. Lines that have ended may still
 * be in it, below the top. */
struct heap {
    const struct perf_map_range *lines;
    uint32_t *at; /* indices of lines */
    uint32_t n;
};

static bool later(const struct heap *h, uint32_t i, uint32_t j)
{
    return h->lines[h->at[i]].name > h->lines[h->at[j]].name;
}

static void swap(struct heap *h, uint32_t i, uint32_t j)
{
    uint32_t k = h->at[i];
    h->at[i] = h->at[j];
    h->at[j] = k;
}

static void heap_push(struct heap *h, uint32_t line)
{
    uint32_t i = h->n++;
    h->at[i] = line;
    for (; i > 0 && later(h, i, (i - 1) / 2); i = (i - 1) / 2)
        swap(h, i, (i - 1) / 2);
}

static void heap_pop(struct heap *h)
{
    h->at[0] = h->at[--h->n];
    for (uint32_t i = 0, child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && later(h, child + 1, child))
            child++;
        if (!later(h, child, i))
            break;
        swap(h, i, child);
    }
}

static void range_add(struct perf_map *m, uint64_t start, uint64_t end, uint32_t name)
{
    struct perf_map_range *last = m->n_ranges != 0 ? &m->ranges[m->n_ranges - 1] : NULL;
    if (last != NULL && last->end == start && last->name == name)
        last->end = end;
    else
        m->ranges[m->n_ranges++] = (struct perf_map_range){start, end, name};
}

/* Cuts n lines, ascending by start, into ranges of which each has the latest line's name. Every turn puts a line into the
 * heap or takes one out, and adds a range at most: so there are 2 n of them at most. */
static void lines_flatten(struct perf_map *m, const struct perf_map_range *lines, uint32_t n, uint32_t *heap)
{
    struct heap h = {.lines = lines, .at = heap};
    uint64_t at = 0;
    for (uint32_t i = 0; i < n || h.n != 0;) {
        if (h.n == 0)
            at = lines[i].start;
        while (i < n && lines[i].start == at)
            heap_push(&h, i++);
        while (h.n != 0 && lines[heap[0]].end <= at)
            heap_pop(&h);
        if (h.n == 0)
            continue;
        const struct perf_map_range *top = &lines[heap[0]];
        uint64_t until = i < n && lines[i].start < top->end ? lines[i].start : top->end;
        range_add(m, at, until, top->name);
        at = until;
    }
}

/* Fills m->ranges from m->lines lines. Returns NULL or why not. */
static const char *ranges_make(struct perf_map *m, size_t size)
{
    struct perf_map_range *lines = malloc((m->lines + 1ull) * sizeof *lines);
    uint32_t *heap = malloc((m->lines + 1ull) * sizeof *heap), n = 0;
    const char *why = "no memory";
    char *line = m->text;

    m->ranges = calloc(2ull * m->lines + 1, sizeof *m->ranges); /* most of it is never touched */
    if (lines == NULL || heap == NULL || m->ranges == NULL)
        goto out;
    for (uint32_t i = 0; i < m->lines; i++) {
        char *newline = memchr(line, '\n', size - (size_t)(line - m->text));
        n += line_parse(m->text, line, newline, &lines[n]);
        line = newline + 1;
    }
    m->skipped = m->lines - n;
    qsort(lines, n, sizeof *lines, by_start);
    lines_flatten(m, lines, n, heap);
    why = NULL;
out:
    free(heap);
    free(lines);
    return why;
}

const char *perf_map_parse(struct perf_map *m, char *text, size_t size)
{
    *m = (struct perf_map){.text = text, .lines = lines_count(text, size)};
    const char *why = m->lines <= LINES_MAX ? ranges_make(m, size) : "it has more than 4 million lines";
    if (why != NULL)
        perf_map_free(m);
    return why;
}

const char *perf_map_find(const struct perf_map *m, uint64_t address)
{
    for (uint32_t lo = 0, hi = m->n_ranges; lo < hi;) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct perf_map_range *r = &m->ranges[mid];
        if (address < r->start)
            hi = mid;
        else if (address >= r->end)
            lo = mid + 1;
        else
            return m->text + r->name;
    }
    return NULL;
}

void perf_map_free(struct perf_map *m)
{
    free(m->text);
    free(m->ranges);
    *m = (struct perf_map){0};
}

/* --- The file */

struct perf_map_owner perf_map_owner(const struct process *p)
{
    return (struct perf_map_owner){p->pid, p->own_pid, p->pidfd, p->uid, p->from_birth, p->session_unix_ns};
}

static bool alive(const struct perf_map_owner *p)
{
    struct pollfd f = {.fd = p->pidfd, .events = POLLIN};
    return p->pidfd >= 0 && poll(&f, 1, 0) == 0;
}

/* The descriptor or -errno. Non-blocking: a pipe may stand there. */
static int file_open(const struct perf_map_owner *p)
{
    static const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/root/tmp/perf-%d.map", (int)p->pid, (int)p->own_pid);
    int fd = open(path, flags), err = -errno;
    /* Asked afterwards: as long as it lives, the pid was not somebody else's. */
    if (alive(p)) {
        if (fd >= 0)
            return fd;
        if (err != -EACCES && err != -EPERM) /* it may not let us see its root, which mostly is ours */
            return err;
    } else if (fd >= 0) {
        close(fd);
    }
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)p->own_pid);
    fd = open(path, flags);
    return fd >= 0 ? fd : -errno;
}

/* Whether it is this process's own. Everybody may write to /tmp, and pids come again. The region tells the user: the
 * program made both, and the region's owner is known when the program is gone, whatever user the collector is. */
static const char *file_check(const struct perf_map_owner *p, const struct stat *st)
{
    uint64_t written = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
    if (!S_ISREG(st->st_mode))
        return "it is not a regular file";
    if (st->st_uid != p->uid && st->st_uid != 0)
        return "it belongs to another user";
    /* Without from_birth the program is older. */
    if (p->from_birth && written + OLDER_NS < p->session_unix_ns)
        return "it is older than the program";
    if (st->st_size > (off_t)FILE_BYTES_MAX)
        return "it is larger than 256 MiB";
    return NULL;
}

const char *perf_map_read(struct perf_map *m, const struct perf_map_owner *p)
{
    struct stat st;
    char *text = NULL;
    const char *why;
    size_t have = 0;
    ssize_t n = 0;

    *m = (struct perf_map){0};
    int fd = file_open(p);
    if (fd < 0)
        return fd == -ENOENT ? NULL : fd == -ELOOP ? "it is a symbolic link" : "it cannot be opened";
    why = fstat(fd, &st) != 0 ? "it cannot be read" : file_check(p, &st);
    if (why != NULL)
        goto out;
    text = malloc((size_t)st.st_size + 1);
    why = "no memory";
    if (text == NULL)
        goto out;
    /* What is added meanwhile is too new for the samples that are written. */
    while (have < (size_t)st.st_size && (n = read(fd, text + have, (size_t)st.st_size - have)) > 0)
        have += (size_t)n;
    why = "it cannot be read";
    if (n < 0)
        goto out;
    why = perf_map_parse(m, text, have);
    text = NULL;
out:
    free(text);
    close(fd);
    return why;
}
