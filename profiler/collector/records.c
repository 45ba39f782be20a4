/* A record becomes weight on a stack of the call tree. Collector, normal context. What a record says was checked, what lies in
 * its blocks was not: both come from the program. */
#include "profiler/collector/records.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMES_MAX (STILE__SNAPSHOT_MAX / 8) /* of a snapshot: a return address each */
#define SLACK_NS   1000000000u

static const char no_memory[] = "the collector has no memory";

/* Gathers a chain of blocks, and gives them back unless they are still the thread's. Bounded whatever the links say. Returns
 * the bytes gathered. */
static size_t blocks_take(struct process *p, uint32_t first, uint8_t *to, size_t len, bool give_back)
{
    size_t have = 0;
    uint32_t i = first;
    for (size_t n = 0; n <= len / STILE__BLOCK_DATA + 1 && i < p->size.block_max; n++) {
        /* Read once: the program may write what it likes between two reads. */
        const volatile struct stile__block *b = stile__region_block(p->region, p->size, i);
        const uint64_t bit = 1ull << i % 64;
        if ((atomic_load_explicit(&p->region->blocks_used[i / 64], memory_order_relaxed) & bit) == 0)
            break; /* a chain that the handler made has no free block: it goes round in a circle */
        uint32_t next = b->next, used = b->used;
        if (used > STILE__BLOCK_DATA)
            used = STILE__BLOCK_DATA;
        if (used > len - have)
            used = (uint32_t)(len - have);
        memcpy(to + have, (const void *)b->data, used);
        have += used;
        /* Release pairs with stile__block_take's acquire: we have read it. */
        if (give_back)
            atomic_fetch_and_explicit(&p->region->blocks_used[i / 64], ~bit, memory_order_release);
        i = next;
    }
    return have;
}

void record_copy(union record_copy *c, const void *from, uint64_t room)
{
    uint64_t cells = ((const volatile struct stile__record *)from)->cells;
    memcpy(c->bytes, from, (cells == 0 || cells > room ? room : cells) * STILE__CELL_BYTES);
    if (cells != c->record.cells) /* changed in between: the copy has what it has */
        c->record.cells = 0;
}

/* Since its clock was read, on all processors: a process that is gone cannot be asked any more. Ticks may come before the
 * time that they stand for: a period for each thread, and what the machine adds. */
