/* The one place that reads the environment, and the one table that says what is in it. Normal context, at start. */
#include "profiler/agent/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "profiler/agent/log.h"
#include "profiler/region/hello.h"

/* Numbers with a range. Strings are read by name below. */
static const struct option {
    const char *name;
    unsigned value, min, max;
    const char *help;
} numbers[] = {
    {"PROFILE_HZ", 100, 1, STILE__HZ_MAX, "samples per second of CPU time of each thread"},
};

bool stile__options_is_profile(const char *path)
{
    static const char *const endings[] = {".pb.gz", ".pb"};
    size_t len = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (len > n && strcmp(path + len - n, endings[i]) == 0)
            return true;
    }
    return false;
}

int stile__options_profile_set(struct stile__options *o, const char *path)
{
    struct stat st;
    const char *in_directory = "";

    if (!stile__options_is_profile(path)) {
        if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
            return -EINVAL;
        in_directory = "/%e.%p.pb.gz";
    }
    int n = snprintf(o->profile, sizeof o->profile, "%s%s", path, in_directory);
    return n >= (int)sizeof o->profile ? -ENAMETOOLONG : 0;
}

static int number_read(const struct option *opt, unsigned *value)
{
    const char *text = secure_getenv(opt->name);
    char *end;

    *value = opt->value;
    if (text == NULL)
        return 0;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < (long)opt->min || n > (long)opt->max) {
        stile__log("%s=%s is not a number from %u to %u (%s); running without a profile", opt->name, text,
                   opt->min, opt->max, opt->help);
        return -EINVAL;
    }
    *value = (unsigned)n;
    return 0;
}

static int clock_read(enum stile__clock_wish *wish)
{
    static const char *const words[] = {[STILE__CLOCK_WISH_AUTO] = "auto",
                                        [STILE__CLOCK_WISH_PERF] = "perf",
                                        [STILE__CLOCK_WISH_TIMER] = "timer"};
    const char *text = secure_getenv("PROFILE_CLOCK");

    *wish = STILE__CLOCK_WISH_AUTO;
    if (text == NULL)
        return 0;
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *wish = (enum stile__clock_wish)i;
            return 0;
        }
    stile__log("PROFILE_CLOCK=%s is not auto, perf or timer; running without a profile", text);
    return -EINVAL;
}

int stile__options_read(struct stile__options *o)
{
    const char *profile = secure_getenv("PROFILE");

    if (profile == NULL || *profile == '\0')
        return 0;
    int err = stile__options_profile_set(o, profile);
    if (err == -ENAMETOOLONG) {
        stile__log("PROFILE is longer than a path may be; running without a profile");
        return -EINVAL;
    }
    if (err != 0)
        return 0; /* PROFILE=release and the like: somebody else's variable */

    err = number_read(&numbers[0], &o->hz);
    if (err == 0)
        err = clock_read(&o->clock);
    if (err == 0)
        err = stile__options_surroundings(o);
    return err != 0 ? err : 1;
}

int stile__options_surroundings(struct stile__options *o)
{
    const char *text = secure_getenv("PROFILE_COLLECTOR");
    if (text != NULL && snprintf(o->collector, sizeof o->collector, "%s", text) >= (int)sizeof o->collector) {
        stile__log("PROFILE_COLLECTOR is longer than a path may be; running without a profile");
        return -EINVAL;
    }
    text = secure_getenv(STILE__ROOT_ENV);
    if (text != NULL && snprintf(o->root, sizeof o->root, "%s", text) >= (int)sizeof o->root)
        o->root[0] = '\0';
    return 0;
}
