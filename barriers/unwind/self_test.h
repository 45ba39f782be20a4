/* Whether an unwinder passes a barrier: an exception that the frame directly above it catches, which is the hardest case since
 * both have one CFA, and a list of callers. Normal context; on a stub that is used for nothing else. */
#ifndef STILE_BARRIERS_UNWIND_SELF_TEST_H
#define STILE_BARRIERS_UNWIND_SELF_TEST_H

#include <stdbool.h>
#include <unwind.h> /* types only */

/* What one unwinder offers. */
struct stile__unwinder {
    _Unwind_Word (*get_ip)(struct _Unwind_Context *);
    void (*set_ip)(struct _Unwind_Context *, _Unwind_Word);
    void (*set_gr)(struct _Unwind_Context *, int, _Unwind_Word);
    _Unwind_Reason_Code (*raise)(struct _Unwind_Exception *);
    _Unwind_Reason_Code (*backtrace)(_Unwind_Trace_Fn, void *);
};

/* Some microseconds, with all signals blocked. Each keeps errno. Any number of threads at once, also within a personality
 * routine of the unwinder that is tested: the stub's personality routine knows it already. Only an unwinder that the program
 * raises exceptions by may be tested: of one that stands behind another, calls of its own may end there. */
bool stile__self_test_throw(const struct stile__unwinder *u);
bool stile__self_test_list(const struct stile__unwinder *u);

#endif
