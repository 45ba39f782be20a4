/* The public functions of stile.h. Normal context. */
#include "profiler/agent/stile.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "profiler/agent/init.h"
#include "profiler/agent/log.h"
#include "profiler/agent/options.h"
#include "profiler/agent/session.h"
#include "profiler/region/signal_name.h"

/* A caller of a later version may know more members than we do: they have to be zero. */
static int options_copy(const struct stile_profile_options *theirs, struct stile_profile_options *ours)
{
    if (theirs == NULL || theirs->size < sizeof theirs->size)
        return -EINVAL;
    memset(ours, 0, sizeof *ours);
    memcpy(ours, theirs, theirs->size < sizeof *ours ? theirs->size : sizeof *ours);
    for (size_t i = sizeof *ours; i < theirs->size; i++)
        if (((const char *)theirs)[i] != 0)
            return -EINVAL;
    return 0;
}

int stile_profile_start(const struct stile_profile_options *options)
{
    struct stile_profile_options given;
    struct stile__options o;
    int saved_errno = errno;

    int err = options_copy(options, &given);
    if (err != 0)
        return err;
    if (given.path == NULL || given.hz > STILE__HZ_MAX ||
        (given.signal != 0 && !stile__signal_allowed(given.signal)))
        return -EINVAL;
    memset(&o, 0, sizeof o);
    err = stile__options_surroundings(&o);
    if (err != 0)
        return err;
    o.hz = given.hz != 0 ? given.hz : 100;
    o.signal = given.signal != 0 ? given.signal : SIGPROF;
    err = stile__options_profile_set(&o, given.path);
    if (err == 0) {
        stile__log_init();
        stile__init_hooks();
        err = stile__session_start(&o, STILE__ORIGIN_API);
    }
    errno = saved_errno;
    return err;
}

int stile_profile_stop(void)
{
    return stile__session_stop();
}

int stile_profile_flush(void)
{
    return stile__session_flush();
}

int stile_crash_enable(void)
{
    int saved_errno = errno;
    stile__log_init();
    stile__init_hooks();
    const int err = stile__session_crashes();
    errno = saved_errno;
    return err;
}

const char *stile_version(void)
{
    return STILE_VERSION;
}
