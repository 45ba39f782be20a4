/* Second stage of a sample: the stack. Walks by rules as far as there are rules, and leaves the rest as a snapshot that
 * the collector walks. Runs in the signal handler, under the stack's lock.
 *
 * A walk reads two kinds of memory: the rules, inside their table whatever it says, and the stack between a floor (the
 * red zone of the first frame) and the stack's end. Each frame lies above the one before, so it ends. */
#include "profiler/agent/signal/walker.h"

#include "barriers/call_site.h"
#include "barriers/ownership.h"
#include "profiler/agent/signal/faults.h"

#include "profiler/agent/signal/poison.h"

#define RECURSION_FRAMES 32u /* of one round of a recursion at most, to be walked fast */
#define RECURSION_TRIES  8u
#define CROSSINGS_MAX    64u /* signal frames in one walk; their stack pointers may go round in a circle */

#define ROOT_FRAME 256u /* bytes that the outermost frame may have grown by since it was last seen */

/* In a signal frame, from the stack pointer that its handler returns to: a ucontext_t begins there. */
#define FRAME_REGS offsetof(ucontext_t, uc_mcontext.gregs)

enum stop {
    STOP_END,    /* that was the outermost frame */
    STOP_STUCK,  /* no rule, or one that does not lead on: libunwind may know more */
    STOP_DEPTH,  /* as many frames as are wanted */
    STOP_BUFFER, /* no room for more */
    STOP_CIRCLE,
    STOP_BARRIER /* the rest is as it was */
};

/* Barriers: not within so many frames of the leaf, where functions are that read their own return address, and where most
 * would be hit at once. */
#define PLACE_FIRST 9u

/* Most of a stack is what it was at the last sample. Its frames lie side by side in the memo, with their rules: so the
 * next rule does not wait for the return address that it will be checked against, and the processor fetches ahead. */
static void memo_begin(struct stile__walker *w, struct stile__memo *memo)
{
    static const struct stile__memo_frame none = {.rsp = UINT64_MAX};
    uint32_t last = memo->halves[0].last & 1;
    const struct stile__memo_half *old = &memo->halves[last];
    struct stile__memo_half *now = &memo->halves[last ^ 1];
    w->memo = memo;
    w->old = w->old_end = &none;
    if (old->n <= STILE__MEMO_FRAMES && old->unloads == w->unloads) {
        w->old = old->frames;
        w->old_end = old->frames + old->n;
    }
    w->now = now->frames;
    w->now_limit = now->frames + STILE__MEMO_FRAMES;
    w->now_step = 1;
    w->no_recursion = 0;
}

static void memo_end(struct stile__walker *w)
{
    uint32_t now = (w->memo->halves[0].last & 1) ^ 1;
    struct stile__memo_half *half = &w->memo->halves[now];
    half->unloads = w->unloads;
    half->n = (uint32_t)(w->now - half->frames);
    w->memo->halves[0].last = now;
}

/* Goes on in another block where the frames do not fit. */
static __attribute__((noinline)) bool frames_more(struct stile__walker *w)
{
    uint32_t i = stile__block_take(w->s, w->r, (uint32_t)stile__thread.id);
    if (i == STILE__BLOCK_NONE)
        return false;
    if (w->block == NULL) {
        w->record->n_inline = w->n;
        w->record->frames_block = i;
    } else {
        w->block->next = i;
    }
    w->block = stile__region_block(w->r, w->s->size, i);
    w->block->next = STILE__BLOCK_NONE;
    w->block->used = STILE__BLOCK_DATA;
    w->out = (uint64_t *)(void *)w->block->data;
    w->out_end = w->out + STILE__BLOCK_DATA / sizeof(uint64_t);
    return true;
}

/* Where an interrupted context is: whoever is inside a stub has returned already. */
static uint64_t pc_of(const struct stile__walker *w, const uint64_t *regs)
{
    uint32_t stub = stile__stub_of(regs[REG_RIP]);
    return stub == STILE__STUB_NONE ? regs[REG_RIP] : stile__barrier_inside(w->barriers, stub);
}

