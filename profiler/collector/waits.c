/* Waits become weight on stacks. Collector, normal context. Everything here comes from the program: it is copied, then
 * checked, then used. */
#include "profiler/collector/waits.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "barriers/ownership.h"
#include "profiler/collector/records.h"
#include "profiler/region/check.h"

#define SLACK_NS    1000000000u /* beyond what a record may stand for by chance */
#define CLOCK_NS    1000000000u /* between looks at the clocks of threads, */
#define CLOCK_SHARE 50u         /* which cost one part in so many at most */

const char *waits_init(struct process *p)
{
    struct waits *w = &p->waits;
    const struct stile__region *r = p->region;

    /* Read again from shared memory: checked again. */
    w->rate_ns = r->block_rate_ns;
    w->advance_ns = r->advance_ns;
    w->on = p->size.waits != 0 && w->rate_ns != 0;
    if (!w->on)
        return NULL;
    if (w->rate_ns > STILE__BLOCK_RATE_MAX || w->advance_ns > STILE__ADVANCE_NS_MAX)
        return "the region's rate of waits is out of range";
    w->alone = r->ticks_wanted == 0;
    uint64_t now = now_mono_ns();
    w->start_mono_ns = p->start_mono_ns < now ? p->start_mono_ns : now;
    w->next_ns = now + w->advance_ns;
    w->next_clock_ns = now + CLOCK_NS;
    return call_tree_init(&w->tree) != 0 ? "the collector has no memory" : NULL;
}

void waits_free(struct process *p)
{
    call_tree_free(&p->waits.tree);
}

bool waits_cut(struct process *p, struct process *piece)
{
    struct waits *w = &p->waits, fresh = {.on = w->on,
                                          .alone = w->alone,
                                          .rate_ns = w->rate_ns,
                                          .advance_ns = w->advance_ns,
                                          .start_mono_ns = w->start_mono_ns,
                                          .late = w->late,
                                          .next_ns = w->next_ns,
                                          .next_clock_ns = w->next_clock_ns};
    if (!w->on)
        return true;
    if (call_tree_init(&fresh.tree) != 0)
        return false;
    piece->waits = *w;
    *w = fresh;
    return true;
}

void waits_book(struct process *p, uint32_t thread, uint32_t node, enum stile__reason reason, uint32_t label,
                uint64_t n, uint64_t ns)
{
    struct waits *w = &p->waits;
    uint32_t why = label & (STILE__WAIT_WAKES - 1);

    if (n == 0 && ns == 0)
        return;
    call_tree_add(&w->tree, node, thread, label, n, ns);
    w->part_n[reason] += n;
    w->part_ns[reason] += ns;
    if ((label & STILE__WAIT_WAKES) != 0) {
        w->wakes += n;
        return;
    }
    w->n += n;
    w->ns += ns;
    w->reason_n[why] += n;
    w->reason_ns[why] += ns;
    if (why != STILE__WAIT_ELSEWHERE)
        p->threads[thread].waited_ns += ns;
}

/* Longer than this nobody can have waited. */
static uint64_t longest(const struct process *p, uint32_t thread)
{
    return now_mono_ns() - p->threads[thread].birth_ns + stile__wait_rate_max(p->waits.rate_ns) + SLACK_NS;
}

static bool reason_check(struct process *p, uint64_t why)
{
    if (why == STILE__WAIT_NONE || why >= STILE__WAIT_REASONS || why == STILE__WAIT_ELSEWHERE)
        p->damage = "a wait's reason is unknown";
    return p->damage == NULL;
}

