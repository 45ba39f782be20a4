/* What the collector answers. Runs in the handlers of crashes and of dumps. */
#include "profiler/agent/crash/answer.h"

#include "profiler/agent/crash/output.h"
#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define STEP_NS     2000000u
#define STEPS_MAX   2500u /* five seconds for all of it, */
#define BEGIN_STEPS 1500u /* three until it begins, */
#define STALL_STEPS 750u  /* one and a half without a sign of life or a word more */

static void say(const char *line)
{
    size_t n = 0;
    while (line[n] != '\0')
        n++;
    stile__crash_output_write_back(line, n);
}

/* Copies what has come since. Returns whether that is all there will be. */
static bool copy(const struct stile__session *s, struct stile__region *r, uint32_t asked, uint32_t *copied)
{
    const uint32_t answer = atomic_load_explicit(&r->answer, memory_order_acquire);
    if ((answer & ~STILE__ANSWER_DONE) != asked)
        return false;
    const uint32_t len = atomic_load_explicit(&r->answer_len, memory_order_acquire);
    const char *area = stile__region_answer(r, s->size);
    while (*copied < len && len <= s->size.report) {
        const uint32_t n = len - *copied < STILE__TEXT_PART ? len - *copied : STILE__TEXT_PART;
        stile__crash_output_write_back(area + *copied, n);
        *copied += n;
    }
    return (answer & STILE__ANSWER_DONE) != 0;
}

void stile__answer_copy(const struct stile__session *s, struct stile__region *r, uint32_t asked)
{
    uint32_t copied = 0, beat = 0, stalled = 0, begun = 0;

    if (r == NULL || s->size.report == 0) {
        say("stile: no collector names this; see stile symbolize\n");
        return;
    }
    for (unsigned step = 0; step < STEPS_MAX && stalled < STALL_STEPS && (begun || step < BEGIN_STEPS);
         step++) {
        const uint32_t before = copied, b = atomic_load_explicit(&r->heartbeat, memory_order_relaxed);
        if (copy(s, r, asked, &copied))
            return;
        begun |= copied;
        stalled = copied != before || b != beat ? 0 : stalled + 1;
        beat = b;
        stile__raw_sleep_ns(STEP_NS);
    }
    say("stile: the collector did not name this in time; see stile symbolize\n");
}
