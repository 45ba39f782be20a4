/* The front of the command line: finds the verb. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "profiler/collector/collect.h"

/* libstile looks for this symbol: the profiler's own processes are never profiled. */
extern const char stile__refuses_profiling;
__attribute__((visibility("default"))) const char stile__refuses_profiling = 1;

static const char usage[] =
    "usage: stile VERB [ARGUMENT...]\n"
    "\n"
    "  record [-o FILE] [-F HZ] [--] COMMAND...   profile a command (--block: its waits, too)\n"
    "  top FILE                                   the hottest functions of a profile\n"
    "  dump PID                                   where all threads of a profiled program are\n"
    "  symbolize [FILE]                           name the frames of a crash report\n"
    "  version                                    the version of Stile\n"
    "  help                                       this text\n"
    "\n"
    "stile VERB --help tells more. A program that is linked with libstile, or runs with it preloaded, is "
    "profiled\n"
    "when PROFILE=out.pb.gz is in its environment.\n";

static int cmd_collect(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return stile__collect();
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("stile " STILE_VERSION);
    return 0;
}

static int cmd_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    fputs(usage, stdout);
    return 0;
}

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"record", stile__cmd_record}, {"top", stile__cmd_top},
    {"dump", stile__cmd_dump},     {"symbolize", stile__cmd_symbolize},
    {"collect", cmd_collect},      {"version", cmd_version},
    {"--version", cmd_version},    {"help", cmd_help},
    {"--help", cmd_help},          {"-h", cmd_help},
};

/* Help that went nowhere is no success. */
static int finish(int status)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        perror("stile: cannot write");
        return 1;
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("stile: no verb given; see stile --help\n", stderr);
        return 2;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return finish(verbs[i].run(argc - 1, argv + 1));
    fprintf(stderr, "stile: unknown verb %s; see stile --help\n", argv[1]);
    return 2;
}
