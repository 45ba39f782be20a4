/* A wait's record: what the thread leaves, and what it tells when the wait is over. Runs in the signal handler, and in normal
 * context with all signals blocked: the ring has one producer, which is the thread with its handlers. */
#ifndef STILE_AGENT_SIGNAL_WAITS_H
#define STILE_AGENT_SIGNAL_WAITS_H

#include "profiler/agent/signal/handler.h"

/* Whether a wait of this length is recorded. With a rate of so many nanoseconds those that are longer count as what they
 * are; of the shorter ones as many are recorded as make the rate, by chance, and each stands for as many as it takes: sums are
 * unbiased. (As Go's runtime has done since 1.17.) */
bool stile__wait_kept(struct stile__thread *t, uint64_t rate_ns, uint64_t delay_ns);

/* How many waits one that is recorded stands for, and what delay. */
uint32_t stile__wait_weight(struct stile__thread *t, uint64_t rate_ns, uint64_t delay_ns,
                            uint64_t *booked_ns);

/* Walks the calling thread's stack, whose lock is held, into its page. */
void stile__left_fill(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const void *hook);

/* Then, when the wait begins. */
void stile__left_since(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                       uint64_t since_ns);

/* Nothing was left yet: the slot is new. */
void stile__left_init(struct stile__session *s, struct stile__region *r, uint32_t i);

/* Of a wait that is over, as the thread owns its stack again: what was left goes into the ring, if it is to be recorded, or is
 * dropped. was: its status in the last moment of the wait. */
void stile__left_tell(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      uint64_t was, uint64_t until_ns);

/* Drops what was left: it was no wait. */
void stile__left_drop(struct stile__session *s, struct stile__region *r, struct stile__thread *t);

/* Tells of something that is over and was not announced, and has been drawn, with the stack as it is now. why: as in
 * stile__wait_words; delay_ns: that it took, also of a wake-up, which is drawn like a wait of that length and has none. */
void stile__wait_tell(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      const struct stile__place *at, const void *hook, uint64_t why, uint64_t delay_ns);

/* The thread may have left its wait without coming back from it. If it surely has, ends that: true if there is no wait under
 * way any more. rsp: where it is. Does not wait if a reader is in the way. */
bool stile__wait_look(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                      uint64_t rsp);

/* Whether a walk from here meets a signal's frame: the thread may be in a handler inside its wait. Where rules are missing it is
 * taken to have left that: then the rest of the outer wait is not told, where otherwise no wait would be any more. */
bool stile__stack_in_handler(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                             const struct stile__place *at);

#endif
