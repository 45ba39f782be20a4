/* The one place that reads the environment, and the one table that says what is in it. Normal context, at start. */
#include "profiler/agent/options.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/agent/log.h"
#include "profiler/region/hello.h"
#include "profiler/region/layout.h"
#include "profiler/region/signal_name.h"

#define SIGNAL_RANGE "a signal that can be handled, such as SIGUSR1, 10 or SIGRTMIN+1"

/* Variables whose values are more than a text. Texts are read by name below. */
enum {
    OPTION_HZ,
    OPTION_DEPTH,
    OPTION_SIGNAL,
    OPTION_TOGGLE,
    OPTION_DUMP,
    OPTION_INTERVAL,
    OPTION_BLOCK_RATE,
    OPTION_CHILDREN
};
static const struct option {
    const char *name;
    unsigned value;    /* without the variable */
    unsigned min, max; /* of a number */
    const char *range; /* in words, for what is no plain number */
    const char *help;
} table[] = {
    [OPTION_HZ] = {"PROFILE_HZ", 100, 1, STILE__HZ_MAX, NULL,
                   "samples per second of CPU time of each thread"},
    [OPTION_DEPTH] = {"PROFILE_DEPTH", STILE__DEPTH_MAX, 1, STILE__DEPTH_MAX, NULL,
                      "frames of a sample at most"},
    [OPTION_SIGNAL] = {"PROFILE_SIGNAL", SIGPROF, 0, 0, SIGNAL_RANGE,
                       "the signal that the profiler uses, for a program that has SIGPROF itself"},
    [OPTION_TOGGLE] = {"PROFILE_TOGGLE", 0, 0, 0, SIGNAL_RANGE, "a signal that starts and stops sampling"},
    [OPTION_DUMP] = {"PROFILE_DUMP", 0, 0, 0, SIGNAL_RANGE, "a signal that prints all stacks"},
    [OPTION_INTERVAL] = {"PROFILE_INTERVAL", 0, 0, 0, "a time from " STILE__INTERVAL_RANGE,
                         "how long each file's part of the profile is"},
    [OPTION_BLOCK_RATE] = {"PROFILE_BLOCK_RATE", 10000, 0, STILE__BLOCK_RATE_MAX, NULL,
                           "nanoseconds waited for each wait recorded, on average; 1: all; 0: none"},
    [OPTION_CHILDREN] = {"PROFILE_CHILDREN", 1, 0, 1, NULL, "0: children are not profiled"},
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

/* A path as it was set, or a file name in the directory that it is. */
static int target_set(char *to, size_t size, const char *path, const char *in_directory)
{
    struct stat st;

    if (stile__options_is_profile(path))
        in_directory = "";
    else if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return -EINVAL;
    int n = snprintf(to, size, "%s%s", path, in_directory);
    return n >= (int)size ? -ENAMETOOLONG : 0;
}

int stile__options_profile_set(struct stile__options *o, const char *path)
{
    return target_set(o->profile, sizeof o->profile, path, "/%e.%p.pb.gz");
}

int stile__options_block_set(struct stile__options *o, const char *path)
{
    return target_set(o->block, sizeof o->block, path, "/%e.%p.block.pb.gz");
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

/* The number of the word that a variable says, as it was without the variable. list: the words, for people. */
static int word_read(const char *name, const char *const *words, unsigned n, const char *list,
                     unsigned *number)
{
    const char *text = secure_getenv(name);

    if (text == NULL)
        return 0;
    for (unsigned i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0) {
            *number = i;
            return 0;
        }
    stile__log("%s=%s is not %s; running without a profile", name, text, list);
    return -EINVAL;
}

static int clock_read(enum stile__clock_wish *wish)
{
    static const char *const words[] = {[STILE__CLOCK_WISH_AUTO] = "auto",
                                        [STILE__CLOCK_WISH_PERF] = "perf",
                                        [STILE__CLOCK_WISH_TIMER] = "timer"};
    unsigned number = STILE__CLOCK_WISH_AUTO;
    int err = word_read("PROFILE_CLOCK", words, sizeof words / sizeof *words, "auto, perf or timer", &number);
    *wish = (enum stile__clock_wish)number;
    return err;
}

static int barriers_read(enum stile__barriers_wish *wish)
{
    static const char *const words[STILE__BARRIERS_WISHES] = {[STILE__BARRIERS_OFF] = "off",
                                                              [STILE__BARRIERS_AUTO] = "auto",
                                                              [STILE__BARRIERS_ON] = "on",
                                                              [STILE__BARRIERS_ALL] = "all"};
    unsigned number = STILE__BARRIERS_AUTO;
    int err = word_read("PROFILE_BARRIERS", words, STILE__BARRIERS_WISHES, "off, auto, on or all", &number);
    *wish = (enum stile__barriers_wish)number;
    return err;
}

/* One line about a value that is not in its option's range. */
static int refuse(const struct option *opt, const char *text)
{
    stile__log("%s=%s is not %s (%s); running without a profile", opt->name, text, opt->range, opt->help);
    return -EINVAL;
}

static int signal_read(const struct option *opt, int *value)
{
    const char *text = secure_getenv(opt->name);
    char name[STILE__SIGNAL_NAME_MAX];

    *value = (int)opt->value;
    if (text == NULL)
        return 0;
    int signal = stile__signal_parse(text);
    if (signal < 0)
        return refuse(opt, text);
    /* Where it asks for stacks it does not end the program, as with Java and Go. */
    const bool quits = signal == SIGQUIT && opt == &table[OPTION_DUMP];
    if (!quits && !stile__signal_allowed(signal)) {
        stile__log("%s=%s: %s is not for a profiler to use; running without a profile", opt->name, text,
                   stile__signal_name(signal, name, sizeof name));
        return -EINVAL;
    }
    *value = signal;
    return 0;
}

int stile__options_interval_parse(const char *text, uint64_t *ns)
{
    static const struct {
        const char *suffix;
        uint64_t ns;
    } units[] = {
        {"", 1000000000u}, {"ms", 1000000u}, {"s", 1000000000u}, {"m", 60000000000u}, {"h", 3600000000000u}};
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (errno == 0 && strcmp(end, units[i].suffix) == 0 && n <= STILE__INTERVAL_NS_MAX / units[i].ns &&
            n * units[i].ns >= STILE__INTERVAL_NS_MIN) {
            *ns = n * units[i].ns;
            return 0;
        }
    return -EINVAL;
}

/* Into how many files, by what signals: what is more than a plain number. */
static int others_read(struct stile__options *o)
{
    const char *text = secure_getenv(table[OPTION_INTERVAL].name);
    int err = signal_read(&table[OPTION_SIGNAL], &o->signal);
    if (err == 0)
        err = signal_read(&table[OPTION_TOGGLE], &o->toggle);
    if (err == 0)
        err = signal_read(&table[OPTION_DUMP], &o->dump);
    if (err == 0 && o->dump != 0 && (o->dump == o->signal || o->dump == o->toggle)) {
        stile__log("PROFILE_DUMP and PROFILE_%s are the same signal; running without a profile",
                   o->dump == o->signal ? "SIGNAL" : "TOGGLE");
        err = -EINVAL;
    }
    if (err == 0 && o->toggle == o->signal) {
        stile__log("PROFILE_TOGGLE and PROFILE_SIGNAL are the same signal; running without a profile");
        err = -EINVAL;
    }
    if (err == 0 && o->toggle != 0 && o->profile[0] == '\0') {
        stile__log("PROFILE_TOGGLE goes with PROFILE, and not without it; running without a profile");
        err = -EINVAL;
    }
    o->interval_ns = 0;
    if (err == 0 && text != NULL && stile__options_interval_parse(text, &o->interval_ns) != 0)
        err = refuse(&table[OPTION_INTERVAL], text);
    return err;
}

/* Whether a variable names a file to be written: 1, 0 or -EINVAL after one line. set: stores it. others: another program may
 * use the variable for its own ends (PROFILE=release). */
static int target_read(struct stile__options *o, const char *name,
                       int (*set)(struct stile__options *, const char *), bool others)
{
    const char *path = secure_getenv(name);

    if (path == NULL || *path == '\0')
        return 0;
    int err = set(o, path);
    if (err == 0)
        return 1;
    if (err == -ENAMETOOLONG)
        stile__log("%s is longer than a path may be; running without a profile", name);
    else if (others)
        return 0;
    else
        stile__log("%s=%s does not end in .pb.gz or .pb and is no directory; running without a profile", name,
                   path);
    return -EINVAL;
}

/* PROFILE_CRASH=PATH or fd:N. What is wrong with it is said where it is opened: reports that go nowhere else still go to
 * descriptor 2. */
static int crash_read(struct stile__options *o)
{
    const char *text = secure_getenv("PROFILE_CRASH");
    char *end;

    o->crash[0] = '\0';
    o->crash_fd = -1;
    o->crashes = text != NULL && *text != '\0';
    if (!o->crashes)
        return 0;
    if (strncmp(text, "fd:", 3) != 0) {
        if (snprintf(o->crash, sizeof o->crash, "%s", text) < (int)sizeof o->crash)
            return 0;
        stile__log("PROFILE_CRASH is longer than a path may be; running without a profile");
        return -EINVAL;
    }
    errno = 0;
    const long n = strtol(text + 3, &end, 10);
    if (text[3] < '0' || text[3] > '9' || *end != '\0' || errno != 0 || n > INT_MAX) {
        stile__log("PROFILE_CRASH=%s is no file descriptor (fd:2) and no path; running without a profile",
                   text);
        return -EINVAL;
    }
    o->crash_fd = (int)n;
    return 0;
}

/* PROFILE, PROFILE_BLOCK, PROFILE_CRASH and PROFILE_DUMP: what is wanted. */
static int targets_read(struct stile__options *o)
{
    unsigned rate = 0;
    o->profile[0] = o->block[0] = '\0';
    int cpu = target_read(o, "PROFILE", stile__options_profile_set, true);
    int block = cpu < 0 ? cpu : target_read(o, "PROFILE_BLOCK", stile__options_block_set, false);
    if (block < 0)
        return block;
    if (block != 0 && number_read(&table[OPTION_BLOCK_RATE], &rate) != 0)
        return -EINVAL;
    o->block_rate_ns = rate;
    if (rate == 0)
        o->block[0] = '\0';
    else if (cpu != 0 && strcmp(o->profile, o->block) == 0) {
        stile__log("PROFILE and PROFILE_BLOCK name the same file; running without a profile");
        return -EINVAL;
    }
    if (crash_read(o) != 0)
        return -EINVAL;
    const char *dump = secure_getenv(table[OPTION_DUMP].name);
    return cpu != 0 || rate != 0 || o->crashes || (dump != NULL && *dump != '\0');
}

void stile__options_profiles_drop(struct stile__options *o)
{
    o->profile[0] = o->block[0] = '\0';
    o->toggle = 0;
    o->interval_ns = 0;
}

/* Whether this is the process that was asked to be profiled, or an image that it has exec'd, and no child. */
static bool is_root(const struct stile__options *o)
{
    const char *pid = strrchr(o->root, ':');
    return o->root[0] == '\0' || (pid != NULL && strtol(pid + 1, NULL, 10) == getpid());
}

int stile__options_read(struct stile__options *o)
{
    int wanted = targets_read(o);
    if (wanted <= 0)
        return wanted;
    int err = number_read(&table[OPTION_HZ], &o->hz);
    if (err == 0)
        err = clock_read(&o->clock);
    if (err == 0)
        err = others_read(o);
    if (err == 0)
        err = stile__options_surroundings(o);
    if (err == 0 && o->children == 0 && !is_root(o)) {
        stile__options_profiles_drop(o);
        return o->crashes || o->dump != 0;
    }
    return err != 0 ? err : 1;
}

/* traceadvanceperiod=NS: the length of a generation. */
static bool advance_read(const char *pair, size_t len, uint64_t *ns)
{
    static const char key[] = "traceadvanceperiod=";
    const size_t n = sizeof key - 1;
    char *end;
    if (len <= n || memcmp(pair, key, n) != 0 || pair[n] < '0' || pair[n] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(pair + n, &end, 10);
    if (errno != 0 || end != pair + len || value > STILE__ADVANCE_NS_MAX)
        return false;
    *ns = value;
    return true;
}

/* PROFILE_DEBUG: key=value pairs, separated by commas. */
static int debug_read(struct stile__options *o)
{
    static const struct {
        const char *pair;
        uint32_t bits;
    } known[] = {{"verifyunwind=0", 0},
                 {"verifyunwind=1", STILE__DEBUG_VERIFY},
                 {"verifyunwind=2", STILE__DEBUG_VERIFY | STILE__DEBUG_VERIFY_ALL},
                 {"walktime=0", 0},
                 {"walktime=1", STILE__DEBUG_WALK_TIME},
                 {"checkstackownership=0", 0},
                 {"checkstackownership=1", STILE__DEBUG_OWNERSHIP},
                 {"dontfreezetheworld=0", 0},
                 {"dontfreezetheworld=1", STILE__DEBUG_NO_FREEZE}};
    const char *text = secure_getenv("PROFILE_DEBUG");

    o->debug = 0;
    o->advance_ns = STILE__ADVANCE_NS;
    for (const char *at = text; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ","), i = 0, n = sizeof known / sizeof *known;
        while (i < n && (strlen(known[i].pair) != len || memcmp(known[i].pair, at, len) != 0))
            i++;
        if (i < n) {
            o->debug |= known[i].bits;
        } else if (!advance_read(at, len, &o->advance_ns)) {
            stile__log(
                "PROFILE_DEBUG=%s: %.*s is not verifyunwind=0, 1 or 2, walktime=0 or 1, "
                "checkstackownership=0 or 1, dontfreezetheworld=0 or 1, or traceadvanceperiod=NANOSECONDS; "
                "running without a profile",
                text, (int)len, at);
            return -EINVAL;
        }
        at += len + (at[len] == ',');
    }
    return 0;
}

int stile__options_surroundings(struct stile__options *o)
{
    int err = number_read(&table[OPTION_DEPTH], &o->depth);
    if (err == 0)
        err = debug_read(o);
    if (err == 0)
        err = barriers_read(&o->barriers);
    if (err == 0)
        err = number_read(&table[OPTION_CHILDREN], &o->children);
    if (err != 0)
        return err;
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
