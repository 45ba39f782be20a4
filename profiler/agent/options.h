/* What the user asked for: the environment's PROFILE variables, or stile_profile_start's options. */
#ifndef STILE_AGENT_OPTIONS_H
#define STILE_AGENT_OPTIONS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "profiler/region/layout.h"

#define STILE__HZ_MAX 20000

enum stile__clock_wish {
    STILE__CLOCK_WISH_AUTO, /* perf above the kernel's tick rate, a timer below */
    STILE__CLOCK_WISH_PERF, /* perf at any rate */
    STILE__CLOCK_WISH_TIMER /* never perf */
};

struct stile__options {
    char profile[PATH_MAX];   /* PROFILE as it was set, a directory made to a file name in it; "" for none */
    char block[PATH_MAX];     /* PROFILE_BLOCK, the same */
    char crash[PATH_MAX];     /* PROFILE_CRASH as it was set; "" for none, or a descriptor */
    char collector[PATH_MAX]; /* PROFILE_COLLECTOR; "" to look beside libstile.so */
    char root[128];           /* STILE_ROOT; "" if no ancestor is profiled */
    unsigned hz;
    enum stile__clock_wish clock;
    int signal;             /* that the clocks deliver */
    bool crashes;           /* are reported */
    unsigned children;      /* 0: they are not profiled */
    int crash_fd;           /* PROFILE_CRASH=fd:N; -1: none */
    int dump;               /* signal that asks for all stacks; 0: none */
    int toggle;             /* that starts and stops the clocks; 0: they always run */
    uint64_t interval_ns;   /* a file each; 0: one at the end */
    uint32_t depth;         /* frames of a sample at most */
    uint32_t debug;         /* STILE__DEBUG bits */
    uint64_t block_rate_ns; /* a wait per so much time waited; 0: none */
    uint64_t advance_ns;    /* PROFILE_DEBUG=traceadvanceperiod */
    enum stile__barriers_wish barriers;
};

/* What PROFILE_INTERVAL may say: 60, 500ms, 10s, 5m, 1h. Sets *ns. Returns 0 or -EINVAL. */
int stile__options_interval_parse(const char *text, uint64_t *ns);
#define STILE__INTERVAL_RANGE "100ms to 720h"

/* No profiles: what is left are crash reports and dumps, if they are wanted. */
void stile__options_profiles_drop(struct stile__options *o);

/* Reads the environment once (secure_getenv: nothing under AT_SECURE). Normal context. Returns 1 if a profile is
 * asked for; 0 if not, or if PROFILE is set for somebody else's purpose; -EINVAL after one line about a bad value. */
int stile__options_read(struct stile__options *o);

/* Reads what holds for profiles that the program starts itself, too: where the collector is, how deep a sample may be,
 * what is checked, where barriers stand. Normal context. Returns 0 or -EINVAL after one line. */
int stile__options_surroundings(struct stile__options *o);

/* Whether a path names a profile: ends in .pb or .pb.gz. */
bool stile__options_is_profile(const char *path);

/* Sets o->profile from a path, appending a file name to a directory. Returns 0, -EINVAL if it is neither, or
 * -ENAMETOOLONG. */
int stile__options_profile_set(struct stile__options *o, const char *path);

/* The same for o->block. */
int stile__options_block_set(struct stile__options *o, const char *path);

#endif
