/* The signal that asks for all stacks (PROFILE_DUMP): the collector takes them, and this thread writes them to descriptor 2. In the
 * handler of that signal, with all signals blocked; bounded. */
#include "profiler/agent/crash/answer.h"
#include "profiler/agent/crash/crash.h"
#include "profiler/agent/crash/output.h"
#include "profiler/agent/signal/handler.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

void stile__handle_dump(int signal, siginfo_t *info, void *context)
{
    struct stile__session *s = stile__session;
    const uint32_t shard = stile__thread_shard();
    struct stile__region *r = stile__session_enter(s, shard);
    struct stile__place at;
    uint32_t none = 0;
    (void)signal;
    (void)info;

    if (r == NULL)
        return;
    stile__place_of(context, &at);
    /* One at a time: who asks twice gets one answer. A crash that comes meanwhile waits until this is over. */
    if (stile__raw_getpid() == s->pid &&
        atomic_compare_exchange_strong_explicit(&stile__crash.reporter, &none, stile__raw_gettid(),
                                                memory_order_acq_rel, memory_order_relaxed)) {
        stile__dump_self(s, r, &at);
        atomic_store_explicit(&r->dump_tid, stile__raw_gettid(), memory_order_relaxed);
        const uint32_t request = atomic_fetch_add_explicit(&r->dump_request, 1, memory_order_release) + 1;
        stile__crash_output_begin(r, false);
        stile__answer_copy(s, r, stile__answer_of(request));
        stile__crash_output_end();
        atomic_store_explicit(&stile__crash.reporter, 0, memory_order_release);
    }
    stile__session_leave(s, shard);
}