/* What a record says of a wait, beside its stack. */
static bool words_check(struct process *p, uint32_t thread, const struct stile__record *r,
                        const struct stile__wait_words *w)
{
    bool wakes = (w->why & STILE__WAIT_WAKES) != 0;

    if (!p->waits.on)
        p->damage = "a record tells of a wait, and there is no blocking profile";
    else if (wakes && w->delay_ns != 0)
        p->damage = "who ends a wait waits for nothing";
    else if (!wakes && r->ticks > stile__wait_rate_max(p->waits.rate_ns) + 1)
        p->damage = "a record stands for more waits than there can be";
    else if (w->delay_ns > longest(p, thread))
        p->damage = "a wait took longer than there was time";
    return p->damage == NULL && reason_check(p, w->why & ~STILE__WAIT_WAKES);
}

void waits_record_add(struct process *p, uint32_t thread, const struct stile__record *r)
{
    struct stile__wait_words words;
    struct stack s;
    size_t at = r->n_inline + (r->kind == STILE__RECORD_WALKED ? 0 : STILE__REG_COUNT);

    memcpy(&words, r->words + at, sizeof words);
    if (!record_stack_copy(p, r, true, &s) || !words_check(p, thread, r, &words))
        return;
    uint32_t node = record_stack_node(p, r, &p->waits.tree, words.hook, &s);
    waits_book(p, thread, node, s.reason, (uint32_t)words.why, r->ticks, words.delay_ns);
    if (r->ticks > 1 || words.delay_ns == p->waits.rate_ns) /* else it is told as what it was */
        p->threads[thread].chance_ns2 += (double)words.delay_ns * (double)words.delay_ns;
}

void waits_lost_take(struct process *p, uint32_t thread, uint32_t i)
{
    const struct stile__slot *slot = stile__region_slot(p->region, i);
    struct slot_seen *seen = &p->slots[i];
    struct waits *w = &p->waits;
    uint64_t n = atomic_load_explicit(&slot->lost_waits, memory_order_relaxed);
    uint64_t ns = atomic_load_explicit(&slot->lost_delay_ns, memory_order_relaxed);
    uint64_t more = n - seen->lost_waits, more_ns = ns - seen->lost_delay_ns;

    uint64_t wakes = atomic_load_explicit(&slot->lost_wakes, memory_order_relaxed);
    w->lost_wakes += wakes - seen->lost_wakes; /* a count, and no more */
    seen->lost_wakes = wakes;
    seen->lost_waits = n;
    seen->lost_delay_ns = ns;
    if (more == 0 && more_ns == 0)
        return;
    /* Each may stand for others by chance; together they take no longer than the thread has lived, but for that. */
    if (more > UINT32_MAX || more_ns > 2 * longest(p, thread) + more * stile__wait_rate_max(w->rate_ns)) {
        p->damage = "waits took longer than there was time";
        return;
    }
    uint32_t node = call_tree_child(&w->tree, CALL_TREE_ROOT, CALL_TREE_REASON, STILE__REASON_BUFFER_FULL);
    waits_book(p, thread, node, STILE__REASON_BUFFER_FULL, 0, more, more_ns);
    p->threads[thread].chance_ns2 += (double)more_ns * (double)stile__wait_rate_max(w->rate_ns);
    w->lost += more;
    w->lost_ns += more_ns;
}

/* A wait that goes on, as its thread left it. */
struct open {
    uint64_t since_ns, told_ns, until_ns, hook;
    bool due;    /* to be booked */
    bool copied; /* its stack is not known from the last time: it is in `s` and `left` */
    struct stack s;
};
static union record_copy left;

static uint64_t word(const uint64_t *at)
{
    return *(const volatile uint64_t *)at;
}

/* Both sides of a violation, and the end of the program that it is in. */
static void violated(struct process *p, const struct stile__slot *slot, uint64_t status, const char *more)
{
    static const char *const states[] = {"none", "running", "waiting", "dead"};
    unsigned state = stile__stack_state(status);
    bool waits = state == STILE__STACK_WAITING;
    snprintf(p->damage_text, sizeof p->damage_text,
             "stack ownership violated: the collector reads what thread %u left, which is %s%s%s%s%s",
             atomic_load_explicit(&slot->tid, memory_order_relaxed), state < 4 ? states[state] : "unknown",
             waits ? ", reason " : "", waits ? stile__wait_reason_name(stile__stack_reason(status)) : "",
             (status & STILE__STACK_SCAN) != 0 ? ", with a reader" : ", without a reader", more);
    p->damage = p->damage_text;
    syscall(SYS_pidfd_send_signal, p->pidfd, SIGABRT, NULL, 0);
}

