/* The way in and the way out: the library's constructor and destructor, in normal context. With PROFILE unset the
 * constructor reads the environment and does nothing else. */
#include "profiler/agent/init.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "barriers/unwind/caller_hooks.h"
#include "profiler/agent/greeting.h"
#include "profiler/agent/log.h"
#include "profiler/agent/options.h"
#include "profiler/agent/session.h"
#include "profiler/agent/threads.h"

/* Defined by the `stile` executable alone: the profiler's own processes are never profiled by it. */
extern const char stile__refuses_profiling __attribute__((weak, visibility("default")));

void stile__init_hooks(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    pthread_atfork(stile__session_fork_prepare, stile__session_fork_parent, stile__session_fork_child);
    at_quick_exit(stile__session_exit); /* registered first, so it runs last */
}

#define ENTRY_FRAME 64u /* more than _start pushes before it calls libc */

/* The main thread's stack ends where the kernel put the arguments; it begins as far below as the limit allows. */
static void main_stack_set(char **argv)
{
    struct rlimit limit;
    uintptr_t size = 8u << 20;
    if (getrlimit(RLIMIT_STACK, &limit) == 0)
        size = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > (1u << 30) ? 1u << 30 : limit.rlim_cur;
    stile__thread.stack.hi = (uintptr_t)argv;
    stile__thread.stack.lo = stile__thread.stack.hi > size ? stile__thread.stack.hi - size : 0;
    stile__thread.stack_root = stile__thread.stack.hi - ENTRY_FRAME;
}

__attribute__((constructor)) static void library_loaded(int argc, char **argv, char **envp)
{
    static struct stile__options options;
    (void)envp;

    if (&stile__refuses_profiling != NULL)
        return;
    stile__caller_nexts_find();
    if (getpid() == gettid())
        main_stack_set(argv);
    stile__greeting_init(argc, argv);
    stile__log_init();
    if (stile__options_read(&options) != 1)
        return;
    stile__init_hooks();
    stile__session_start(&options, STILE__ORIGIN_START);
}

__attribute__((destructor)) static void library_unloaded(void)
{
    stile__session_exit();
}
