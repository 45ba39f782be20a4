/* Runs of profiled programs. */
#include "bench/runs.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX 8

static char dir[] = "/tmp/stile-bench-XXXXXX";
static char bin[PATH_MAX], stile[PATH_MAX];
static pid_t running[2];

/* Of a run's number. */
static const char *in_dir(const char *name, unsigned number)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s%u", dir, name, number);
    return path;
}

bool runs_begin(void)
{
    char path[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", bin, sizeof bin - 1);
    if (n < 0 || mkdtemp(dir) == NULL || mkdir(in_dir("profiles", 0), 0700) != 0 ||
        mkdir(in_dir("profiles", 1), 0700) != 0) {
        perror("bench");
        return false;
    }
    bin[n] = '\0';
    *strrchr(bin, '/') = '\0';
    snprintf(path, sizeof path, "%s/stile", bin);
    if (realpath(path, stile) == NULL) {
        fputs("bench: stile is not built\n", stderr);
        runs_end();
        return false;
    }
    return true;
}

static void nothing(const struct stile__profile *p, void *arg)
{
    (void)p;
    (void)arg;
}

void runs_end(void)
{
    for (unsigned number = 0; number < 2; number++) {
        runs_files(number, nothing, NULL);
        rmdir(in_dir("profiles", number));
        unlink(in_dir("out", number));
    }
    rmdir(dir);
}

const char *runs_program(const char *name)
{
    char path[PATH_MAX + 300];
    snprintf(path, sizeof path, "%s/../bench/%s", bin, name);
    char *found = realpath(path, NULL);
    if (found == NULL)
        fprintf(stderr, "bench: %s is not built\n", name);
    return found;
}

/* `stile record` waits for the files of children, too. */
void runs_start(unsigned number, unsigned hz, const char *const *argv, const char *const *env)
{
    char profile[PATH_MAX + 32], rate[16];
    const char *all[8 + ARGS_MAX] = {stile, "record", "-o", profile, "-F", rate, "--"};
    for (size_t i = 0; i < ARGS_MAX && argv[i] != NULL; i++)
        all[7 + i] = argv[i];
    snprintf(profile, sizeof profile, "%s/out.pb.gz", in_dir("profiles", number));
    snprintf(rate, sizeof rate, "%u", hz);
    runs_files(number, nothing, NULL);
    fflush(NULL);
    running[number] = fork();
    if (running[number] == 0) {
        dup2(open(in_dir("out", number), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO); /* its summary */
        for (; *env != NULL; env++)
            putenv((char *)*env);
        execv(all[0], (char *const *)all);
        _exit(127);
    }
}

bool runs_wait(unsigned number)
{
    char path[PATH_MAX + 32];
    int status;
    snprintf(path, sizeof path, "%s/out.pb.gz", in_dir("profiles", number));
    return running[number] > 0 && waitpid(running[number], &status, 0) == running[number] && status == 0 &&
           access(path, R_OK) == 0;
}

const char *runs_output(unsigned number)
{
    static char text[1 << 16];
    FILE *f = fopen(in_dir("out", number), "re");
    text[0] = '\0';
    if (f == NULL)
        return text;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

unsigned runs_files(unsigned number, void (*take)(const struct stile__profile *p, void *arg), void *arg)
{
    DIR *d = opendir(in_dir("profiles", number));
    unsigned n = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[PATH_MAX + 300], err[512];
        struct stile__profile *p;
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", in_dir("profiles", number), e->d_name);
        if (take != nothing && stile__profile_read(path, &p, err, sizeof err) != 0) {
            fprintf(stderr, "bench: %s\n", err);
        } else if (take != nothing) {
            take(p, arg);
            stile__profile_free(p);
            n++;
        }
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
    return n;
}

const char *runs_comment(const struct stile__profile *p, const char *start)
{
    for (size_t i = 0; i < p->pb->n_comment; i++) {
        const char *text = stile__profile_string(p, p->pb->comment[i]);
        if (strncmp(text, start, strlen(start)) == 0)
            return text;
    }
    return "";
}

const char *runs_frame_name(const struct stile__profile *p, const Perftools__Profiles__Location *l)
{
    if (l->n_line == 0)
        return "";
    return stile__profile_string(p, stile__profile_function(p, l->line[l->n_line - 1]->function_id)->name);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double runs_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n != 0 ? n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2 : 0;
}

FILE *runs_result(const char *where, const char *name)
{
    char path[PATH_MAX + 300], real[PATH_MAX];
    if (where != NULL)
        snprintf(path, sizeof path, "%s/%s", where, name);
    else
        snprintf(path, sizeof path, "%s/../bench/%s", bin, name);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        perror(path);
    else
        printf("wrote %s\n", realpath(path, real) != NULL ? real : path);
    return f;
}
