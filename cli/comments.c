/* `stile record --verbose`: finds the files of a run by their names and their times, since the collector tells the names
 * of two of them only, and prints their comments. Context: the command line; single-threaded. */
#include "cli/comments.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/reader.h"

/* The run whose files are looked for; scandir passes nothing to its functions. */
static struct {
    char directory[PATH_MAX];
    char stem[PATH_MAX]; /* of the names: up to the first %, or all but the ending */
    const char *ending;  /* .pb.gz or .pb */
    const char *first;   /* a name */
    bool any;            /* any text may follow the stem; else numbers only */
    struct timespec since;
} run;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t n = strlen(text), m = strlen(ending);
    return n > m && strcmp(text + n - m, ending) == 0;
}

/* Whether a name is one that the run may have given to a file. */
static bool name_fits(const char *name)
{
    size_t stem = strlen(run.stem), n = strlen(name), ending = strlen(run.ending);
    if (name[0] == '.' || !ends_with(name, run.ending) || n < stem + ending ||
        strncmp(name, run.stem, stem) != 0)
        return false;
    return run.any || strspn(name + stem, ".0123456789") >= n - stem - ending;
}

static bool path_make(char *path, const char *name)
{
    return snprintf(path, PATH_MAX, "%s/%s", run.directory, name) < PATH_MAX;
}

/* Some file systems know whole seconds only. */
static bool written_since(const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    if (!path_make(path, name) || lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    if (st.st_mtim.tv_sec != run.since.tv_sec)
        return st.st_mtim.tv_sec > run.since.tv_sec;
    return st.st_mtim.tv_nsec == 0 || st.st_mtim.tv_nsec >= run.since.tv_nsec;
}

static int chosen(const struct dirent *e)
{
    return name_fits(e->d_name) && written_since(e->d_name);
}

static int in_order(const struct dirent **a, const struct dirent **b)
{
    int first = (strcmp((*b)->d_name, run.first) == 0) - (strcmp((*a)->d_name, run.first) == 0);
    return first != 0 ? first : strverscmp((*a)->d_name, (*b)->d_name);
}

static void file_print(FILE *to, const char *name)
{
    char path[PATH_MAX], err[512];
    struct stile__profile *p;
    if (!path_make(path, name))
        return;
    if (stile__profile_read(path, &p, err, sizeof err) != 0) {
        fprintf(to, "stile: %s\n", err);
        return;
    }
    fprintf(to, "stile: comments of %s:\n", path);
    for (size_t i = 0; i < p->pb->n_comment; i++)
        fprintf(to, "%s\n", stile__profile_string(p, p->pb->comment[i]));
    stile__profile_free(p);
}

void stile__comments_print(FILE *to, const char *template, const char *first, const struct timespec *since)
{
    struct dirent **found;
    const char *name = base_name(first), *pattern = base_name(template);
    size_t stem = strcspn(pattern, "%");

    run.ending = ends_with(name, ".pb.gz") ? ".pb.gz" : ".pb";
    run.any = pattern[stem] == '%';
    if (!run.any)
        stem -= strlen(run.ending);
    snprintf(run.stem, sizeof run.stem, "%.*s", (int)stem, pattern);
    snprintf(run.directory, sizeof run.directory, "%.*s", name != first ? (int)(name - first - 1) : 1,
             name != first ? first : ".");
    run.first = name;
    run.since = *since;
    int n = scandir(run.directory[0] != '\0' ? run.directory : "/", &found, chosen, in_order);
    for (int i = 0; i < n; i++) {
        file_print(to, found[i]->d_name);
        free(found[i]);
    }
    if (n >= 0)
        free(found);
}
