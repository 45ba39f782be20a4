/* File names for a tree of processes. Collector, normal context. */
#include "profiler/collector/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/collector/tree.h"

/* Paths that some process owns, for as long as the collector lives. */
static struct owned {
    struct owned *next;
    pid_t pid;
    bool numbered; /* its files have numbers, so no other process's may look like one of them */
    char path[];
} * all_owned;

/* The first process of the tree that wants such a file: a path that its descendants inherited is relative to its directory,
 * not to theirs. */
static struct {
    char template[PATH_MAX];
    char cwd[PATH_MAX];
} first[FILES];

bool hello_parse(const struct stile__hello *hello, size_t size, struct hello_text *out)
{
    size_t at = 0;
    if (size < offsetof(struct stile__hello, text) || hello->version != STILE__REGION_VERSION ||
        hello->text_len > sizeof hello->text || hello->text_len != size - offsetof(struct stile__hello, text))
        return false;
    for (int i = 0; i < STILE__HELLO_TEXTS; i++) {
        const char *end = at < hello->text_len ? memchr(hello->text + at, '\0', hello->text_len - at) : NULL;
        if (end == NULL)
            return false;
        out->text[i] = hello->text + at;
        at = (size_t)(end - hello->text) + 1;
    }
    return true;
}

void names_insert(const char *path, const char *middle, char *out, size_t size)
{
    size_t n = strlen(path);
    size_t ending = n > 6 && strcmp(path + n - 6, ".pb.gz") == 0 ? 6 : n > 3 ? 3 : 0;
    snprintf(out, size, "%.*s.%s%s", (int)(n - ending), path, middle, path + n - ending);
}

static struct owned *owner_find(const char *path)
{
    for (struct owned *o = all_owned; o != NULL; o = o->next)
        if (strcmp(o->path, path) == 0)
            return o;
    return NULL;
}

static struct owned *owner_add(const char *path, pid_t pid)
{
    struct owned *o = calloc(1, sizeof *o + strlen(path) + 1);
    if (o == NULL)
        return NULL;
    o->pid = pid;
    strcpy(o->path, path);
    o->next = all_owned;
    all_owned = o;
    return o;
}

void names_release(pid_t pid)
{
    for (struct owned *o = all_owned; o != NULL; o = o->next)
        if (o->pid == pid)
            o->pid = 0;
}

void names_next(struct process *p)
{
    char middle[32];
    snprintf(middle, sizeof middle, "%u", ++p->number);
    for (int i = 0; i < FILES; i++)
        if (p->files[i].base[0] != '\0')
            names_insert(p->files[i].base, middle, p->files[i].path, sizeof p->files[i].path);
}

/* Whether a file of an image that has ended, or is about to, is there or will be. */
static bool image_leaves_file(const struct process *p)
{
    for (int i = 0; i < FILES; i++)
        if (p->state == PROCESS_DONE ? p->files[i].wrote : process_file_due(p, i))
            return true;
    return false;
}

/* The file of an earlier image keeps its profile, under the image's number. */
static void file_renumber(struct process *earlier, int i, const char *absolute, const char *middle)
{
    struct target *t = &earlier->files[i];
    char numbered[PATH_MAX];
    names_insert(absolute, middle, numbered, sizeof numbered);
    if (t->wrote && process_has_samples(earlier, i))
        rename(t->path, numbered);
    snprintf(t->path, sizeof t->path, "%s", numbered);
    t->owns = false;
}

/* An exec in place: one counter for images and numbers, so that no file takes another's name. */
static void image_follow(struct process *p, struct process *earlier, char (*absolute)[PATH_MAX * 2])
{
    char middle[64];

    if (earlier->numbered) { /* its files keep their numbers; what is left of it takes the next */
        p->images = p->number = image_leaves_file(earlier) ? earlier->number : earlier->number - 1;
        return;
    }
    p->images = earlier->images + 1;
    snprintf(middle, sizeof middle, "%d.%u", (int)p->own_pid, p->images);
    for (int i = 0; i < FILES; i++) {
        if (p->files[i].path[0] == '\0' || p->files[i].in_tree || earlier->files[i].in_tree)
            continue;
        if (!p->files[i].owns)
            p->number = p->images;
        if (earlier->files[i].path[0] != '\0')
            file_renumber(earlier, i, absolute[i], middle);
    }
}

static const enum stile__hello_text texts[FILES][2] = {
    [FILE_CPU] = {STILE__HELLO_TEMPLATE, STILE__HELLO_PATH},
    [FILE_BLOCK] = {STILE__HELLO_BLOCK_TEMPLATE, STILE__HELLO_BLOCK_PATH}};

/* Whether all files that the process wants are those that the first one wanted, so that they may be the tree's. */
static bool is_of_tree(const struct process *p, const struct hello_text *hello)
{
    for (int i = 0; i < FILES; i++) {
        const char *template = hello->text[texts[i][0]];
        if (template[0] != '\0' && first[i].template[0] != '\0' && strcmp(first[i].template, template) != 0)
            return false;
    }
    return tree_is_on() && !p->numbered;
}

/* The name of one file, unless it is not wanted. */
static void file_assign(struct process *p, int i, const struct hello_text *hello, bool of_tree,
                        char *absolute, size_t size)
{
    const char *template = hello->text[texts[i][0]], *path = hello->text[texts[i][1]];
    const char *cwd = hello->text[STILE__HELLO_CWD];
    struct target *t = &p->files[i];
    char middle[64];

    if (template[0] == '\0' || path[0] == '\0')
        return;
    if (first[i].template[0] == '\0') {
        snprintf(first[i].template, sizeof first[i].template, "%s", template);
        snprintf(first[i].cwd, sizeof first[i].cwd, "%s", cwd);
    } else if (strcmp(first[i].template, template) == 0) {
        cwd = first[i].cwd;
    }
    snprintf(absolute, size, "%s%s%s", path[0] == '/' ? "" : cwd, path[0] == '/' ? "" : "/", path);
    struct owned *owner = owner_find(absolute);
    t->in_tree = of_tree;
    t->owns = !of_tree && (owner == NULL || owner->pid == p->pid);
    if (owner == NULL)
        owner = owner_add(absolute, of_tree ? 0 : p->pid);
    if (t->owns && owner != NULL)
        owner->numbered = owner->numbered || p->numbered;
    snprintf(middle, sizeof middle, !p->numbered && owner != NULL && owner->numbered ? "%d.0" : "%d",
             (int)p->own_pid);
    if (t->owns || of_tree)
        snprintf(t->path, sizeof t->path, "%s", absolute);
    else
        names_insert(absolute, middle, t->path, sizeof t->path);
}

void names_assign(struct process *p, const struct hello_text *hello, struct process *earlier)
{
    char absolute[FILES][PATH_MAX * 2];
    bool of_tree = is_of_tree(p, hello);

    for (int i = 0; i < FILES; i++)
        file_assign(p, i, hello, of_tree, absolute[i], sizeof absolute[i]);
    if (earlier != NULL)
        image_follow(p, earlier, absolute);
    if (!p->numbered)
        return;
    for (int i = 0; i < FILES; i++)
        memcpy(p->files[i].base, p->files[i].path, sizeof p->files[i].base);
    names_next(p);
}
