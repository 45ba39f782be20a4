/* The public interface, step by step as it is told: `api STEP...`. Prints what every step returned.
 *   start:PATH[:HZ]  stop  flush  work1  work2  wait (for a line on stdin)  version  bad  null */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stile.h"
#include "work.h"

WORK static uint64_t work_one(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_two(uint64_t ns)
{
    return burn(ns);
}

static const char *name_of(int result)
{
    return result < 0 ? strerrorname_np(-result) : "0";
}

static int start(const char *spec)
{
    struct stile_profile_options o = {.size = sizeof o};
    char path[4096];
    char *colon;

    snprintf(path, sizeof path, "%s", spec);
    colon = strrchr(path, ':');
    if (colon) {
        *colon = '\0';
        o.hz = (unsigned)strtoul(colon + 1, NULL, 10);
    }
    o.path = path;
    return stile_profile_start(&o);
}

/* Options that no version of the library can take. */
static void try_bad(const char *path)
{
    struct {
        struct stile_profile_options o;
        char unknown[16];
    } newer;
    struct stile_profile_options o = {.size = sizeof o, .path = path};

    o.size = 0;
    printf("bad size 0: %s\n", name_of(stile_profile_start(&o)));
    o.size = 3;
    printf("bad size 3: %s\n", name_of(stile_profile_start(&o)));
    memset(&newer, 0, sizeof newer);
    newer.o.size = sizeof newer;
    newer.o.path = path;
    newer.unknown[3] = 1;
    printf("bad newer: %s\n", name_of(stile_profile_start(&newer.o)));
    o.size = sizeof o;
    o.hz = 1000000000;
    printf("bad hz: %s\n", name_of(stile_profile_start(&o)));
    o.hz = 0;
    o.path = "/nonexistent/directory/out.pb.gz";
    printf("bad path: %s\n", name_of(stile_profile_start(&o)));
}

static int step(const char *s)
{
    char line[16];

    if (strncmp(s, "start:", 6) == 0)
        printf("start: %s\n", name_of(start(s + 6)));
    else if (strcmp(s, "stop") == 0)
        printf("stop: %s\n", name_of(stile_profile_stop()));
    else if (strcmp(s, "flush") == 0)
        printf("flush: %s\n", name_of(stile_profile_flush()));
    else if (strcmp(s, "work1") == 0)
        work_one(400 * MS);
    else if (strcmp(s, "work2") == 0)
        work_two(400 * MS);
    else if (strcmp(s, "version") == 0)
        printf("version: %s\n", stile_version());
    else if (strncmp(s, "bad:", 4) == 0)
        try_bad(s + 4);
    else if (strcmp(s, "null") == 0)
        printf("null: %s\n", name_of(stile_profile_start(NULL)));
    else if (strcmp(s, "wait") == 0)
        return fgets(line, sizeof line, stdin) != NULL;
    else
        return 0;
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!step(argv[i]))
            return 2;
    return 0;
}
