/* `stile top FILE`: where the time of a profile went, per function, as `go tool pprof -top` shows it but without
 * needing Go. Context: the command line; single-threaded. */
#include "cli/top.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/measure.h"
#include "proto/node_table.h"
#include "proto/reader.h"

enum {
    ROWS_DEFAULT = 20,
    EXIT_USAGE = 2,
};

struct arguments {
    const char *file, *sample_type; /* sample_type: NULL for the profile's default */
    size_t rows;                    /* SIZE_MAX: all */
    bool by_cum, lines, help;
};

static const char usage[] = "Usage: stile top [OPTION]... FILE\n"
                            "Show where the time of the pprof profile FILE (gzipped or not) went.\n"
                            "\n"
                            "  -n N                show the N largest rows (default 20; 0: all)\n"
                            "      --cum           sort by cumulative instead of own time\n"
                            "      --lines         a row per source line instead of per function\n"
                            "      --sample-type TYPE\n"
                            "                      the value to show, e.g. cpu, samples, delay or "
                            "contentions (default: the profile's own)\n"
                            "      --help          show this\n"
                            "\n"
                            "flat: in the function itself; cum: in it and what it called; samples or "
                            "contentions: how often it was seen\n"
                            "itself.\n";

static bool rows_parse(const char *text, size_t *rows)
{
    char *end;
    unsigned long long n;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (*end || errno)
        return false;
    *rows = n && n < SIZE_MAX ? (size_t)n : SIZE_MAX;
    return true;
}

static bool arguments_parse(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {
        {"cum", no_argument, NULL, 'c'},
        {"lines", no_argument, NULL, 'l'},
        {"sample-type", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;

    *a = (struct arguments){.rows = ROWS_DEFAULT};
    optind = 0; /* glibc: start anew */
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":n:h", options, NULL)) != -1) {
        switch (c) {
        case 'n':
            if (rows_parse(optarg, &a->rows))
                break;
            fprintf(stderr, "stile top: -n takes a number, not '%s'\n", optarg);
            return false;
        case 'c':
            a->by_cum = true;
            break;
        case 'l':
            a->lines = true;
            break;
        case 't':
            a->sample_type = optarg;
            break;
        case 'h':
            a->help = true;
            return true;
        case ':':
            fprintf(stderr, "stile top: %s needs a value; see 'stile top --help'\n", argv[optind - 1]);
            return false;
        default:
            fprintf(stderr, "stile top: unknown option '%s'; see 'stile top --help'\n", argv[optind - 1]);
            return false;
        }
    }
    if (argc - optind != 1) {
        fprintf(stderr, "stile top: %s; see 'stile top --help'\n",
                argc == optind ? "no profile given" : "takes one profile only");
        return false;
    }
    a->file = argv[optind];
    return true;
}

static const char *type_name(const struct stile__profile *p, size_t i)
{
    return stile__profile_string(p, p->pb->sample_type[i]->type);
}

static size_t type_find(const struct stile__profile *p, const char *name)
{
    for (size_t i = 0; i < p->pb->n_sample_type; i++)
        if (!strcmp(type_name(p, i), name))
            return i;
    return SIZE_MAX;
}

/* Which value to show: the wanted one, else the profile's default, else the last. SIZE_MAX after an error. */
static size_t value_choose(const struct stile__profile *p, const struct arguments *a)
{
    size_t i;

    if (!a->sample_type) {
        i = type_find(p, stile__profile_string(p, p->pb->default_sample_type));
        return i == SIZE_MAX ? p->pb->n_sample_type - 1 : i;
    }
    i = type_find(p, a->sample_type);
    if (i == SIZE_MAX) {
        fprintf(stderr, "stile top: %s has no sample type '%s', only", a->file, a->sample_type);
        for (size_t k = 0; k < p->pb->n_sample_type; k++)
            fprintf(stderr, "%s %s", k ? "," : "", type_name(p, k));
        fputc('\n', stderr);
    }
    return i;
}

/* The value that counts samples, if it is not the one shown anyway. */
static size_t count_choose(const struct stile__profile *p, size_t value)
{
    for (size_t i = 0; i < p->pb->n_sample_type; i++)
        if (i != value && !strcmp(stile__profile_string(p, p->pb->sample_type[i]->unit), "count"))
            return i;
    return SIZE_MAX;
}

static void time_print(int64_t time_nanos)
{
    time_t seconds = (time_t)(time_nanos / 1000000000);
    struct tm tm;
    char text[64];

    if (time_nanos && localtime_r(&seconds, &tm) &&
        strftime(text, sizeof(text), "%b %-d, %Y at %-I:%M%P (%Z)", &tm))
        printf("Time: %s\n", text);
}