/* Whether the thread's own stack has an address: nobody else's barriers are in it. */
static inline bool in_own_stack(const struct stile__walker *w, uint64_t address)
{
    return address >= w->stack->lo && address < w->stack->hi;
}

/* async: beyond a signal's frame. */
static bool may_place(const struct stile__walker *w, bool async)
{
    return stile__barriers_safe(w->status, async, w->s->block_rate_ns != 0) == STILE__SAFE;
}

/* From a signal frame to what the signal interrupted, on whatever stack that was. */
static bool signal_cross(struct stile__walker *w)
{
    const uint64_t frame = w->rsp, *regs = (const uint64_t *)(frame + FRAME_REGS);
    if (!stile__stack_reach(w, frame + FRAME_REGS + NGREG * sizeof *regs))
        return false;
    w->rsp = regs[REG_RSP];
    w->rbp = regs[REG_RBP];
    w->pc = pc_of(w, regs);
    if (!may_place(w, true)) /* what the signal interrupted may be reading its own return address */
        w->place_at = UINT32_MAX;
    if (in_own_stack(w, frame) && !(w->rsp > frame && in_own_stack(w, w->rsp)))
        w->ascends = false;
    if (!(w->rsp > frame && w->rsp < w->hi) && !stile__stack_find(w)) {
        if (w->out != w->out_end) {
            *w->out++ = w->pc;
            w->n++;
        }
        return false;
    }
    w->anchor = (struct stile__anchor){.n = w->n, .regs = regs};
    return true;
}

