/* How exceptions, forced unwinds and foreign ones pass a stub. Normal context, on the unwinding thread.
 *
 * A stub and its caller share one CFA, and unwinders know the frame that catches by its CFA. So a stub has to take part:
 * it is a frame with a cleanup. In the search phase it lets pass. In the cleanup phase it marks its entry as hit and has
 * the unwinder jump to a landing, which puts the return address back and calls _Unwind_Resume as if the true caller had.
 * All by functions of the unwinder that asks, since a program may have several, and of which we must not link one. One that
 * cannot be named (hidden in a static library) gets no stub to see in its cleanup phase: in its search phase the thread's
 * barriers are all taken off the stack. */
#ifndef STILE_BARRIERS_UNWIND_PERSONALITY_H
#define STILE_BARRIERS_UNWIND_PERSONALITY_H

#include <stdint.h>
#include <unwind.h> /* types only */

/* The personality routine of the stubs' CFI (Itanium C++ ABI: Exception Handling, 1.6 and 2.5). */
_Unwind_Reason_Code stile__barrier_personality(int version, _Unwind_Action actions,
                                               _Unwind_Exception_Class exception_class,
                                               struct _Unwind_Exception *exception,
                                               struct _Unwind_Context *context);

/* Has the stubs' CFI name it, before the first barrier is placed. Until then unwinders find none there. */
void stile__barrier_personality_set(void);

/* After that: tests the unwinder that the program finds by name, if it has one. No barrier is placed in this process if it
 * does not pass. Others are tested when they first come to a barrier in search
 * of who catches; a forced unwind searches for nobody. */
void stile__barrier_unwinder_test(void);

/* In the child of a fork: no other thread is looking an unwinder's functions up any more. */
void stile__barrier_personality_forked(void);

#define STILE__LANDINGS      8u /* unwinders in one process that can be told apart */
#define STILE__LANDING_BYTES 16u

extern const char stile__landing_pool[]; /* code */
extern _Unwind_Personality_Fn stile__barrier_personality_at;
extern void (*stile__landing_resumes[STILE__LANDINGS])(struct _Unwind_Exception *);

#endif
