/* Hook on dlclose: while a library goes, and until the collector knows of it, no unwind rule is used, since another
 * library may lie at its address at once. Loads need no hook: code without rules is what the
 * collector learns anyway. (dlopen's own, in barriers/unwind/caller_hooks.h, is for whose RUNPATH it searches.) What libc unloads by itself (iconv's and name services' modules)
 * the collector finds in the maps. Normal context. */
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>

#include "profiler/agent/hooks.h"
#include "profiler/agent/session.h"
#include "profiler/agent/stile.h"
#include "profiler/agent/terminate.h"
#include "profiler/agent/threads.h"
#include "profiler/region/raw_syscall.h"

static int unloads_read(struct dl_phdr_info *info, size_t size, void *to)
{
    (void)size;
    *(unsigned long long *)to = info->dlpi_subs;
    return 1; /* every module says the same */
}

static unsigned long long unloads_so_far(void)
{
    unsigned long long n = 0;
    dl_iterate_phdr(unloads_read, &n);
    return n;
}

/* Says that somebody is in dlclose, or is not any more. A destructor may fork, or stop and start a profile: the session
 * that is there at the end, with its region where the old one was perhaps, hears of the unload, too, but only the one that
 * heard of the beginning hears of the end. Returns when the session began, which no other did, or 0. */
static uint64_t closing_set(uint64_t told, bool begins, bool unloaded)
{
    struct stile__session *s = stile__session;
    struct stile__region *r = stile__session_enter(s, stile__thread_shard());
    if (r == NULL)
        return 0;
    if (s->pid != stile__raw_getpid()) {
        stile__session_leave(s, stile__thread_shard());
        return 0;
    }
    uint64_t session = r->start_mono_ns;
    uint32_t now = atomic_load_explicit(&r->unloads, memory_order_relaxed), next;
    do { /* release: whoever sees the library gone sees that rules are not to be used */
        next = unloaded ? now + STILE__UNLOADS_ONE : now;
        if (begins)
            next++;
        else if (session == told && now % STILE__UNLOADS_ONE != 0)
            next--;
    } while (!atomic_compare_exchange_weak_explicit(&r->unloads, &now, next, memory_order_acq_rel,
                                                    memory_order_relaxed));
    stile__session_leave(s, stile__thread_shard());
    return session;
}

STILE_EXPORT int dlclose(void *handle)
{
    static void *cache;
    int (*next)(void *) = (int (*)(void *))stile__hook_next(&cache, "dlclose");
    if (stile__session != NULL)
        stile__session_drain();
    uint64_t told = closing_set(0, true, false);
    unsigned long long before = told != 0 ? unloads_so_far() : 0;
    int err = next(handle);
    stile__terminate_unloaded();
    if (told != 0 || stile__session != NULL)
        closing_set(told, false, told == 0 || unloads_so_far() != before);
    return err;
}