static uint64_t anchor_reg(const struct stile__walker *w, unsigned i)
{
    static const uint8_t order[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                    REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                    REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    return w->anchor.regs[order[i]];
}

/* The CFA of a frame whose rule is not one of the two common ones, or 0. *saved is where the caller's rbp lies, as an
 * address, or 0. */
static __attribute__((noinline)) uint64_t cfa_other(struct stile__walker *w, uint64_t rule, uint64_t *saved)
{
    uint64_t base = stile__rule_op(rule) == STILE__RULE_DEREF_RBP ? w->rbp : w->rsp;
    uint64_t at = base + (uint64_t)(int64_t)stile__rule_offset(rule), cfa = 0;

    switch (stile__rule_op(rule)) {
    case STILE__RULE_DEREF_RSP:
    case STILE__RULE_DEREF_RBP:
        if (stile__in_stack(w, at))
            cfa = stile__stack_word(at) + (uint64_t)(8 * (int64_t)stile__rule_extra(rule));
        break;
    case STILE__RULE_REGISTER:
        if (w->anchor.n == w->n - 1)
            cfa = anchor_reg(w, (unsigned)stile__rule_extra(rule) % STILE__REG_COUNT) +
                  (uint64_t)(int64_t)stile__rule_offset(rule);
        break;
    case STILE__RULE_FRAME_POINTER:
        if (w->rbp >= w->rsp)
            cfa = w->rbp + 16;
        break;
    default:
        break;
    }
    base = rule & STILE__RULE_AT_BASE ? w->rbp - 8 : cfa;
    *saved = base + (uint64_t)(8 * (int64_t)stile__rule_saved(rule));
    return cfa;
}

/* What a rule that names no caller says. True: w is at the frame that a signal interrupted. */
static __attribute__((noinline)) bool frame_last(struct stile__walker *w, uint64_t rule, enum stop *stop)
{
    *stop = STOP_STUCK;
    if (stile__rule_op(rule) == STILE__RULE_END ||
        /* The loader's first instructions have no CFI, and nothing above them but the arguments. */
        (stile__rule_op(rule) == STILE__RULE_FRAME_POINTER && w->end_known && w->rsp + 16 >= w->hi)) {
        *stop = STOP_END;
        return false;
    }
    if (stile__rule_op(rule) != STILE__RULE_SIGNAL)
        return false;
    if (++w->crossings > CROSSINGS_MAX) {
        *stop = STOP_CIRCLE;
        return false;
    }
    return signal_cross(w);
}

/* Where the frames that are listed end: as many as are wanted, or as there is room for here. */
static uint64_t *out_limit(const struct stile__walker *w)
{
    return w->depth - w->n < (size_t)(w->out_end - w->out) ? w->out + (w->depth - w->n) : w->out_end;
}

static inline void frames_note(struct stile__walker *w, uint64_t *out)
{
    w->n += (uint32_t)(out - w->out);
    w->out = out;
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What changes with each frame. */
struct frame {
    uint64_t rsp, rbp, pc;
    uint64_t *out;
    const struct stile__memo_frame *old, *old_end;
    struct stile__memo_frame *now;
};

/* The memo is full: what comes is likely a recursion, and follows as earlier frames of this walk did. */
static void recursion_find(struct stile__walker *w, struct frame *f)
{
    const struct stile__memo_frame *end = w->now_limit;
    w->now_step = 0; /* from here on each frame overwrites the one before, behind the last */
    f->old = f->old_end = end;
    if (w->no_recursion > RECURSION_TRIES)
        return;
    for (f->old = end - RECURSION_FRAMES; f->old < end && f->old->pc != f->pc; f->old++)
        ;
    w->no_recursion = f->old < end ? 0 : w->no_recursion + 1;
    f->old += f->old < end;
}

/* Walks the frames that follow one another as those at f.old do, and have a plain rule: CFA from rsp or rbp, return address
 * and rbp below it. That is most of most stacks, so it has nothing that is not needed there. It stops before a frame that
 * has anything else. Room for the frames, in the record and in the memo, is looked at once for all. */
static inline struct frame frames_follow(const struct stile__walker *w, struct frame f, const uint64_t *limit)
{
    const uint64_t hi = w->hi, floor = w->floor;
    size_t room = least((size_t)(f.old_end - f.old), (size_t)(limit - f.out));
    if (w->now_step != 0)
        room = least(room, (size_t)(w->now_limit - f.now));
    const uint64_t *end = f.out + room;
    while (f.out != end && f.old->pc == f.pc) {
        const uint64_t rule = f.old->rule;
        const uint64_t base = stile__rule_plain(rule) == STILE__RULE_RSP ? f.rsp : f.rbp;
        const uint64_t cfa = base + (uint64_t)(int64_t)stile__rule_offset(rule);
        const int64_t saved = stile__rule_saved(rule);
        if (stile__rule_plain(rule) - STILE__RULE_RSP > STILE__RULE_RBP - STILE__RULE_RSP || cfa <= f.rsp ||
            cfa > hi || cfa % 8 != 0)
            break;
        const uint64_t ret = stile__stack_word(cfa - 8);
        if (ret - STILE__CODE_MIN >= STILE__ADDRESS_MAX - STILE__CODE_MIN)
            break;
        if (saved != 0) {
            const uint64_t at = cfa + (uint64_t)(8 * saved);
            if (saved > -2 || at < floor || at >= cfa)
                break;
            f.rbp = stile__stack_word(at);
        }
        *f.out++ = f.pc;
        *f.now = (struct stile__memo_frame){f.rsp, f.pc, rule};
        f.now += w->now_step;
        f.old++;
        f.rsp = cfa;
        f.pc = ret - 1;
    }
    return f;
}

/* The CFA and the place of the caller's rbp by one of the two common rules. False: it is another one. */
static inline bool cfa_usual(const struct frame *f, uint64_t rule, uint64_t *cfa, uint64_t *saved)
{
    if (stile__rule_plain(rule) != STILE__RULE_RSP && stile__rule_plain(rule) != STILE__RULE_RBP)
        return false;
    *cfa = (stile__rule_plain(rule) == STILE__RULE_RSP ? f->rsp : f->rbp) +
           (uint64_t)(int64_t)stile__rule_offset(rule);
    *saved = *cfa + (uint64_t)(8 * (int64_t)stile__rule_saved(rule));
    return true;
}

/* The caller's rbp. False if it is not where the rule says. */
static inline bool rbp_restore(const struct stile__walker *w, uint64_t rule, uint64_t saved, uint64_t *rbp)
{
    if (stile__rule_saved(rule) == 0)
        return true;
    bool lost = stile__rule_saved(rule) == STILE__RULE_LOST;
    if (!lost && !stile__in_stack(w, saved))
        return false;
    *rbp = lost ? 0 : stile__stack_word(saved);
    return true;
}

static inline void frame_put(struct stile__walker *w, const struct frame *f)
{
    frames_note(w, f->out);
    w->rsp = f->rsp;
    w->rbp = f->rbp;
    w->pc = f->pc;
    w->now = f->now;
}

/* Where frames_follow has to let go, since the next frame may be one for a barrier. */
static inline const uint64_t *follow_limit(const struct stile__walker *w, const struct frame *f,
                                           const uint64_t *limit)
{
    if (__builtin_expect(w->place_at == UINT32_MAX, 1))
        return limit;
    uint32_t n = w->n + (uint32_t)(f->out - w->out) + 1;
    if (w->candidate != 0 || n >= w->place_at)
        return f->out;
    return (size_t)(limit - f->out) < w->place_at - n ? limit : f->out + (w->place_at - n);
}

/* Whether CFI says where the return address is. */
static inline bool rule_is_cfi(uint64_t rule)
{
    enum stile__rule_op op = stile__rule_op(rule);
    return op >= STILE__RULE_RSP && op <= STILE__RULE_DEREF_RBP;
}

/* Proposes barriers in the places that were found, as far as that is worth it on a stack of so many frames. */
static void places_propose(struct stile__walker *w, uint32_t total)
{
    for (uint32_t i = 0; i < w->n_places; i++) {
        const struct stile__walker_place *p = &w->places[i];
        const uint64_t ra = stile__stack_word(p->slot);
        if (stile__barrier_worth(w->s->barriers, p->depth, w->n, total) && stile__call_precedes(ra) &&
            !stile__barrier_propose(w->barriers, p->slot, ra, p->depth))
            w->place_at = UINT32_MAX; /* there are no stubs */
    }
    w->n_places = 0;
}

/* The frame that was listed last has `rule` and returns to `ret`. Notes its slot as a place for a barrier if it is time for
 * one. It takes the caller's rule to know that, so what was found for the frame below is decided on now. */
static __attribute__((noinline)) void barrier_consider(struct stile__walker *w, const struct frame *f,
                                                       uint64_t rule, uint64_t slot, uint64_t ret)
{
    const uint32_t n = w->n + (uint32_t)(f->out - w->out);
    const bool all = w->s->barriers == STILE__BARRIERS_ALL;
    if (w->candidate != 0 && (rule_is_cfi(rule) || stile__rule_op(rule) == STILE__RULE_END)) {
        w->place_at = all ? n : 2 * (n - 1);
        w->places[w->n_places++] = (struct stile__walker_place){w->candidate, n - 1};
        if (w->n_places == STILE__WALKER_PLACES)
            places_propose(w, UINT32_MAX); /* where all are worth it */
    }
    w->candidate = n >= w->place_at && rule_is_cfi(rule) && !(rule & STILE__RULE_READS_RA) &&
                           in_own_stack(w, slot) && stile__stub_of(ret) == STILE__STUB_NONE
                       ? slot
                       : 0;
}

/* Walks as far as it goes. On a stop, w is the last frame that was listed. What changes with each frame is in f, and in w
 * wherever something else is called. */
static enum stop frames_walk(struct stile__walker *w)
{
    struct frame f = {w->rsp, w->rbp, w->pc, w->out, w->old, w->old_end, w->now};
    uint64_t *limit = out_limit(w);
    enum stop stop;
    for (;;) {
        f = frames_follow(w, f, follow_limit(w, &f, limit));
        const uint32_t stub = stile__stub_of(f.pc + 1);
        if (__builtin_expect(stub != STILE__STUB_NONE, 0)) {
            if (stile__barrier_trusted(w->barriers, stub, f.rsp - 8) && in_own_stack(w, f.rsp - 8)) {
                w->barriers->stop = stub;
                stop = STOP_BARRIER;
                break;
            }
            /* It will still be returned through, and may have left its slot: whoever was interrupted inside one may have
             * had his program counter pushed as the return address of a call that a signal handler made him make. */
            f.pc = stile__barrier_inside(w->barriers, stub) - 1;
            continue;
        }
        if (__builtin_expect(f.out == limit, 0)) {
            frames_note(w, f.out);
            stop = w->n == w->depth ? STOP_DEPTH : STOP_BUFFER;
            if (stop == STOP_DEPTH || !frames_more(w))
                break;
            f.out = w->out;
            limit = out_limit(w);
        }
        *f.out++ = f.pc;

        uint64_t cfa, saved;
        while (f.old < f.old_end && f.old->rsp < f.rsp)
            f.old++;
        const uint64_t rule = stile__fault_rule(STILE__FAULT_RULE, f.old < f.old_end && f.old->pc == f.pc
                                                                       ? f.old->rule
                                                                       : stile__rule_find(w, f.pc));
        if (f.now == w->now_limit)
            recursion_find(w, &f);
        else if (rule != 0) /* one that is not known will be, by the next walk */
            *f.now++ = (struct stile__memo_frame){f.rsp, f.pc, rule};
        stop = STOP_STUCK;
        if (!cfa_usual(&f, rule, &cfa, &saved)) {
            frame_put(w, &f);
            if (frame_last(w, rule, &stop)) {
                f.rsp = w->rsp, f.rbp = w->rbp, f.pc = w->pc;
                continue;
            }
            f.out = w->out;
            cfa = stop == STOP_STUCK ? cfa_other(w, rule, &saved) : 0;
            if (cfa == 0)
                break;
        }
        uint64_t rbp = f.rbp;
        if (cfa <= f.rsp || cfa % 8 != 0 || (cfa > w->hi && !stile__stack_reach(w, cfa)) ||
            !rbp_restore(w, rule, saved, &rbp))
            break;
        const uint64_t ret = stile__stack_word(cfa - 8);
        if (__builtin_expect(w->place_at != UINT32_MAX, 0))
            barrier_consider(w, &f, rule, cfa - 8, ret);
        if (__builtin_expect(ret - STILE__CODE_MIN >= STILE__ADDRESS_MAX - STILE__CODE_MIN, 0)) {
            /* The end by the ABI's word (rbp is zero there, too; where rbp is only guessed to be a frame pointer, zeros say
             * nothing) or by its place; else memory that is no frame any more. */
            if (ret == 0 && ((rbp == 0 && stile__rule_op(rule) != STILE__RULE_FRAME_POINTER) ||
                             !w->end_known || cfa + 2 * sizeof ret >= w->hi))
                stop = STOP_END;
            break;
        }
        f.rbp = rbp;
        f.rsp = cfa;
        /* Inside the call, whose row it is: a call that never returns may be a function's last instruction. */
        f.pc = ret - 1;
    }
    frame_put(w, &f);
    return stop;
}

/* Forgets all frames but the first n. */
static void frames_drop(struct stile__walker *w, uint32_t n)
{
    struct stile__record *record = w->record;
    const uint32_t per_block = STILE__BLOCK_DATA / sizeof(uint64_t);
    if (record->frames_block == STILE__BLOCK_NONE) {
        record->n_inline = n;
    } else if (n <= record->n_inline) {
        stile__blocks_give_back(w->s, w->r, record->frames_block);
        record->frames_block = STILE__BLOCK_NONE;
        record->n_inline = n;
    } else { /* the collector gives back no more blocks than the frames take */
        uint32_t *link = &record->frames_block;
        for (uint32_t have = record->n_inline; have < n && *link != STILE__BLOCK_NONE; have += per_block)
            link = &stile__region_block(w->r, w->s->size, *link)->next;
        stile__blocks_give_back(w->s, w->r, *link);
        *link = STILE__BLOCK_NONE;
    }
    w->n = n;
}

/* The registers of the last frame that was listed, as far as they are known. Returns the bits of those that are not. */
static uint32_t registers_of_frame(const struct stile__walker *w, uint64_t *regs)
{
    for (int i = 0; i < STILE__REG_COUNT; i++)
        regs[i] = 0;
    regs[STILE__REG_RBP] = w->rbp;
    regs[STILE__REG_RSP] = w->rsp;
    regs[STILE__REG_RIP] = w->pc;
    return ((1u << STILE__REG_COUNT) - 1) &
           ~(1u << STILE__REG_RBP | 1u << STILE__REG_RSP | 1u << STILE__REG_RIP);
}

/* Where the stack need not be copied any more: beyond the slot of a barrier that can be trusted, if the walk that goes on in
 * the copy comes to it as a return address. Else the end of the stack. */
static uint64_t barrier_above(const struct stile__walker *w)
{
    if (w->barriers == NULL || !in_own_stack(w, w->rsp) || w->hi != w->stack->hi)
        return w->hi;
    uint32_t stub = stile__barrier_above(w->barriers, w->rsp);
    if (stub == STILE__STUB_NONE)
        return w->hi;
    w->record->kept = stile__stub_entries[stub].kept;
    return stile__stub_entries[stub].slot + sizeof(uint64_t);
}

/* Leaves the rest of the stack to the collector: from the last frame whose registers are all known, since what libunwind
 * needs is not known here; from the frame where the walk is stuck if that one is too far to copy all between. */
static enum stile__reason rest_leave(struct stile__walker *w, enum stile__record_kind kind)
{
    struct stile__record *record = w->record;
    uint64_t regs[STILE__REG_COUNT], rsp = anchor_reg(w, STILE__REG_RSP);
    uint32_t lost = 0;

    /* Of a stack whose end is not known nothing is copied: what lies above its frames may be unmapped this moment. */
    if (!w->end_known || (w->end_told && !stile__stack_readable(w)))
        return STILE__REASON_UNKNOWN_STACK;
    const uint64_t end = kind == STILE__RECORD_SNAPSHOT ? barrier_above(w) : w->hi;
    bool far = kind == STILE__RECORD_SNAPSHOT && w->n - 1 > w->anchor.n &&
               end - rsp > STILE__SNAPSHOT_MAX - STILE__RED_ZONE;
    if (far)
        lost = registers_of_frame(w, regs);
    else
        for (unsigned i = 0; i < STILE__REG_COUNT; i++)
            regs[i] = anchor_reg(w, i);
    rsp = regs[STILE__REG_RSP] - STILE__RED_ZONE;
    enum stile__reason reason =
        stile__snapshot_take(w->s, w->r, rsp > w->floor ? rsp : w->floor, end, record);
    if (kind == STILE__RECORD_SNAPSHOT && reason != STILE__REASON_NONE)
        record->kept = 0; /* the copy does not reach so far */
    if (record->block == STILE__BLOCK_NONE)
        return reason;
    record->kind = (uint8_t)kind;
    record->lost_regs = lost;
    if (kind == STILE__RECORD_SNAPSHOT)
        frames_drop(w, far ? w->n - 1 : w->anchor.n);
    if (record->frames_block == STILE__BLOCK_NONE)
        record->n_inline = w->n;
    for (uint32_t i = 0; i < STILE__REG_COUNT; i++)
        record->words[record->n_inline + i] = regs[i];
    return reason;
}

/* Whether a walk that is complete came to the outermost frame of its thread. A coroutine, too, may have its stack in an array
 * in one of the thread's frames, and a root of its own there. Where the thread's is not known, it is the highest so far. */
static bool root_reached(const struct stile__walker *w)
{
    if (in_own_stack(w, *w->stack_root) && w->rsp < *w->stack_root)
        return false;
    if (!in_own_stack(w, *w->stack_root) || w->rsp - *w->stack_root > ROOT_FRAME)
        *w->stack_root = w->rsp - ROOT_FRAME;
    return true;
}

/* Whether barriers may stand on what was walked, and those that stood there and were not met are dead: all of it is one
 * stack, from its innermost frame to the outermost one. */
static bool is_base(const struct stile__walker *w, enum stop stop)
{
    return w->barriers != NULL && in_own_stack(w, w->rsp) && w->ascends &&
           (stop == STOP_BARRIER || root_reached(w));
}

static enum stile__reason walk(struct stile__walker *w)
{
    if (!stile__stack_find(w)) {
        *w->out++ = w->pc;
        w->n = 1;
        return STILE__REASON_UNKNOWN_STACK;
    }
    if (w->rules == NULL) {
        /* Frame by frame it would be stuck at the first. */
        *w->out++ = w->pc;
        w->n = 1;
        return rest_leave(w, STILE__RECORD_SNAPSHOT);
    }
    enum stop stop = frames_walk(w);
    switch (stop) {
    case STOP_BARRIER:
        w->record->kept = stile__stub_entries[w->barriers->stop].kept;
        __attribute__((fallthrough));
    case STOP_END:
        if (is_base(w, stop)) {
            w->record->flags |= STILE__IS_BASE;
            places_propose(w, w->n + w->record->kept);
        }
        if (w->r->debug & STILE__DEBUG_VERIFY &&
            (w->record->flags & (STILE__IS_WAIT | STILE__IS_DUMP)) == 0 && w->at->regs[REG_RSP] >= w->floor &&
            w->at->regs[REG_RSP] < w->hi) { /* one stack, whatever signals interrupted on it */
            w->anchor = (struct stile__anchor){.n = 0, .regs = w->at->regs};
            (void)rest_leave(w, STILE__RECORD_VERIFY);
        }
        return STILE__REASON_NONE;
    case STOP_STUCK:
        return rest_leave(w, STILE__RECORD_SNAPSHOT);
    case STOP_BUFFER:
        return STILE__REASON_BUFFER_FULL;
    default:
        return STILE__REASON_TRUNCATED;
    }
}

/* The own stack's barriers, in the session that they belong to. */
static void barriers_begin(struct stile__walker *w, struct stile__thread *t)
{
    w->barriers = NULL;
    w->place_at = UINT32_MAX;
    w->candidate = 0;
    w->n_places = 0;
    w->status = 0;
    /* The walk of a wait, or of a dump, is no base of anything: it goes through to the root. */
    if (w->s->barriers == STILE__BARRIERS_OFF ||
        (w->record->flags & (STILE__IS_WAIT | STILE__IS_DUMP)) != 0 || !stile__barriers_go(w->r))
        return;
    const struct stile__barrier_place place = stile__barriers_place(t, w->at);
    w->barriers = &t->barriers;
    stile__barriers_begin(w->barriers, t->id, &place);
    /* A handler of the program, inside a wait: whoever waits may have told others of its frames already. */
    w->status = atomic_load_explicit(&t->slot->status, memory_order_relaxed);
    if (may_place(w, false) && stile__barriers_look(w->barriers, w->s->barriers))
        w->place_at = PLACE_FIRST;
}

void stile__walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const struct stile__place *at, struct stile__record *record)
{
    uint64_t start = r->debug & STILE__DEBUG_WALK_TIME ? __builtin_ia32_rdtsc() : 0;
    struct stile__walker
        w; /* each member is set by what comes next: clearing it first is a tenth of a short walk */
    w.s = s;
    w.r = r;
    w.at = at;
    w.stack = &t->stack;
    w.stack_read = &t->stack_read;
    w.stack_root = &t->stack_root;
    w.record = record;
    w.rsp = at->regs[REG_RSP];
    w.rbp = at->regs[REG_RBP];
    barriers_begin(&w, t);
    w.pc = pc_of(&w, at->regs);
    w.out = record->words;
    w.out_end = w.out + (record->cells * STILE__CELL_BYTES - sizeof *record) / sizeof(uint64_t) -
                STILE__REG_COUNT - (record->flags & STILE__IS_WAIT ? STILE__WAIT_WORDS : 0);
    w.block = NULL;
    w.n = 0;
    w.depth = s->depth;
    w.crossings = 0;
    w.ascends = true;
    w.anchor = (struct stile__anchor){.n = 0, .regs = at->regs};
    stile__rules_begin(&w);
    memo_begin(&w, stile__session_memo(s, r, (uint32_t)t->id));
    record->reason = (uint8_t)walk(&w);
    record->n_new = w.n;
    if (record->frames_block == STILE__BLOCK_NONE)
        record->n_inline = w.n;
    memo_end(&w);
    t->walk_crossings = w.crossings;
    if (start != 0)
        record->walk_cycles = (uint32_t)(__builtin_ia32_rdtsc() - start);
}
