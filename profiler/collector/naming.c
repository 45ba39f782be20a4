/* Names a report for somebody who waits for it. Collector, normal context, and a fork of it. */
#include "profiler/collector/naming.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/collector/perf_map.h"
#include "proto/report_names.h"

#define SECONDS_MAX 20u                /* of a fork */
#define MEMORY_MAX  ((rlim_t)2 << 30)  /* beyond what the collector has */
#define FILE_MAX    ((size_t)64 << 20) /* bytes of names */
#define CUT         "... there is no room for more names ...\n"

/* Where the names go, in the fork. */
struct sink {
    const struct process *p;
    int fd; /* -1: into the region */
    size_t n, populated, room;
    bool cut; /* there was more */
    struct perf_map perf_map;
    bool perf_map_tried;
};

/* A file that the process has mapped is open already: it may be gone, and its root with it. Then by the process's own root,
 * and by the path itself. */
static int module_open(void *arg, const char *path, unsigned way)
{
    const struct sink *s = arg;
    const struct mapping_table *t = &s->p->mappings;
    char in_root[PATH_MAX + 64];
    struct stat st;

    if (way == 0) {
        for (uint32_t i = t->n_all; i-- > 0;)
            if (t->all[i].module != NULL && t->all[i].module->elf.fd >= 0 &&
                strcmp(t->all[i].path, path) == 0)
                return fcntl(t->all[i].module->elf.fd, F_DUPFD_CLOEXEC, 0);
        return -1;
    }
    if (path[0] != '/')
        return -1;
    if (snprintf(in_root, sizeof in_root, "/proc/%d/root%s", (int)s->p->pid, path) >= (int)sizeof in_root)
        return -1;
    int fd = open(way == 1 ? in_root : path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static const char *run_time_name(void *arg, uint64_t pc)
{
    struct sink *s = arg;
    if (!s->perf_map_tried) {
        const struct perf_map_owner owner = perf_map_owner(s->p);
        perf_map_read(&s->perf_map, &owner);
        s->perf_map_tried = true;
    }
    return perf_map_find(&s->perf_map, pc);
}

static bool all_written(int fd, const char *bytes, size_t n)
{
    while (n != 0) {
        ssize_t wrote = write(fd, bytes, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        bytes += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* A page of a memfd that cannot be had is a SIGBUS: asked for beforehand. */
static bool answer_write(struct sink *s, const char *bytes, size_t n)
{
    char *at = stile__region_answer(s->p->region, s->p->size);
    if (s->n + n > s->populated) {
        size_t want = (s->n + n + (64u << 10)) & ~((size_t)STILE__PAGE - 1);
        if (want > s->p->size.report)
            want = s->p->size.report;
        if (madvise(at + s->populated, want - s->populated, MADV_POPULATE_WRITE) != 0)
            return false;
        s->populated = want;
    }
    memcpy(at + s->n, bytes, n);
    return true;
}

static bool sink_write(struct sink *s, const char *bytes, size_t n)
{
    if (!(s->fd >= 0 ? all_written(s->fd, bytes, n) : answer_write(s, bytes, n)))
        return false;
    s->n += n;
    if (s->fd < 0 && bytes[n - 1] == '\n') /* release pairs with the program's acquire */
        atomic_store_explicit(&s->p->region->answer_len, (uint32_t)s->n, memory_order_release);
    return true;
}

static bool names_write(void *arg, const char *bytes, size_t n)
{
    struct sink *s = arg;
    if (s->n + n > s->room)
        s->cut = true;
    return !s->cut && sink_write(s, bytes, n);
}

/* What a broken debug file can take. */
static void bounds_set(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL && fscanf(f, "%*s %*s %*s %*s %*s %llu", &pages) == 1) {
        rlim_t most = (rlim_t)pages * STILE__PAGE + MEMORY_MAX;
        setrlimit(RLIMIT_DATA, &(struct rlimit){most, most});
    }
    if (f != NULL)
        fclose(f);
    signal(SIGALRM, SIG_DFL);
    alarm(SECONDS_MAX);
}

static void fork_main(const struct process *p, const struct naming *what, int fd)
{
    struct sink s = {.p = p, .fd = fd, .room = fd >= 0 ? FILE_MAX : p->size.report};
    const struct stile__report_way way = {
        .open = module_open, .ways = 3, .name = run_time_name, .write = names_write, .arg = &s};

    bounds_set();
    s.room -= s.room < sizeof CUT + strlen(what->last) + 1 ? s.room : sizeof CUT + strlen(what->last) + 1;
    if (what->n_before != 0 && !sink_write(&s, what->before, what->n_before))
        _exit(1);
    struct stile__report_names *names = stile__report_names_new(&way, NULL);
    if (names == NULL || stile__report_stacks(names, what->text, what->n, what->first, "") == -ENOMEM)
        _exit(1);
    if (s.cut && s.room != 0)
        sink_write(&s, "\n" CUT, sizeof CUT);
    if (s.room != 0)
        sink_write(&s, what->last, strlen(what->last));
    _exit(0);
}

pid_t naming_to(const struct process *p, const struct naming *what, int fd)
{
    pid_t pid = fork();
    if (pid == 0)
        fork_main(p, what, fd);
    return pid;
}

static void answer_end(struct process *p)
{
    atomic_fetch_or_explicit(&p->region->answer, STILE__ANSWER_DONE, memory_order_release);
    p->answering = 0;
}

static void answer_begin(struct process *p, uint32_t answer)
{
    naming_break(p);
    atomic_store_explicit(&p->region->answer_len, 0, memory_order_release);
    atomic_store_explicit(&p->region->answer, answer, memory_order_release);
}

void naming_refuse(struct process *p, uint32_t answer)
{
    answer_begin(p, answer);
    answer_end(p);
}

void naming_answer(struct process *p, const struct naming *what, uint32_t answer)
{
    answer_begin(p, answer);
    p->answering = naming_to(p, what, -1);
    if (p->answering < 0)
        answer_end(p);
}

bool naming_answering(struct process *p)
{
    if (p->answering > 0 && waitpid(p->answering, NULL, WNOHANG) != 0)
        answer_end(p);
    return p->answering > 0;
}

void naming_break(struct process *p)
{
    if (p->answering <= 0)
        return;
    kill(p->answering, SIGKILL);
    waitpid(p->answering, NULL, 0);
    p->answering = 0;
}