static bool more_than_there_is(struct process *p, uint64_t ns)
{
    static uint64_t processors;
    if (processors == 0)
        processors = (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
    uint64_t booked = p->cpu_ns + p->cut_cpu_ns + ns, threads = p->n_threads + 1;
    uint64_t used = p->used_cpu_ns > p->start_cpu_ns ? p->used_cpu_ns - p->start_cpu_ns : p->used_cpu_ns;
    used += (now_mono_ns() - p->used_read_ns) * processors;
    if (p->used_cpu_ns == 0 || booked <= used + used / 4 + 2 * threads * p->period_ns + SLACK_NS)
        return false;
    p->damage = "it tells of more CPU time than the process has used";
    return true;
}

static void weight_add(struct process *p, uint32_t thread, uint32_t node, enum stile__reason reason,
                       bool in_kernel, uint64_t ticks, uint64_t ns)
{
    if (in_kernel) {
        node = call_tree_child(&p->tree, node, CALL_TREE_KERNEL, 0);
        p->kernel_ns += ns;
    }
    call_tree_add(&p->tree, node, thread, 0, ticks, ns);
    p->threads[thread].booked_ns += ns;
    p->ticks += ticks;
    p->cpu_ns += ns;
    p->reason_ticks[reason] += ticks;
    p->reason_ns[reason] += ns;
}

static uint32_t reason_node(struct call_tree *t, enum stile__reason reason)
{
    return reason == STILE__REASON_NONE ? CALL_TREE_ROOT
                                        : call_tree_child(t, CALL_TREE_ROOT, CALL_TREE_REASON, reason);
}

/* The node of frames, leaf first, below a node. */
static uint32_t frames_below(const struct process *p, struct call_tree *t, uint32_t node,
                             const uint64_t *leaf_first, size_t n)
{
    for (size_t i = n; i-- > 0;)
        node = call_tree_child(t, node, mappings_find_ever(&p->mappings, leaf_first[i]), leaf_first[i]);
    return node;
}

void process_stack_add(struct process *p, uint32_t thread, const uint64_t *stack, size_t n,
                       enum stile__reason reason, bool in_kernel, uint64_t ticks, uint64_t ns)
{
    if (more_than_there_is(p, ns))
        return;
    uint32_t node = frames_below(p, &p->tree, reason_node(&p->tree, reason), stack, n);
    weight_add(p, thread, node, reason, in_kernel, ticks, ns);
}

/* A snapshot that was cut may still reach the outermost frame; if it does not, the cut is why. What the agent knew
 * before the walk is so whatever the walk finds. */
static enum stile__reason reason_of(enum stile__reason agent, enum stile__reason walk)
{
    if (agent == STILE__REASON_SIGNAL_BLOCKED)
        return agent;
    return walk == STILE__REASON_NONE || agent == STILE__REASON_NONE ? walk : agent;
}

/* The frames of a record being added; grows. */
static uint64_t *frames;
static size_t frames_cap;

static bool frames_room(size_t n)
{
    if (n <= frames_cap)
        return true;
    uint64_t *more = realloc(frames, n * sizeof *frames);
    if (more == NULL)
        return false;
    frames = more;
    frames_cap = n;
    return true;
}

/* The frames that a record lists. Returns how many it has really. */
static size_t frames_take(struct process *p, const struct stile__record *r, bool give_back)
{
    size_t n = r->n_inline;
    memcpy(frames, r->words, n * sizeof *frames);
    if (r->n_new > n)
        n += blocks_take(p, r->frames_block, (uint8_t *)(frames + n), (r->n_new - n) * sizeof *frames,
                         give_back) /
             sizeof *frames;
    return n;
}

/* Learns the rules of what the handler had none for, so that the next sample finds them. Rings wait meanwhile: what is
 * too much for one round comes with the next sample. Returns false if there was a rule. */
static bool learn(struct process *p, uint64_t address)
{
    if (stubs_have(&p->stubs, address) || rule_table_has(&p->rules, address))
        return false;
    if (p->learn_left_ns <= 0)
        return true;
    /* Learning alone counts: the walk of one deep stack may take longer, and would leave it no time in any round. */
    uint64_t start = now_mono_ns();
    bool none = rule_table_learn(&p->rules, &p->mappings, address);
    p->learn_left_ns -= (int64_t)(now_mono_ns() - start);
    return none;
}

/* The snapshot that a record has; it is read until the next one is taken. The pairs of its stubs lie behind the stack in the
 * same blocks, where nothing says that they are aligned. */
static struct snapshot snapshot_take(struct process *p, const struct stile__record *r, bool give_back)
{
    static uint8_t bytes[STILE__SNAPSHOT_MAX + STILE__STUBS * sizeof(struct stile__barrier_seen)];
    static struct stile__barrier_seen barriers[STILE__STUBS];
    size_t pairs = r->n_barriers * sizeof *barriers,
           have = blocks_take(p, r->block, bytes, r->stack_len + pairs, give_back);
    struct snapshot s = {.start = r->stack_start, .bytes = bytes, .lost = r->lost_regs, .stubs = p->stubs};

    memcpy(s.regs, r->words + r->n_inline, sizeof s.regs);
    s.len = have < r->stack_len ? have : r->stack_len;
    s.n_barriers = (have - s.len) / sizeof *barriers;
    memcpy(barriers, bytes + s.len, s.n_barriers * sizeof *barriers);
    s.barriers = barriers;
    s.ends_at_barrier = r->kind == STILE__RECORD_SNAPSHOT && r->kept != 0;
    return s;
}

/* Both walks of a sample, if the reference came to an end; the first difference ends the run unless all are wanted. The
 * reference is asked again, without what it has kept, before anything else is doubted. */
static void record_verify(struct process *p, size_t n, const struct mirror *m, size_t kept,
                          const struct snapshot *s)
{
    enum stile__reason reason;
    while (kept != 0)
        frames[n++] = m->frames[--kept].address;
    size_t all = unwinder_walk(p->unwinder, s, frames + n, FRAMES_MAX, &reason);
    if (reason != STILE__REASON_NONE || !verify_same(frames, n, frames + n, all)) {
        unwinder_flush(p->unwinder);
        all = unwinder_walk(p->unwinder, s, frames + n, FRAMES_MAX, &reason);
    }
    if (reason != STILE__REASON_NONE)
        p->verify.unknown++;
    else if (!verify_compare(&p->verify, &p->mappings, frames, n, frames + n, all) &&
             (p->debug & STILE__DEBUG_VERIFY_ALL) == 0)
        syscall(SYS_pidfd_send_signal, p->pidfd, SIGABRT, NULL, 0);
}

/* Whether a record keeps what there is. */
static bool kept_check(struct process *p, const struct mirror *m, const struct stile__record *r)
{
    if (r->kept > m->n)
        p->damage = "a record keeps more frames than there were";
    return p->damage == NULL;
}

/* What a snapshot's walk finds is the collector's alone: the agent does not know it, and cannot keep any of it. */
static bool is_base(const struct stile__record *r)
{
    return (r->flags & STILE__IS_BASE) != 0 && r->kind != STILE__RECORD_SNAPSHOT;
}

/* The stack of a base record: what it keeps, and the frames that it lists. */
static void mirror_follow(struct process *p, struct mirror *m, size_t kept, size_t n)
{
    if (kept + n > STILE__DEPTH_MAX) {
        p->damage = "a record's frames are out of range";
        return;
    }
    if (!mirror_cut(m, kept, n)) {
        p->damage = no_memory;
        return;
    }
    while (n-- > 0)
        mirror_push(m, frames[n], mappings_find_ever(&p->mappings, frames[n]));
}

/* The node of a stack that keeps frames of a mirror, with n others below them. Under a reason, and where the frames next to
 * the root are left out, it is no path that the mirror knows: each kept frame is looked up, however short the record is. That
 * is rare; where it is not, a round would have no end, and what is too much for it is shown without them. */
static uint32_t stack_node(struct process *p, struct mirror *m, size_t kept, size_t n,
                           enum stile__reason *reason)
{
    size_t left_out = kept + n > p->depth ? kept + n - p->depth : 0;
    if (left_out == 0 && *reason == STILE__REASON_NONE)
        return frames_below(p, &p->tree, mirror_node(m, &p->tree, p->cuts, kept), frames, n);
    size_t below = left_out < kept ? kept - left_out : 0;
    if (below > p->below_left) {
        *reason = STILE__REASON_BUFFER_FULL;
        left_out = kept;
    } else {
        p->below_left -= below;
    }
    uint32_t node = mirror_below(m, &p->tree, reason_node(&p->tree, *reason), left_out, kept);
    return frames_below(p, &p->tree, node, frames, left_out > kept ? n - (left_out - kept) : n);
}

/* Walks on from where the handler had no rule. Adds to the frames, and to why they are not whole. Returns the frames that
 * are kept: none, unless the walk comes to the barrier above which they are. */
static size_t snapshot_walk(struct process *p, const struct snapshot *s, bool known, size_t kept, size_t *n,
                            enum stile__reason *reason)
{
    enum stile__reason walk_reason = STILE__REASON_NO_UNWIND_INFO;
    if (known) {
        *n += unwinder_walk(p->unwinder, s, frames + *n, FRAMES_MAX, &walk_reason);
    } else if (!stubs_have(&p->stubs, s->regs[STILE__REG_RIP])) {
        /* A library came and went between two looks: what its code says of the stack is not to be had any more. */
        frames[(*n)++] = s->regs[STILE__REG_RIP];
    }
    *reason = reason_of(*reason, walk_reason);
    return known && unwinder_at_barrier(p->unwinder) ? kept : 0;
}

/* Copies what a record has in blocks, and gives these back unless they are still the thread's. */
static bool stack_copy(struct process *p, const struct stile__record *r, size_t kept, bool give_back,
                       struct stack *s)
{
    if (!frames_room(r->n_new + (r->kind == STILE__RECORD_VERIFY ? kept : 0) + FRAMES_MAX)) {
        p->damage = no_memory;
        return false;
    }
    *s = (struct stack){.n = frames_take(p, r, give_back), .kept = kept, .reason = r->reason};
    s->listed = s->n;
    if (r->kind != STILE__RECORD_WALKED)
        s->snapshot = snapshot_take(p, r, give_back);
    return true;
}

/* Makes of what was copied a whole stack, as far as it can be had, and learns what the thread did not know. known: so is what
 * was mapped then. */
static void stack_complete(struct process *p, const struct mirror *m, const struct stile__record *r,
                           bool known, struct stack *s)
{
    bool walked = r->kind == STILE__RECORD_WALKED, verify = (p->debug & STILE__DEBUG_VERIFY) != 0;

    if (r->kind == STILE__RECORD_VERIFY) {
        if (verify && known) /* else the program wrote it, and is not to be ended for that */
            record_verify(p, s->n, m, s->kept, &s->snapshot);
    } else if (r->kind == STILE__RECORD_SNAPSHOT) {
        s->kept = snapshot_walk(p, &s->snapshot, known, s->kept, &s->n, &s->reason);
    }
    if (verify && walked && s->reason == STILE__REASON_NONE && s->n > 0)
        p->verify.uncopied++;
    p->frames_by_rules += s->listed;
    p->frames_by_libunwind += s->n - s->listed;
    p->frames_saved += s->kept;
    p->walks[!walked].n += r->walk_cycles != 0;
    p->walks[!walked].cycles += r->walk_cycles;
    if (r->kind == STILE__RECORD_SNAPSHOT || s->reason == STILE__REASON_UNKNOWN_STACK)
        for (size_t i = 0; i < s->n; i++)
            p->frames_unruled += learn(p, frames[i]);
}

/* A walk that went astray ends with what is no code. */
static size_t astray_cut(const struct process *p, const struct stack *s, size_t n)
{
    return s->reason == STILE__REASON_UNKNOWN_STACK && s->kept == 0 && n > 1 &&
                   mappings_find_ever(&p->mappings, frames[n - 1]) == MAPPING_NONE
               ? n - 1
               : n;
}

void record_add(struct process *p, uint32_t thread, const struct stile__record *r)
{
    struct mirror *m = &p->threads[thread].mirror;
    struct stack s;

    if (!kept_check(p, m, r) || !stack_copy(p, r, r->kept, true, &s))
        return;
    stack_complete(p, m, r, mappings_view(&p->mappings, r->unloads), &s);
    size_t kept = s.kept, n = s.n;
    enum stile__reason reason = s.reason;
    if (is_base(r)) {
        mirror_follow(p, m, kept, n);
        kept = m->n;
        n = 0;
    } else {
        n = astray_cut(p, &s, n);
    }
    if (kept + n > p->depth && reason != STILE__REASON_SIGNAL_BLOCKED)
        reason = STILE__REASON_TRUNCATED;
    uint64_t ticks = r->ticks, ns = ticks * p->period_ns;
    if (p->damage == NULL && ns <= TICK_NS_MAX && !more_than_there_is(p, ns)) {
        uint32_t node = stack_node(p, m, kept, n, &reason);
        p->threads[thread].last_node = node;
        p->threads[thread].last_cuts = p->cuts;
        p->threads[thread].has_last = true;
        weight_add(p, thread, node, reason, (r->flags & STILE__IN_KERNEL) != 0, ticks, ns);
    }
    p->mappings.view = &p->mappings.now;
}

bool record_stack_copy(struct process *p, const struct stile__record *r, bool give_back, struct stack *s)
{
    return stack_copy(p, r, 0, give_back, s);
}

uint32_t record_stack_node(struct process *p, const struct stile__record *r, struct call_tree *t,
                           uint64_t leaf, struct stack *s)
{
    static const struct mirror none;
    stack_complete(p, &none, r, mappings_view(&p->mappings, r->unloads), s);
    size_t n = astray_cut(p, s, s->n);
    if (n != 0)
        frames[0] = leaf;
    if (n > p->depth) {
        n = p->depth;
        s->reason = STILE__REASON_TRUNCATED;
    }
    uint32_t node = frames_below(p, t, reason_node(t, s->reason), frames, n);
    p->mappings.view = &p->mappings.now;
    return node;
}

const uint64_t *record_stack_frames(struct process *p, const struct stile__record *r, uint64_t leaf,
                                    struct stack *s)
{
    bool known = mappings_view(&p->mappings, r->unloads);
    if (r->kind == STILE__RECORD_SNAPSHOT)
        s->kept = snapshot_walk(p, &s->snapshot, known, 0, &s->n, &s->reason);
    s->n = astray_cut(p, s, s->n);
    if (leaf != 0 && s->n != 0)
        frames[0] = leaf;
    p->mappings.view = &p->mappings.now;
    return frames;
}

void record_drop(struct process *p, uint32_t thread, const struct stile__record *r)
{
    struct mirror *m = &p->threads[thread].mirror;
    struct stack s;

    if (!kept_check(p, m, r) || !stack_copy(p, r, 0, true, &s))
        return;
    if (is_base(r)) { /* later records may keep of it */
        mappings_view(&p->mappings, r->unloads);
        mirror_follow(p, m, r->kept, s.n);
        p->mappings.view = &p->mappings.now;
    }
    if ((r->flags & STILE__IS_WAIT) != 0)
        p->waits.late += r->ticks;
    else
        p->late_ticks += r->ticks;
}
