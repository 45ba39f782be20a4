/* Stile: a sampling CPU profiler for native Linux programs.
 *
 * Setting PROFILE=out.pb.gz in the environment is enough for a program that is linked with libstile or runs with it
 * preloaded; these functions are for programs that decide themselves when to profile. All of them return 0 or a
 * negative errno value and leave errno alone. None is async-signal-safe; all may be called from any thread. */
#ifndef STILE_H
#define STILE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#    define STILE_EXPORT __attribute__((visibility("default")))
#else
#    define STILE_EXPORT
#endif

/* What to profile, and where to. Set size to sizeof(struct stile_profile_options) and the rest to zero for the
 * defaults; later versions only add members at the end. */
struct stile_profile_options {
    size_t size; /* bytes of this structure as the caller knows it */
    const char
        *path; /* file to write, ending in .pb.gz or .pb, or a directory; %p pid, %e program, %t unix time */
    unsigned hz; /* samples per second of CPU time of each thread, 1 to 20000; 0: 100 */
    int signal;  /* that the clocks deliver, for a program that handles SIGPROF itself; 0: SIGPROF */
};

/* Starts sampling every thread of the process, those that exist and those that come. Starts the collector process.
 * The strings are copied.
 * Returns 0; -EALREADY if a profile is running already (it goes on); -EINVAL for options that are out of range, a
 * path that does not end in .pb.gz or .pb, or a structure larger than this version knows with members set;
 * -EBUSY if the program handles that signal itself; another -errno if the file cannot be written there (-EACCES,
 * -EISDIR, ...) or the collector cannot be started (-ENOENT, -EMFILE, ...). */
STILE_EXPORT int stile_profile_start(const struct stile_profile_options *options);

/* Stops sampling and waits until the profile is a complete file, ten seconds at most.
 * Returns 0; -ESRCH if no profile is running; -ETIMEDOUT if the collector goes on writing; -EPIPE if it is gone;
 * another -errno if the file could not be written (-ENOSPC, -EACCES, ...). */
STILE_EXPORT int stile_profile_stop(void);

/* Writes what has been sampled so far to the file, waits for it as stile_profile_stop does, and goes on sampling;
 * the next write replaces it. With PROFILE_INTERVAL or PROFILE_TOGGLE that is the next numbered file, and nothing while a
 * toggle is off. Returns as stile_profile_stop. */
STILE_EXPORT int stile_profile_flush(void);

/* The version of the library, for example "0.1.0"; constant text. Async-signal-safe. */
STILE_EXPORT const char *stile_version(void);

#ifdef __cplusplus
}
#endif

#endif