/* A thread that has waited for its reader long enough takes the word by force, and counts on: that is no violation, and what
 * was read is void. */
bool waits_owned(struct process *p, const struct stile__slot *slot, uint64_t seen,
                 const struct stile__left *page)
{
    if ((p->debug & STILE__DEBUG_OWNERSHIP) == 0)
        return true;
    p->waits.checks++;
    uint64_t now = atomic_load_explicit(&slot->status, memory_order_seq_cst);
    if (now >> STILE__STACK_SCANS_SHIFT != seen >> STILE__STACK_SCANS_SHIFT) {
        p->waits.broken++;
        return false;
    }
    if (now != seen || (now & STILE__STACK_SCAN) == 0 || stile__stack_state(now) != STILE__STACK_WAITING ||
        stile__wait_executes(stile__stack_reason(now))) {
        violated(p, slot, now, "");
        return false;
    }
    const uint64_t since_ns = word(&page->since_ns); /* before the clock is read */
    if (since_ns > now_mono_ns()) {
        violated(p, slot, now, "; its wait begins later than now");
        return false;
    }
    return true;
}

static bool times_check(struct process *p, const struct open *o)
{
    if (o->since_ns > o->until_ns || o->since_ns + SLACK_NS < p->waits.start_mono_ns)
        p->damage = "a wait began when it cannot have";
    else if (o->told_ns != 0 && (o->told_ns < o->since_ns || o->told_ns > o->until_ns))
        p->damage = "a wait was told up to when it cannot have been";
    return p->damage == NULL;
}

/* The record in a page, whose blocks stay the thread's. False: not now. */
static bool left_copy(struct process *p, const struct stile__left *page, struct open *o)
{
    record_copy(&left, &page->record, STILE__LEFT_CELLS);
    p->damage = stile__record_check(&left.record, STILE__LEFT_CELLS, p->size.block_max);
    if (p->damage == NULL &&
        (left.record.kind == STILE__RECORD_PAD || (left.record.flags & STILE__IS_WAIT) == 0))
        p->damage = "what a waiting thread left is no wait";
    if (p->damage != NULL || (p->toggles && left.record.piece != p->piece))
        return false;
    o->copied = !process_maps_wait(p, &left.record) && record_stack_copy(p, &left.record, false, &o->s);
    return o->copied;
}

/* Whether it is the wait that was looked at last, so that its stack is known. */
static bool open_known(const struct process *p, uint32_t i, const struct open *o, uint64_t seen)
{
    const struct slot_seen *s = &p->slots[i];
    return s->open.known && s->open.since_ns == o->since_ns && s->open.cuts == p->cuts &&
           s->open.number == stile__stack_number(seen) && s->open.label == stile__stack_reason(seen);
}

/* Reads what is due, under the scan bit. */
static void open_read(struct process *p, uint32_t i, uint64_t seen, const struct stile__left *page,
                      struct open *o)
{
    o->since_ns = word(&page->since_ns);
    o->told_ns = word(&page->told_ns[stile__stack_side(seen)]);
    o->hook = word(&page->hook);
    o->until_ns = now_mono_ns();
    if (!times_check(p, o) || !reason_check(p, stile__stack_reason(seen)))
        return;
    if (o->until_ns - o->since_ns >= p->waits.rate_ns) /* one that long is always recorded */
        o->due = open_known(p, i, o, seen) || left_copy(p, page, o);
}

