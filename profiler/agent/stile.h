/* Stile: a sampling CPU profiler for native Linux programs.
 *
 * Setting PROFILE=out.pb.gz in the environment is enough for a program that is linked with libstile or runs with it
 * preloaded; these functions are for programs that decide themselves when to profile. All of them return 0 or a
 * negative errno value and leave errno alone. None is async-signal-safe but those that say so; all may be called from any
 * thread. */
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

/* Sends crash reports to a duplicate of fd, too, besides standard error; -1: to standard error only. What else the program
 * writes to standard error never goes there. The duplicate is close-on-exec, so that the reader of a pipe sees its end, and
 * shares the file's offset and flags with fd, which the caller may close at once. The output is there whether or not reports
 * are enabled yet; a forked child has it, too; a program that is executed does not. It replaces the one of PROFILE_CRASH and of
 * earlier calls, which is closed. A report that has begun before this returns may go to the earlier one still, even after
 * the call has returned; a report is whole in one of them.
 * Returns 0; -EBADF if fd is not open, or -EMFILE if the process may have no more descriptors: the earlier output stays;
 * -EBUSY while a crash is being reported: nothing is changed. Async-signal-safe. */
STILE_EXPORT int stile_crash_output_set(int fd);

/* Reports crashes from now on: on SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP and SIGSYS the signal, the registers and the
 * stacks of all threads go to descriptor 2 and to the crash output, then happens what would have happened: the program's own handler
 * or the default action. Starts the collector process, which names the frames, if none runs yet. Threads that are there already
 * have no alternate stack of ours, so that their stack overflows are not reported; the caller gets one.
 * Returns 0, also if they are reported already; another -errno if the handlers cannot be installed. Without a collector reports
 * have no names (see stile symbolize). */
STILE_EXPORT int stile_crash_enable(void);

/* The version of the library, for example "0.1.0"; constant text. Async-signal-safe. */
STILE_EXPORT const char *stile_version(void);

#ifdef __cplusplus
}
#endif

#endif
