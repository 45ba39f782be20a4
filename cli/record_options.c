/* The command line of `stile record`. Context: the command line. */
#include "cli/record_options.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/region/layout.h"
#include "profiler/region/signal_name.h"

static const char usage[] =
    "usage: stile record [-o FILE] [-F HZ] [--block[=FILE]] [--block-rate NS] [--interval TIME]\n"
    "                    [--no-merge] [--toggle SIGNAL] [--signal SIGNAL] [--crash-output FILE] [--verbose] "
    "[--] COMMAND "
    "[ARGUMENT...]\n"
    "\n"
    "Runs COMMAND and writes a CPU profile of it, whichever way it ends. Its terminal, signals, output and "
    "exit\n"
    "status are its own.\n"
    "\n"
    "  -o, --output FILE      file to write, ending in .pb.gz or .pb, or a directory (default stile.pb.gz);\n"
    "                         %p is the process id, %e the program, %t the unix time\n"
    "  -F, --frequency HZ     samples per second of CPU time of each thread, 1 to 20000 (default 100)\n"
    "      --block[=FILE]     write a blocking profile, too: where threads waited, for what, how long\n"
    "                         (default: -o's name with .block before its ending)\n"
    "      --block-rate NS    a wait recorded for each so many nanoseconds waited, on average; 1: all "
    "(default\n"
    "                         10000); implies --block\n"
    "  -i, --interval TIME    a file each TIME, from " STILE__INTERVAL_RANGE
    " (60 or 60s, 500ms, 5m, 1h): FILE.1.pb.gz,\n"
    "                         FILE.2.pb.gz, ...\n"
    "  -t, --toggle SIGNAL    start with sampling off; each SIGNAL (SIGUSR2, say) sent to COMMAND turns it "
    "on or\n"
    "                         off, and each part is a file\n"
    "  -s, --signal SIGNAL    profile with this signal, for a COMMAND that uses SIGPROF itself\n"
    "      --crash-output FILE  write crash reports to FILE, too, even if COMMAND cannot (%p, %e, %t as "
    "above)\n"
    "      --no-merge         a file for each process, FILE.PID.pb.gz for children (default: one file for "
    "all, "
    "with\n"
    "                         labels pid and comm, unless FILE has %p or %e, or -i or -t is given)\n"
    "  -v, --verbose          print the comments of the files as well: what the profiler counted\n"
    "  -h, --help             this text\n";

static int bad(const char *format, const char *what)
{
    fputs("stile record: ", stderr);
    fprintf(stderr, format, what);
    fputs("; see stile record --help\n", stderr);
    return 2;
}

static int frequency_parse(const char *text, unsigned *hz)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 1 || n > STILE__HZ_MAX)
        return -EINVAL;
    *hz = (unsigned)n;
    return 0;
}

/* What --interval, --signal and --toggle say, as the program's agent will read it. Returns 0 or the exit status. */
static int values_check(const struct stile__record_options *run)
{
    uint64_t ns;
    const char *const signals[] = {run->signal, run->toggle};
    if (run->interval != NULL && stile__options_interval_parse(run->interval, &ns) != 0)
        return bad("the interval \"%s\" is not a time from " STILE__INTERVAL_RANGE, run->interval);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (signals[i] != NULL && !stile__signal_allowed(stile__signal_parse(signals[i])))
            return bad("\"%s\" is no signal for a profiler to use", signals[i]);
    if (run->toggle != NULL && stile__signal_parse(run->toggle) ==
                                   (run->signal != NULL ? stile__signal_parse(run->signal) : SIGPROF))
        return bad("the profile's signal and the toggle are both %s", run->toggle);
    return 0;
}

/* Whether argv[*i] is option `shortname` or `longname`; then *value is the next word, or what stands behind '=', or ""
 * if it is missing, and *i is its last word. */
static bool option_is(int argc, char **argv, int *i, const char *shortname, const char *longname,
                      const char **value)
{
    const char *word = argv[*i];
    size_t n = strlen(longname);
    if (strncmp(word, longname, n) == 0 && word[n] == '=') {
        *value = word + n + 1;
        return true;
    }
    if (strcmp(word, shortname) != 0 && strcmp(word, longname) != 0)
        return false;
    *value = *i + 1 < argc ? argv[++*i] : "";
    return true;
}

static int block_rate_check(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long ns = strtoull(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && ns != 0 &&
        ns <= STILE__BLOCK_RATE_MAX)
        return 0;
    return bad("the block rate \"%s\" is not a number of nanoseconds from 1 to 1000000000", text);
}