static void open_book(struct process *p, uint32_t thread, uint32_t i, uint64_t seen, struct open *o)
{
    struct slot_seen *s = &p->slots[i];
    enum stile__reason reason = STILE__REASON_NONE;

    if (o->copied) {
        s->open.node = record_stack_node(p, &left.record, &p->waits.tree, o->hook, &o->s);
        s->open.since_ns = o->since_ns;
        s->open.number = stile__stack_number(seen);
        s->open.label = stile__stack_reason(seen);
        s->open.reason = (uint8_t)o->s.reason;
        s->open.cuts = p->cuts;
        s->open.known = true;
    }
    reason = s->open.reason;
    uint64_t from = o->told_ns != 0 ? o->told_ns : o->since_ns;
    waits_book(p, thread, s->open.node, reason, s->open.label, o->told_ns == 0, o->until_ns - from);
    p->waits.open++;
}

void waits_left_read(struct process *p, uint32_t i, uint64_t seen)
{
    struct stile__slot *slot = stile__region_slot(p->region, i);
    struct stile__left *page = stile__region_left(p->region, p->size, i);
    uint32_t thread = process_thread_of(p, i);
    struct open o = {0};

    if (!waits_owned(p, slot, seen, page))
        return;
    if (thread != UINT32_MAX)
        open_read(p, i, seen, page, &o);
    *(volatile uint64_t *)&page->told_ns[!stile__stack_side(seen)] =
        o.due ? o.until_ns : word(&page->told_ns[stile__stack_side(seen)]);
    if (!stile__scan_end(&slot->status, seen)) {
        p->waits.broken++;
        p->damage = NULL; /* what was read is void, and may be half of one wait and half of the next */
        return;
    }
    if (o.due && p->damage == NULL)
        open_book(p, thread, i, seen, &o);
}

static void slot_look(struct process *p, uint32_t i, bool clocks)
{
    struct stile__slot *slot = stile__region_slot(p->region, i);
    uint32_t thread;
    uint64_t seen;

    if (atomic_load_explicit(&slot->state, memory_order_acquire) != STILE__SLOT_LIVE ||
        (thread = process_thread_of(p, i)) == UINT32_MAX)
        return;
    if (!p->foreign_clock && stile__scan_begin(&slot->status, &seen) == STILE__SCAN_TAKEN)
        waits_left_read(p, i, seen);
    if (clocks && !p->foreign_clock && p->damage == NULL)
        elsewhere_look(p, thread, slot);
}

/* What ended before a thread's clock was read may still lie in its ring: that first, or it would be waiting elsewhere. */
static void elsewhere_settle(struct process *p, uint32_t used, bool now)
{
    process_drain(p);
    for (uint32_t i = 0; i < used && p->damage == NULL; i++) {
        if (p->slots[i].thread == 0)
            continue;
        elsewhere_looked(p, p->slots[i].thread - 1);
        if (now)
            elsewhere_book(p, p->slots[i].thread - 1);
    }
}

void waits_look(struct process *p, bool now)
{
    struct waits *w = &p->waits;
    uint64_t ns = now_mono_ns();

    if (!w->on || p->damage != NULL || p->slots == NULL)
        return;
    /* What goes on is booked before a clock is read: else it would be waiting elsewhere. */
    bool clocks = !p->toggles && (now || ns >= w->next_clock_ns);
    if (!now && !clocks && w->advance_ns != 0 && ns < w->next_ns)
        return;
    w->next_ns = ns + w->advance_ns;
    w->generations++;
    uint32_t used = atomic_load_explicit(&p->region->slots_used, memory_order_acquire);
    if (used > p->size.slot_max)
        p->damage = "more thread slots are in use than there are";
    for (uint32_t i = 0; i < used && p->damage == NULL; i++)
        slot_look(p, i, clocks);
    uint64_t cost = now_mono_ns() - ns;
    if (clocks)
        w->next_clock_ns = ns + (cost * CLOCK_SHARE > CLOCK_NS ? cost * CLOCK_SHARE : CLOCK_NS);
    if (clocks)
        elsewhere_settle(p, used, now);
}
