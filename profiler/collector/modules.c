/* Which file was mapped where, and when. Collector, normal context. */
#include "profiler/collector/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "profiler/collector/learned.h"
#include "profiler/region/rules.h"

#define IDLE_MAX 32u

static struct module *modules; /* all files of all processes */

void mappings_init(struct mapping_table *t, pid_t pid)
{
    memset(t, 0, sizeof *t);
    t->pid = pid;
    t->view = &t->now;
}

static bool opens_as(int fd, dev_t dev, ino_t ino)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == ino &&
           (dev == 0 || st.st_dev == dev);
}

/* Opens the very file that is mapped: by its path, through the process's own root directory, or through the mapping
 * itself (privileged). Overlay file systems show another device in maps than in stat, so the inode number decides in
 * a second round. */
static int module_open(const struct mapping_table *t, const struct mapping *m)
{
    char path[4200];
    for (int round = 0; round < 2; round++)
        for (int way = 0; way < 3; way++) {
            if (way == 0)
                snprintf(path, sizeof path, "%s", m->path);
            else if (way == 1)
                snprintf(path, sizeof path, "/proc/%d/root%s", (int)t->pid, m->path);
            else
                snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", (int)t->pid,
                         (unsigned long long)m->start, (unsigned long long)m->end);
            int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
            if (opens_as(fd, round == 0 ? m->dev : 0, m->ino))
                return fd;
            if (fd >= 0)
                close(fd);
        }
    return -1;
}

static size_t vdso_size(uintptr_t start)
{
    char line[512];
    unsigned long long lo, hi;
    size_t size = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%llx-%llx", &lo, &hi) == 2 && lo == start)
            size = hi - lo;
    if (f != NULL)
        fclose(f);
    return size;
}

static struct module *module_new(const struct mapping *m)
{
    struct module *mod = calloc(1, sizeof *mod);
    if (mod == NULL)
        return NULL;
    mod->path = strdup(m->path);
    if (mod->path == NULL) {
        free(mod);
        return NULL;
    }
    mod->dev = m->dev;
    mod->ino = m->ino;
    mod->next = modules;
    modules = mod;
    return mod;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* The time of writing can be set to what it was, the time of change cannot; but that is another's after a removal, too. */
static bool unchanged(const struct module *mod)
{
    struct stat st;
    return mod->elf.fd < 0 ||
           (fstat(mod->elf.fd, &st) == 0 && st.st_size == mod->size && same_time(st.st_mtim, mod->written) &&
            (st.st_nlink == 0 || same_time(st.st_ctim, mod->changed)));
}

/* Closes files that nobody maps, but for the latest: programs of a tree share libraries, one after the other. */
static void modules_trim(void)
{
    unsigned idle = 0;
    for (struct module **at = &modules; *at != NULL;) {
        struct module *mod = *at;
        if (mod->users != 0 || ++idle <= IDLE_MAX) {
            at = &mod->next;
            continue;
        }
        *at = mod->next;
        learned_free(mod->learned);
        elf_file_close(&mod->elf);
        free(mod->path);
        free(mod);
    }
}

void mappings_free(struct mapping_table *t)
{
    for (uint32_t i = 0; i < t->n_all; i++) {
        if (t->all[i].module != NULL)
            t->all[i].module->users--;
        free(t->all[i].path);
    }
    modules_trim();
    free(t->all);
    free(t->now.live);
    for (uint32_t i = 0; i < MAPPING_STATES; i++)
        free(t->past[i].live);
    memset(t, 0, sizeof *t);
}

/* Finds or opens the file of a mapping. All processes have the same vdso as the collector: the kernel's. */
static struct module *module_get(const struct mapping_table *t, const struct mapping *m)
{
    bool vdso = strcmp(m->path, "[vdso]") == 0;
    if (!vdso && (m->path[0] != '/' || m->ino == 0))
        return NULL;
    for (struct module *mod = modules; mod != NULL; mod = mod->next)
        if (mod->ino == m->ino && mod->dev == m->dev && strcmp(mod->path, m->path) == 0 && unchanged(mod))
            return mod;
    int fd = -1;
    if (!vdso && (fd = module_open(t, m)) < 0)
        return NULL;
    struct module *mod = module_new(m);
    if (mod == NULL) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        mod->written = st.st_mtim;
        mod->changed = st.st_ctim;
        mod->size = st.st_size;
    }
    uintptr_t image = vdso ? getauxval(AT_SYSINFO_EHDR) : 0;
    elf_file_open(&mod->elf, fd, (const void *)image, vdso ? vdso_size(image) : 0);
    return mod;
}

/* start-end perms offset dev ino path */
static bool line_parse(const char *line, size_t len, struct mapping *m, const char **path, size_t *path_len)
{
    unsigned long long start, end, offset, ino;
    unsigned dev_major, dev_minor;
    char perms[5], copy[256];
    int at = 0;

    /* Most lines are of data: not worth the parsing. */
    const char *space = memchr(line, ' ', len);
    if (space == NULL || (size_t)(space - line) + 4 > len || space[3] != 'x')
        return false;
    snprintf(copy, sizeof copy, "%.*s", (int)(len < sizeof copy ? len : sizeof copy - 1), line);
    if (sscanf(copy, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, perms, &offset, &dev_major, &dev_minor,
               &ino, &at) < 7 ||
        perms[2] != 'x' || start >= end)
        return false;
    *m = (struct mapping){.start = start,
                          .end = end,
                          .offset = offset,
                          .dev = makedev(dev_major, dev_minor),
                          .ino = (ino_t)ino};
    *path = line + at;
    *path_len = (size_t)at < len ? len - (size_t)at : 0;
    static const char deleted[] = " (deleted)";
    size_t d = sizeof deleted - 1;
    if (*path_len > d && memcmp(*path + *path_len - d, deleted, d) == 0)
        *path_len -= d;
    return true;
}