/* What the profile is of. */
static void header_print(const struct stile__profile *p, size_t value, uint64_t total,
                         const struct stile__measure *m)
{
    const Perftools__Profiles__Profile *pb = p->pb;
    const char *file = pb->n_mapping ? stile__profile_string(p, pb->mapping[0]->filename) : "";
    const char *unit = stile__profile_string(p, pb->sample_type[value]->unit);
    const char *slash = strrchr(file, '/');
    char text[STILE__MEASURE_TEXT], of[STILE__MEASURE_TEXT];
    struct stile__measure duration;

    if (*file)
        printf("File: %s\n", slash && slash[1] ? slash + 1 : file);
    if (pb->n_mapping && *stile__profile_string(p, pb->mapping[0]->build_id))
        printf("Build ID: %s\n", stile__profile_string(p, pb->mapping[0]->build_id));
    for (size_t i = 0; i < pb->n_comment; i++)
        if (stile__profile_string(p, pb->comment[i])[0] != '#')
            printf("%s\n", stile__profile_string(p, pb->comment[i]));
    printf("Type: %s\n", type_name(p, value));
    time_print(pb->time_nanos);
    if (!pb->duration_nanos)
        return;
    duration = stile__measure_choose("nanoseconds", stile__magnitude(pb->duration_nanos),
                                     stile__magnitude(pb->duration_nanos));
    printf("Duration: %s, Total samples = %s", stile__measure_print(&duration, pb->duration_nanos, text),
           stile__measure_print(m, (int64_t)total, of));
    if (!strcmp(unit, "nanoseconds")) {
        stile__percentage_print((int64_t)total, stile__magnitude(pb->duration_nanos), text);
        printf(" (%s)", text + strspn(text, " "));
    }
    putchar('\n');
}

/* One unit for the whole table, so that its numbers can be compared at a glance. */
static struct stile__measure measure_for(const struct stile__node_table *t, size_t rows, const char *unit)
{
    uint64_t smallest = 0;

    for (size_t i = 0; i < rows; i++) {
        uint64_t value = stile__magnitude(t->nodes[i].flat ? t->nodes[i].flat : t->nodes[i].cum);

        if (value && (!smallest || value < smallest))
            smallest = value;
    }
    return stile__measure_choose(unit, smallest ? smallest : t->total, t->total);
}

/* counts: what the last column counts, or NULL. */
static void rows_print(const struct stile__node_table *t, size_t rows, const struct stile__measure *m,
                       const char *counts)
{
    int64_t sum = 0;

    int width = counts != NULL && strlen(counts) > 9 ? (int)strlen(counts) : 9;

    printf("%10s %5s%% %5s%% %10s %5s%%", "flat", "flat", "sum", "cum", "cum");
    if (counts)
        printf(" %*s", width, counts);
    putchar('\n');
    for (size_t i = 0; i < rows; i++) {
        const struct stile__node *n = &t->nodes[i];
        char text[5][STILE__MEASURE_TEXT];

        sum = (int64_t)((uint64_t)sum + (uint64_t)n->flat);
        printf("%10s %s %s %10s %s", stile__measure_print(m, n->flat, text[0]),
               stile__percentage_print(n->flat, t->total, text[1]),
               stile__percentage_print(sum, t->total, text[2]), stile__measure_print(m, n->cum, text[3]),
               stile__percentage_print(n->cum, t->total, text[4]));
        if (counts)
            printf(" %*lld", width, (long long)n->flat_count);
        printf("  %s\n", n->label);
    }
}

static void table_print(const struct stile__profile *p, const struct stile__node_table *t,
                        const struct stile__node_options *o, size_t rows)
{
    const char *unit = stile__profile_string(p, p->pb->sample_type[o->value]->unit);
    char shown[STILE__MEASURE_TEXT], percent[STILE__MEASURE_TEXT], total[STILE__MEASURE_TEXT];
    struct stile__measure m;
    uint64_t sum = 0;

    if (rows > t->count)
        rows = t->count;
    m = measure_for(t, rows, unit);
    for (size_t i = 0; i < rows; i++)
        sum += (uint64_t)t->nodes[i].flat;
    header_print(p, o->value, t->total, &m);
    stile__percentage_print((int64_t)sum, t->total, percent);
    printf("Showing nodes accounting for %s, %s of %s total\n", stile__measure_print(&m, (int64_t)sum, shown),
           percent + strspn(percent, " "), stile__measure_print(&m, (int64_t)t->total, total));
    if (rows < t->count)
        printf("Showing top %zu nodes out of %zu\n", rows, t->count);
    rows_print(t, rows, &m, o->count != SIZE_MAX ? type_name(p, o->count) : NULL);
}

/* A reader that has seen enough (`| head`) is no error; a full disk is. */
static int output_finish(void)
{
    int failed = ferror(stdout);

    if (fflush(stdout) == 0 && !failed)
        return EXIT_SUCCESS;
    if (errno == EPIPE)
        return EXIT_SUCCESS;
    fprintf(stderr, "stile top: cannot write: %s\n", strerror(errno));
    return EXIT_FAILURE;
}

int stile__cmd_top(int argc, char **argv)
{
    struct stile__node_options options = {0};
    struct stile__profile *profile = NULL;
    struct stile__node_table table = {0};
    struct arguments arguments;
    int status = EXIT_FAILURE;
    char err[4352];

    if (!arguments_parse(argc, argv, &arguments))
        return EXIT_USAGE;
    signal(SIGPIPE, SIG_IGN);
    if (arguments.help) {
        fputs(usage, stdout);
        return output_finish();
    }
    if (stile__profile_read(arguments.file, &profile, err, sizeof(err))) {
        fprintf(stderr, "stile top: %s\n", err);
        return EXIT_USAGE;
    }
    options.value = value_choose(profile, &arguments);
    if (options.value == SIZE_MAX) {
        status = EXIT_USAGE;
        goto out;
    }
    options.count = count_choose(profile, options.value);
    options.lines = arguments.lines;
    options.by_cum = arguments.by_cum;
    if (stile__node_table_make(&table, profile, &options)) {
        fprintf(stderr, "stile top: out of memory\n");
        goto out;
    }
    table_print(profile, &table, &options, arguments.rows);
    status = output_finish();
out:
    stile__node_table_free(&table);
    stile__profile_free(profile);
    return status;
}
