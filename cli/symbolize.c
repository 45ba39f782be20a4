/* `stile symbolize`: names the frames of crash reports, wherever they stand in a text. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "profiler/region/report.h"
#include "proto/report_names.h"

#define REPORT_MOST ((size_t)64 << 20) /* bytes: beyond that it is no report */

static const char usage[] =
    "usage: stile symbolize [-d DIRECTORY] [FILE]\n"
    "\n"
    "Reads text that has crash reports of Stile in it, from FILE or standard input, and writes it with the\n"
    "function, file and line of each frame. Files are found by their paths and by their build ids; the text\n"
    "around reports stays as it is.\n"
    "\n"
    "  -d, --debug-dir DIRECTORY  where separate debug files lie (default /usr/lib/debug)\n"
    "  -h, --help                 this text\n";

/* Text of the report that is being read. */
struct report {
    char *text;
    size_t n, cap;
};

static int file_open(void *arg, const char *path, unsigned way)
{
    struct stat st;
    (void)arg;
    (void)way;
    int fd = path[0] == '/' ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool text_write(void *arg, const char *bytes, size_t n)
{
    (void)arg;
    return fwrite(bytes, 1, n, stdout) == n;
}

static bool report_add(struct report *r, const char *line, size_t n)
{
    if (r->n + n > r->cap) {
        size_t cap = 2 * r->cap + n + 4096;
        char *more = realloc(r->text, cap);
        if (more == NULL)
            return false;
        r->text = more;
        r->cap = cap;
    }
    memcpy(r->text + r->n, line, n);
    r->n += n;
    return true;
}

static bool is(const char *line, size_t n, const char *start)
{
    return n >= strlen(start) && memcmp(line, start, strlen(start)) == 0;
}

/* Whether a line is the last of a report, whichever way lines end there. */
static bool is_end(const char *line, size_t n)
{
    static const char end[] = STILE__REPORT_END;
    const size_t words = sizeof end - 2;
    return is(line, n, end) || (n == words + 2 && memcmp(line, end, words) == 0 && line[words] == '\r');
}

/* Names what was gathered, be it whole or not. */
static int report_end(struct report *r, struct stile__report_names *names)
{
    int err = r->n != 0 ? stile__report_annotate(names, r->text, r->n) : 0;
    r->n = 0;
    return err;
}

static int line_take(struct report *r, struct stile__report_names *names, const char *line, size_t n)
{
    int err = 0;
    if (is(line, n, STILE__REPORT_BEGIN) || r->n > REPORT_MOST)
        err = report_end(r, names);
    if (err == 0 && (r->n != 0 || is(line, n, STILE__REPORT_BEGIN)))
        err = report_add(r, line, n) ? 0 : -ENOMEM;
    else if (err == 0)
        err = text_write(NULL, line, n) ? 0 : -ECANCELED;
    if (err == 0 && is_end(line, n))
        err = report_end(r, names);
    return err;
}

static int text_take(FILE *from, struct stile__report_names *names)
{
    struct report r = {0};
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int err = 0;

    errno = 0;
    while (err == 0 && (n = getline(&line, &cap, from)) >= 0)
        err = line_take(&r, names, line, (size_t)n);
    if (err == 0 && !feof(from))
        err = errno != 0 ? -errno : -EIO;
    if (err == 0)
        err = report_end(&r, names);
    free(line);
    free(r.text);
    return err;
}

/* Returns 0 to go on, -1 when the help was printed, else the exit status. */
static int arguments_parse(int argc, char **argv, const char **directory, const char **file)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return -1;
        }
        if (strncmp(argv[i], "--debug-dir=", 12) == 0) {
            *directory = argv[i] + 12;
        } else if (strcmp(argv[i], "-d") == 0 || strcmp(argv[i], "--debug-dir") == 0) {
            *directory = i + 1 < argc ? argv[++i] : "";
        } else if (argv[i][0] != '-' && *file == NULL) {
            *file = argv[i];
        } else if (strcmp(argv[i], "-") != 0) {
            fprintf(stderr, "stile symbolize: unknown argument %s; see stile symbolize --help\n", argv[i]);
            return 2;
        }
    }
    if (*directory == NULL || (*directory)[0] != '\0')
        return 0;
    fputs("stile symbolize: no directory given; see stile symbolize --help\n", stderr);
    return 2;
}

int stile__cmd_symbolize(int argc, char **argv)
{
    const struct stile__report_way way = {.open = file_open, .ways = 1, .write = text_write};
    const char *directory = NULL, *file = NULL;
    int status = arguments_parse(argc, argv, &directory, &file);
    if (status != 0)
        return status < 0 ? 0 : status;
    FILE *from = file != NULL ? fopen(file, "re") : stdin;
    if (from == NULL) {
        fprintf(stderr, "stile symbolize: cannot read %s: %s\n", file, strerror(errno));
        return 1;
    }
    struct stile__report_names *names = stile__report_names_new(&way, directory);
    int err = names != NULL ? text_take(from, names) : -ENOMEM;
    stile__report_names_free(names);
    if (from != stdin)
        fclose(from);
    if (err != 0 && err != -ECANCELED) /* what cannot be written is told at the end */
        fprintf(stderr, "stile symbolize: %s: %s\n", file != NULL ? file : "standard input", strerror(-err));
    return err != 0 ? 1 : 0;
}