/* The blocking profile's name and rate. Returns 0 or the exit status. */
static int block_check(struct stile__record_options *run)
{
    const char *path = run->options.profile;
    if (run->block_rate != NULL && block_rate_check(run->block_rate) != 0)
        return 2;
    if (run->block_rate != NULL && run->block == NULL)
        run->block = "";
    if (run->block == NULL)
        return 0;
    if (run->block[0] == '\0') {
        size_t n = strlen(path), ending = n > 6 && strcmp(path + n - 6, ".pb.gz") == 0 ? 6 : 3;
        if (snprintf(run->block_path, sizeof run->block_path, "%.*s.block%s", (int)(n - ending), path,
                     path + n - ending) >= (int)sizeof run->block_path)
            return bad("the output's name %s is too long", path);
        run->block = run->block_path;
    }
    if (stile__options_block_set(&run->options, run->block) != 0)
        return bad("the blocking profile \"%s\" does not end in .pb.gz or .pb and is no directory",
                   run->block);
    if (strcmp(run->options.block, path) == 0)
        return bad("both profiles would be %s", path);
    return 0;
}

/* The crash output by an absolute path, whatever directory the command's descendants are in. Returns 0 or the exit status. */
static int crash_check(struct stile__record_options *run)
{
    char directory[PATH_MAX], *to = run->crash_path;
    if (run->crash == NULL || run->crash[0] == '/')
        return 0;
    if (run->crash[0] == '\0')
        return bad("no file given for crash reports%s", "");
    if (getcwd(directory, sizeof directory) == NULL)
        return bad("the directory of %s has no name", run->crash);
    for (const char *at = directory; *at != '\0' && to < run->crash_path + sizeof run->crash_path - 2; at++) {
        if (*at == '%') /* stands for itself */
            *to++ = '%';
        *to++ = *at;
    }
    size_t room = (size_t)(run->crash_path + sizeof run->crash_path - to);
    if ((size_t)snprintf(to, room, "/%s", run->crash) >= room)
        return bad("the crash output's name %s is too long", run->crash);
    run->crash = run->crash_path;
    return 0;
}

/* --block takes a value behind '=' only: a word of its own is the command's. */
static bool block_is(const char *word, const char **value)
{
    if (strcmp(word, "--block") == 0)
        *value = "";
    else if (strncmp(word, "--block=", 8) == 0)
        *value = word + 8;
    else
        return false;
    return true;
}

int stile__record_options_parse(int argc, char **argv, struct stile__record_options *run)
{
    const char *output = "stile.pb.gz", *value;
    int i = 1;

    run->options.hz = 100;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return -1;
        }
        if (strcmp(argv[i], "-v") == 0 || strcmp(argv[i], "--verbose") == 0)
            run->verbose = true;
        else if (strcmp(argv[i], "--no-merge") == 0)
            run->apart = true;
        else if (option_is(argc, argv, &i, "-o", "--output", &value))
            output = value;
        else if (option_is(argc, argv, &i, "-F", "--frequency", &value)) {
            if (frequency_parse(value, &run->options.hz) != 0)
                return bad("the frequency \"%s\" is not a number from 1 to 20000", value);
        } else if (block_is(argv[i], &value))
            run->block = value;
        else if (option_is(argc, argv, &i, "--block-rate", "--block-rate", &value))
            run->block_rate = value;
        else if (option_is(argc, argv, &i, "-i", "--interval", &value))
            run->interval = value;
        else if (option_is(argc, argv, &i, "-t", "--toggle", &value))
            run->toggle = value;
        else if (option_is(argc, argv, &i, "-s", "--signal", &value))
            run->signal = value;
        else if (option_is(argc, argv, &i, "--crash-output", "--crash-output", &value))
            run->crash = value;
        else
            return bad("unknown option %s", argv[i]);
    }
    if (i >= argc)
        return bad("no command given%s", "");
    run->command = argv + i;
    if (stile__options_profile_set(&run->options, output) != 0)
        return bad("the output \"%s\" does not end in .pb.gz or .pb and is no directory", output);
    int status = block_check(run);
    if (status == 0)
        status = crash_check(run);
    return status != 0 ? status : values_check(run);
}

bool stile__record_merges(const struct stile__record_options *run)
{
    const char *path = run->options.profile; /* of a directory, too */
    return !run->apart && strstr(path, "%p") == NULL && strstr(path, "%e") == NULL;
}