static uint32_t find_same(const struct mapping_table *t, const struct mapping *m)
{
    for (uint32_t lo = 0, hi = t->now.n_live; lo < hi;) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct mapping *have = &t->all[t->now.live[mid]];
        if (have->start == m->start)
            return have->end == m->end && have->offset == m->offset && have->ino == m->ino &&
                           have->dev == m->dev
                       ? t->now.live[mid]
                       : MAPPING_NONE;
        if (have->start < m->start)
            lo = mid + 1;
        else
            hi = mid;
    }
    return MAPPING_NONE;
}

static uint32_t mapping_add(struct mapping_table *t, struct mapping *m, const char *path, size_t path_len)
{
    if (t->n_all == t->cap_all) {
        uint32_t cap = t->cap_all != 0 ? t->cap_all * 2 : 64;
        struct mapping *all = realloc(t->all, cap * sizeof *all);
        if (all == NULL)
            return MAPPING_NONE;
        t->all = all;
        t->cap_all = cap;
    }
    m->path = strndup(path, path_len);
    if (m->path == NULL)
        return MAPPING_NONE;
    m->module = module_get(t, m);
    if (m->module != NULL)
        m->module->users++;
    uint64_t vaddr;
    if (m->module != NULL && elf_file_vaddr(&m->module->elf, m->offset, &vaddr)) {
        m->bias = m->start - vaddr;
        m->image_start = m->bias;
        m->image_end = m->bias + elf_file_limit(&m->module->elf);
    } else {
        m->bias = m->start - m->offset;
        m->image_start = m->start;
        m->image_end = m->end;
    }
    t->all[t->n_all] = *m;
    return t->n_all++;
}

int mappings_update(struct mapping_table *t, const char *text, size_t len, uint32_t unloads)
{
    uint32_t *live = NULL, n = 0, cap = 0, kept = 0;
    const char *end = text + len;

    for (const char *line = text, *next; line < end; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        next = newline != NULL ? newline + 1 : end;
        struct mapping m;
        const char *path;
        size_t path_len;
        if (!line_parse(line, (size_t)((newline != NULL ? newline : end) - line), &m, &path, &path_len))
            continue;
        if (n == cap) {
            cap = cap != 0 ? cap * 2 : 64;
            uint32_t *grown = realloc(live, cap * sizeof *live);
            if (grown == NULL) {
                free(live);
                return -ENOMEM;
            }
            live = grown;
        }
        uint32_t i = find_same(t, &m);
        kept += i != MAPPING_NONE;
        if (i == MAPPING_NONE)
            i = mapping_add(t, &m, path, path_len);
        if (i != MAPPING_NONE)
            live[n++] = i;
    }
    if (n == 0) { /* the process image is gone: what was known stays */
        free(live);
        return 0;
    }
    struct mapping_state *now = &t->now, *last = &t->past[t->n_past % MAPPING_STATES];
    uint32_t generation = now->generation + (kept < now->n_live);
    if (unloads != now->unloads) { /* remembered for what was sampled then */
        free(last->live);
        *last = *now;
        t->n_past++;
    } else {
        free(now->live);
    }
    *now = (struct mapping_state){live, n, generation, unloads};
    t->view = now;
    return 0;
}

bool mappings_view(struct mapping_table *t, uint32_t unloads)
{
    t->view = &t->now;
    for (uint32_t k = 1;
         stile__unloads_beyond(t->view->unloads, unloads) && k <= t->n_past && k <= MAPPING_STATES; k++)
        t->view = &t->past[(t->n_past - k) % MAPPING_STATES];
    return t->view->unloads == unloads;
}

uint32_t mappings_find(const struct mapping_table *t, uint64_t address)
{
    uint32_t lo = 0, hi = t->view->n_live;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct mapping *m = &t->all[t->view->live[mid]];
        if (address < m->start)
            hi = mid;
        else if (address >= m->end)
            lo = mid + 1;
        else
            return t->view->live[mid];
    }
    return MAPPING_NONE;
}

uint32_t mappings_find_ever(const struct mapping_table *t, uint64_t address)
{
    uint32_t found = mappings_find(t, address);
    if (found == MAPPING_NONE && t->refresh != NULL && t->view == &t->now) {
        t->refresh(t->refresh_arg);
        found = mappings_find(t, address);
    }
    if (found != MAPPING_NONE)
        return found;
    /* What was loaded after the look at the maps that a past view is, and was gone before the next, was never seen: what
     * else was once at its address is taken for it only if nothing else ever was. */
    for (uint32_t i = t->n_all; i-- > 0;) {
        const struct mapping *m = &t->all[i];
        if (m->start > address || address >= m->end)
            continue;
        if (found == MAPPING_NONE)
            found = i;
        else if (m->ino != t->all[found].ino || m->dev != t->all[found].dev || m->bias != t->all[found].bias)
            return MAPPING_NONE;
        if (t->view == &t->now)
            break;
    }
    return found;
}

static bool image_read_word(const struct mapping *m, uint64_t address, uint64_t *word)
{
    return m->module != NULL && m->image_start <= address && address < m->image_end &&
           elf_file_read_word(&m->module->elf, address - m->bias, word);
}

bool mappings_read_word(const struct mapping_table *t, uint32_t first, uint64_t address, uint64_t *word)
{
    if (first < t->n_all && image_read_word(&t->all[first], address, word))
        return true;
    for (uint32_t i = 0; i < t->view->n_live; i++)
        if (image_read_word(&t->all[t->view->live[i]], address, word))
            return true;
    return false;
}
