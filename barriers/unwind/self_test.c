/* One exception and one list of callers, through a barrier. */
#include "barriers/unwind/self_test.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>

#include "barriers/stub.h"
#include "profiler/region/raw_syscall.h"

#define CLASS      0x5354494c45545354u /* "STILETST" */
#define FRAMES_MAX 8u

/* The assembly. All that it writes in common is the stub's entry: always the same. */
enum { RETURNED, LANDED, BROKEN };
int stile__self_test_call(void *fn, void *a, void *b);
extern const char stile__self_test_returned[], stile__self_test_landing[];
_Unwind_Reason_Code stile__self_test_personality(int version, _Unwind_Action actions,
                                                 _Unwind_Exception_Class exception_class,
                                                 struct _Unwind_Exception *exception,
                                                 struct _Unwind_Context *context);

struct thrown {
    struct _Unwind_Exception exception; /* first */
    const struct stile__unwinder *u;
    unsigned searched, caught; /* how often the frame above was asked */
};

/* Of the frame above the barrier. */
_Unwind_Reason_Code stile__self_test_personality(int version, _Unwind_Action actions,
                                                 _Unwind_Exception_Class exception_class,
                                                 struct _Unwind_Exception *exception,
                                                 struct _Unwind_Context *context)
{
    struct thrown *t = (struct thrown *)exception;
    (void)version;
    if (exception_class != CLASS)
        return _URC_CONTINUE_UNWIND;
    if ((actions & _UA_SEARCH_PHASE) != 0) {
        t->searched++;
        return _URC_HANDLER_FOUND;
    }
    if ((actions & _UA_HANDLER_FRAME) == 0)
        return _URC_CONTINUE_UNWIND;
    t->caught++;
    t->u->set_ip(context, (_Unwind_Word)(uintptr_t)stile__self_test_landing);
    return _URC_INSTALL_CONTEXT;
}

static int call(void *fn, void *a, void *b)
{
    const int saved_errno = errno;
    const uint64_t mask = stile__raw_sigmask(SIG_BLOCK, ~0ull);
    const int how = stile__self_test_call(fn, a, b);
    stile__raw_sigmask(SIG_SETMASK, mask);
    errno = saved_errno;
    return how;
}

bool stile__self_test_throw(const struct stile__unwinder *u)
{
    struct thrown t = {.exception.exception_class = CLASS, .u = u};
    return call((void *)u->raise, &t, NULL) == LANDED && t.searched == 1 && t.caught == 1;
}

struct listed {
    const struct stile__unwinder *u;
    unsigned frames;
    bool stub, above; /* seen, one right after the other */
};

static _Unwind_Reason_Code list(struct _Unwind_Context *context, void *arg)
{
    struct listed *l = arg;
    const uintptr_t ip = l->u->get_ip(context);
    if (l->stub) {
        l->above = ip == (uintptr_t)stile__self_test_returned;
        return _URC_END_OF_STACK;
    }
    l->stub = ip == stile__stub_address(STILE__STUB_SELF_TEST);
    return ++l->frames < FRAMES_MAX ? _URC_NO_REASON : _URC_END_OF_STACK;
}

bool stile__self_test_list(const struct stile__unwinder *u)
{
    struct listed l = {.u = u};
    return call((void *)u->backtrace, (void *)list, &l) == RETURNED && l.stub && l.above;
}
