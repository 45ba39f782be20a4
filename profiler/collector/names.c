/* File names for a tree of processes. Collector, normal context. */
#include "profiler/collector/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Paths that some process owns, for as long as the collector lives. */
static struct owned {
    struct owned *next;
    pid_t pid;
    bool numbered; /* its files have numbers, so no other process's may look like one of them */
    char path[];
} * all_owned;

/* The tree's first process: a path that its descendants inherited is relative to its directory, not to theirs. */
static struct {
    char template[PATH_MAX];
    char cwd[PATH_MAX];
} first;

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
    names_insert(p->base, middle, p->path, sizeof p->path);
}

/* An exec in place: one counter for images and numbers, so that no file takes another's name. */
static void image_follow(struct process *p, struct process *earlier, const char *absolute)
{
    char middle[64], numbered[PATH_MAX];

    if (earlier->numbered) { /* its files keep their numbers; what is left of it takes the next */
        bool due =
            earlier->state == PROCESS_DONE ? earlier->wrote : earlier->owns_path || earlier->ticks != 0;
        p->images = p->number = due ? earlier->number : earlier->number - 1;
        return;
    }
    p->images = earlier->images + 1;
    if (!p->owns_path)
        p->number = p->images;
    snprintf(middle, sizeof middle, "%d.%u", (int)p->own_pid, p->images);
    names_insert(absolute, middle, numbered, sizeof numbered);
    if (earlier->wrote && earlier->ticks != 0)
        rename(earlier->path, numbered); /* it keeps its profile, under its number */
    snprintf(earlier->path, sizeof earlier->path, "%s", numbered);
    earlier->owns_path = false;
}

void names_assign(struct process *p, const struct hello_text *hello, struct process *earlier)
{
    const char *template = hello->text[STILE__HELLO_TEMPLATE];
    const char *path = hello->text[STILE__HELLO_PATH];
    const char *cwd = hello->text[STILE__HELLO_CWD];
    char absolute[PATH_MAX * 2], middle[64];

    if (first.template[0] == '\0') {
        snprintf(first.template, sizeof first.template, "%s", template);
        snprintf(first.cwd, sizeof first.cwd, "%s", cwd);
    } else if (strcmp(first.template, template) == 0) {
        cwd = first.cwd;
    }
    snprintf(absolute, sizeof absolute, "%s%s%s", path[0] == '/' ? "" : cwd, path[0] == '/' ? "" : "/", path);
    struct owned *owner = owner_find(absolute);
    p->owns_path = owner == NULL || owner->pid == p->pid;
    if (owner == NULL)
        owner = owner_add(absolute, p->pid);
    if (p->owns_path && owner != NULL)
        owner->numbered = owner->numbered || p->numbered;
    snprintf(middle, sizeof middle, !p->numbered && owner != NULL && owner->numbered ? "%d.0" : "%d",
             (int)p->own_pid);
    if (p->owns_path)
        snprintf(p->path, sizeof p->path, "%s", absolute);
    else
        names_insert(absolute, middle, p->path, sizeof p->path);
    if (earlier != NULL)
        image_follow(p, earlier, absolute);
    if (p->numbered) {
        memcpy(p->base, p->path, sizeof p->base);
        names_next(p);
    }
}
