/* Second stage of a sample: the stack. Walks by rules as far as there are rules, and leaves the rest as a snapshot that
 * the collector walks. Runs in the signal handler, under the stack's lock.
 *
 * A walk reads two kinds of memory: the rules, inside their table whatever it says, and the stack between a floor (the
 * red zone of the first frame) and the stack's end. Each frame lies above the one before, so it ends. */
#include "profiler/agent/signal/handler.h"

#include <asm/errno.h>

#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define CACHED           8192u /* rules by program counter, for the whole process: 128 KiB, touched as it is used */
#define RECURSION_FRAMES 32u /* of one round of a recursion at most, to be walked fast */
#define RECURSION_TRIES  8u
#define CROSSINGS_MAX    64u /* signal frames in one walk; their stack pointers may go round in a circle */
#define PROBED_MAX       (1u << 20)  /* bytes of a stack whose end is not known that are looked at */
#define LOOKED_AT_MAX    (64u << 20) /* bytes of a stack whose end is known that are looked at at once */
#define ADDRESS_MAX      (1ull << 48)
#define CODE_MIN         65536u /* nothing is mapped below: vm.mmap_min_addr */

/* In a signal frame, from the stack pointer that its handler returns to: a ucontext_t begins there. */
#define FRAME_REGS offsetof(ucontext_t, uc_mcontext.gregs)

/* Rules that were looked up before. Both words are written without a lock: a pair belongs together if the first is the
 * second, exclusive or, with the key that is asked for. Keys carry the count of unloads: another library's rules are not
 * found. */
static struct {
    _Atomic uint64_t check, rule;
} cache[CACHED];
static _Atomic uint64_t cache_era; /* the session, and its unloads beyond what a key has room for */

/* A frame all of whose registers are known: libunwind can start from it. */
struct anchor {
    uint32_t n;           /* frames below it */
    const uint64_t *regs; /* in the kernel's order */
};

struct walker {
    struct stile__session *s;
    struct stile__region *r;
    struct stile__rules *rules;
    const struct stile__place *at;
    const struct stile__bounds *stack; /* the thread's own */
    uintptr_t *stack_read;             /* as in stile__thread */
    struct stile__record *record;
    uint32_t unloads; /* as of which the rules are right */
    uint64_t tag;     /* of keys: of the unloads what they have room for */
    uint64_t rsp, rbp, pc;
    uint64_t floor, hi; /* of what may be read */
    uint64_t limit;     /* that hi may be moved to, page by page */
    bool end_known;     /* hi is the stack's end */
    bool end_told;      /* by the program, which may be wrong */
    uint64_t *out, *out_end;
    struct stile__block *block; /* that out points into, or NULL: the record */
    uint32_t n, depth;
    uint32_t crossings;
    struct anchor anchor;
    struct stile__memo *memo;
    const struct stile__memo_frame *old, *old_end; /* of the last walk: what comes next */
    struct stile__memo_frame *now, *now_limit;     /* of this one */
    uint32_t now_step;                             /* 1, or 0 where there is no room for more */
    uint32_t no_recursion;                         /* frames since then that were not among the last ones */
};

enum stop {
    STOP_END,    /* that was the outermost frame */
    STOP_STUCK,  /* no rule, or one that does not lead on: libunwind may know more */
    STOP_DEPTH,  /* as many frames as are wanted */
    STOP_BUFFER, /* no room for more */
    STOP_CIRCLE
};

/* Whether a page can be read: the kernel is asked to read a signal mask there, of signals to be blocked. In a handler of
 * ours all are; elsewhere the mask is put back. It is a call like any program's, so that no filter forbids it. */
static bool readable(uint64_t page)
{
    const uint64_t all = ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
    uint64_t mask = all;
    if (page < CODE_MIN || /* of NULL the kernel reads nothing, and finds nothing wrong */
        stile__raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, (long)page, (long)&mask, sizeof mask) == -EFAULT)
        return false;
    if (mask != all)
        stile__raw_sigmask(SIG_SETMASK, mask);
    return true;
}

/* Makes sure that everything below `end` can be read. */
static __attribute__((noinline)) bool reach(struct walker *w, uint64_t end)
{
    while (w->hi < end) {
        if (w->hi >= w->limit || !readable(w->hi))
            return false;
        w->hi += STILE__PAGE;
    }
    return true;
}

/* Sets the floor of a known stack, if all pages from where rsp points can be read. Some may not: guards that the program has
 * put into its stack; of the main thread's, what its limit does not let grow, and holes below something else that was mapped
 * into its range. So a depth that the thread has not been sampled at is looked at first. */
static bool floor_set(struct walker *w, const struct stile__bounds *stack)
{
    const uint64_t page = w->rsp & ~(uint64_t)(STILE__PAGE - 1);
    w->floor = w->rsp - stack->lo > STILE__RED_ZONE ? w->rsp - STILE__RED_ZONE : stack->lo;
    const bool own = stack == w->stack;
    uint64_t known = own && *w->stack_read != 0 ? *w->stack_read : stack->hi;
    if (own && w->floor >= known && known != stack->hi)
        return true;
    if (!own || known - page > LOOKED_AT_MAX)
        known = page +
                1; /* an alternate stack is looked at where it is copied; of a very deep one this has to do */
    for (uint64_t at = page; at < known; at += STILE__PAGE)
        if (!readable(at))
            return false;
    if (w->floor < page && !readable(w->floor & ~(uint64_t)(STILE__PAGE - 1)))
        w->floor = page;
    else if (own)
        *w->stack_read = w->floor & ~(uint64_t)(STILE__PAGE - 1);
    return true;
}

/* Finds the stack that rsp is on: the thread's, the alternate one of this signal, or one of the program's making, of which
 * only as much is known as can be read. */
static bool stack_find(struct walker *w)
{
    const struct stile__bounds *known[] = {w->stack, &w->at->alt};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i]->lo <= w->rsp && w->rsp < known[i]->hi && floor_set(w, known[i])) {
            w->hi = w->limit = known[i]->hi;
            w->end_known = true;
            w->end_told = i != 0;
            return true;
        }
    w->floor = w->hi = w->rsp & ~(uint64_t)(STILE__PAGE - 1);
    w->limit = w->hi + PROBED_MAX;
    w->end_known = false;
    return w->rsp < ADDRESS_MAX && reach(w, w->hi + 1);
}

static inline uint32_t cache_index(uint64_t pc)
{
    return (uint32_t)(pc ^ pc >> 13) % CACHED;
}

/* A rule that the cache has not. */
static __attribute__((noinline)) uint64_t rule_search(struct walker *w, uint64_t pc)
{
    if (w->rules == NULL || pc >= ADDRESS_MAX)
        return 0;
    uint64_t rule = stile__rules_find(w->rules, w->s->size.rule_pages, pc);
    if (stile__rule_op(rule) == STILE__RULE_PLT)
        rule =
            stile__rule_make(STILE__RULE_RSP, (int64_t)(pc & 15) >= stile__rule_extra(rule) ? 16 : 8, 0, 0);
    if (rule == 0)
        return 0;
    uint32_t i = cache_index(pc);
    atomic_store_explicit(&cache[i].rule, rule, memory_order_relaxed);
    atomic_store_explicit(&cache[i].check, rule ^ (pc | w->tag), memory_order_relaxed);
    return rule;
}

static inline uint64_t rule_find(struct walker *w, uint64_t pc)
{
    uint32_t i = cache_index(pc);
    uint64_t rule = atomic_load_explicit(&cache[i].rule, memory_order_relaxed);
    if ((atomic_load_explicit(&cache[i].check, memory_order_relaxed) ^ rule) == (pc | w->tag))
        return rule;
    return rule_search(w, pc);
}

/* Most of a stack is what it was at the last sample. Its frames lie side by side in the memo, with their rules: so the
 * next rule does not wait for the return address that it will be checked against, and the processor fetches ahead. */
static void memo_begin(struct walker *w, struct stile__memo *memo)
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

static void memo_end(struct walker *w)
{
    uint32_t now = (w->memo->halves[0].last & 1) ^ 1;
    struct stile__memo_half *half = &w->memo->halves[now];
    half->unloads = w->unloads;
    half->n = (uint32_t)(w->now - half->frames);
    w->now->rsp = UINT64_MAX;
    w->memo->halves[0].last = now;
}

/* Goes on in another block where the frames do not fit. */
static __attribute__((noinline)) bool frames_more(struct walker *w)
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

static uint64_t stack_word(uint64_t address)
{
    return *(const uint64_t *)address;
}

/* Whether the word at an address lies in what may be read. */
static inline bool in_stack(const struct walker *w, uint64_t address)
{
    return address >= w->floor && address < w->hi && w->hi - address >= sizeof(uint64_t);
}

/* From a signal frame to what the signal interrupted, on whatever stack that was. */
static bool signal_cross(struct walker *w)
{
    const uint64_t frame = w->rsp, *regs = (const uint64_t *)(frame + FRAME_REGS);
    if (!reach(w, frame + FRAME_REGS + NGREG * sizeof *regs))
        return false;
    w->rsp = regs[REG_RSP];
    w->rbp = regs[REG_RBP];
    w->pc = regs[REG_RIP];
    if (!(w->rsp > frame && w->rsp < w->hi) && !stack_find(w)) {
        if (w->out != w->out_end) {
            *w->out++ = w->pc;
            w->n++;
        }
        return false;
    }
    w->anchor = (struct anchor){.n = w->n, .regs = regs};
    return true;
}

static uint64_t anchor_reg(const struct walker *w, unsigned i)
{
    static const uint8_t order[STILE__REG_COUNT] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                    REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                    REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    return w->anchor.regs[order[i]];
}

/* The CFA of a frame whose rule is not one of the two common ones, or 0. *saved is where the caller's rbp lies, as an
 * address, or 0. */
static __attribute__((noinline)) uint64_t cfa_other(struct walker *w, uint64_t rule, uint64_t *saved)
{
    uint64_t base = stile__rule_op(rule) == STILE__RULE_DEREF_RBP ? w->rbp : w->rsp;
    uint64_t at = base + (uint64_t)(int64_t)stile__rule_offset(rule), cfa = 0;

    switch (stile__rule_op(rule)) {
    case STILE__RULE_DEREF_RSP:
    case STILE__RULE_DEREF_RBP:
        if (in_stack(w, at))
            cfa = stack_word(at) + (uint64_t)(8 * (int64_t)stile__rule_extra(rule));
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
static __attribute__((noinline)) bool frame_last(struct walker *w, uint64_t rule, enum stop *stop)
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
static uint64_t *out_limit(const struct walker *w)
{
    return w->depth - w->n < (size_t)(w->out_end - w->out) ? w->out + (w->depth - w->n) : w->out_end;
}

static inline void frames_note(struct walker *w, uint64_t *out)
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
static void recursion_find(struct walker *w, struct frame *f)
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
static inline struct frame frames_follow(const struct walker *w, struct frame f, const uint64_t *limit)
{
    const uint64_t hi = w->hi, floor = w->floor;
    size_t room = least((size_t)(f.old_end - f.old), (size_t)(limit - f.out));
    if (w->now_step != 0)
        room = least(room, (size_t)(w->now_limit - f.now));
    const uint64_t *end = f.out + room;
    while (f.out != end && f.old->pc == f.pc) {
        const uint64_t rule = f.old->rule;
        const uint64_t base = (rule & 0xff) == STILE__RULE_RSP ? f.rsp : f.rbp;
        const uint64_t cfa = base + (uint64_t)(int64_t)stile__rule_offset(rule);
        const int64_t saved = stile__rule_saved(rule);
        if (((rule - STILE__RULE_RSP) & 0xff) > STILE__RULE_RBP - STILE__RULE_RSP || cfa <= f.rsp ||
            cfa > hi || cfa % 8 != 0)
            break;
        const uint64_t ret = stack_word(cfa - 8);
        if (ret - CODE_MIN >= ADDRESS_MAX - CODE_MIN)
            break;
        if (saved != 0) {
            const uint64_t at = cfa + (uint64_t)(8 * saved);
            if (saved > -2 || at < floor || at >= cfa)
                break;
            f.rbp = stack_word(at);
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
    if ((rule & 0xff) != STILE__RULE_RSP && (rule & 0xff) != STILE__RULE_RBP)
        return false;
    *cfa = ((rule & 0xff) == STILE__RULE_RSP ? f->rsp : f->rbp) + (uint64_t)(int64_t)stile__rule_offset(rule);
    *saved = *cfa + (uint64_t)(8 * (int64_t)stile__rule_saved(rule));
    return true;
}

/* The caller's rbp. False if it is not where the rule says. */
static inline bool rbp_restore(const struct walker *w, uint64_t rule, uint64_t saved, uint64_t *rbp)
{
    if (stile__rule_saved(rule) == 0)
        return true;
    bool lost = stile__rule_saved(rule) == STILE__RULE_LOST;
    if (!lost && !in_stack(w, saved))
        return false;
    *rbp = lost ? 0 : stack_word(saved);
    return true;
}

static inline void frame_put(struct walker *w, const struct frame *f)
{
    frames_note(w, f->out);
    w->rsp = f->rsp;
    w->rbp = f->rbp;
    w->pc = f->pc;
    w->now = f->now;
}

/* Walks as far as it goes. On a stop, w is the last frame that was listed. What changes with each frame is in f, and in w
 * wherever something else is called. */
static enum stop frames_walk(struct walker *w)
{
    struct frame f = {w->rsp, w->rbp, w->pc, w->out, w->old, w->old_end, w->now};
    uint64_t *limit = out_limit(w);
    enum stop stop;
    for (;;) {
        f = frames_follow(w, f, limit);
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
        const uint64_t rule = f.old < f.old_end && f.old->pc == f.pc ? f.old->rule : rule_find(w, f.pc);
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
        if (cfa <= f.rsp || cfa % 8 != 0 || (cfa > w->hi && !reach(w, cfa)) ||
            !rbp_restore(w, rule, saved, &rbp))
            break;
        const uint64_t ret = stack_word(cfa - 8);
        if (__builtin_expect(ret - CODE_MIN >= ADDRESS_MAX - CODE_MIN, 0)) {
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
static void frames_drop(struct walker *w, uint32_t n)
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
static uint32_t registers_of_frame(const struct walker *w, uint64_t *regs)
{
    for (int i = 0; i < STILE__REG_COUNT; i++)
        regs[i] = 0;
    regs[STILE__REG_RBP] = w->rbp;
    regs[STILE__REG_RSP] = w->rsp;
    regs[STILE__REG_RIP] = w->pc;
    return ((1u << STILE__REG_COUNT) - 1) &
           ~(1u << STILE__REG_RBP | 1u << STILE__REG_RSP | 1u << STILE__REG_RIP);
}

static bool all_readable(const struct walker *w)
{
    uint64_t page = w->floor & ~(uint64_t)(STILE__PAGE - 1);
    while (page < w->hi && page - w->floor < STILE__SNAPSHOT_MAX + STILE__PAGE && readable(page))
        page += STILE__PAGE;
    return page >= w->hi || page - w->floor >= STILE__SNAPSHOT_MAX;
}

/* Leaves the rest of the stack to the collector: from the last frame whose registers are all known, since what libunwind
 * needs is not known here; from the frame where the walk is stuck if that one is too far to copy all between. */
static enum stile__reason rest_leave(struct walker *w, enum stile__record_kind kind)
{
    struct stile__record *record = w->record;
    uint64_t regs[STILE__REG_COUNT], rsp = anchor_reg(w, STILE__REG_RSP);
    uint32_t lost = 0;

    /* Of a stack whose end is not known nothing is copied: what lies above its frames may be unmapped this moment. */
    if (!w->end_known || (w->end_told && !all_readable(w)))
        return STILE__REASON_UNKNOWN_STACK;
    bool far = kind == STILE__RECORD_SNAPSHOT && w->n - 1 > w->anchor.n &&
               w->hi - rsp > STILE__SNAPSHOT_MAX - STILE__RED_ZONE;
    if (far)
        lost = registers_of_frame(w, regs);
    else
        for (unsigned i = 0; i < STILE__REG_COUNT; i++)
            regs[i] = anchor_reg(w, i);
    rsp = regs[STILE__REG_RSP] - STILE__RED_ZONE;
    enum stile__reason reason =
        stile__snapshot_take(w->s, w->r, rsp > w->floor ? rsp : w->floor, w->hi, record);
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

/* Finds the rules, if they may be used now. */
static void rules_begin(struct walker *w)
{
    uint32_t unloads = atomic_load_explicit(&w->r->unloads, memory_order_acquire);
    /* Nobody counts what is unloaded between two sessions, or between the last one and the fork that begins this one. */
    uint64_t era = w->r->start_mono_ns + (unloads / STILE__UNLOADS_ONE >> 16);

    w->unloads = unloads / STILE__UNLOADS_ONE;
    w->tag = (uint64_t)(w->unloads & 0xffff) << 48;
    w->rules = NULL;
    if (w->s->size.rule_pages == 0 ||
        !stile__rules_fresh(unloads, atomic_load_explicit(&w->r->rules_unloads, memory_order_acquire)))
        return;
    if (era != atomic_load_explicit(&cache_era, memory_order_relaxed)) {
        for (uint32_t i = 0; i < CACHED; i++)
            atomic_store_explicit(&cache[i].check, 0, memory_order_relaxed);
        atomic_store_explicit(&cache_era, era, memory_order_relaxed);
    }
    w->rules = (void *)((char *)w->r + w->s->at.rules);
}

static enum stile__reason walk(struct walker *w)
{
    if (!stack_find(w)) {
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
    switch (frames_walk(w)) {
    case STOP_END:
        if (w->r->debug & STILE__DEBUG_VERIFY && w->at->regs[REG_RSP] >= w->floor &&
            w->at->regs[REG_RSP] < w->hi) { /* one stack, whatever signals interrupted on it */
            w->anchor = (struct anchor){.n = 0, .regs = w->at->regs};
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

void stile__walk(struct stile__session *s, struct stile__region *r, struct stile__thread *t,
                 const struct stile__place *at, struct stile__record *record)
{
    uint64_t start = r->debug & STILE__DEBUG_WALK_TIME ? __builtin_ia32_rdtsc() : 0;
    struct walker w; /* each member is set by what comes next: clearing it first is a tenth of a short walk */
    w.s = s;
    w.r = r;
    w.at = at;
    w.stack = &t->stack;
    w.stack_read = &t->stack_read;
    w.record = record;
    w.rsp = at->regs[REG_RSP];
    w.rbp = at->regs[REG_RBP];
    w.pc = at->regs[REG_RIP];
    w.out = record->words;
    w.out_end =
        w.out + (record->cells * STILE__CELL_BYTES - sizeof *record) / sizeof(uint64_t) - STILE__REG_COUNT;
    w.block = NULL;
    w.n = 0;
    w.depth = s->depth;
    w.crossings = 0;
    w.anchor = (struct anchor){.n = 0, .regs = at->regs};
    rules_begin(&w);
    memo_begin(&w, (void *)((char *)r + s->at.memos + (uint64_t)(uint32_t)t->id * STILE__PAGE));
    record->reason = (uint8_t)walk(&w);
    record->n_new = w.n;
    if (record->frames_block == STILE__BLOCK_NONE)
        record->n_inline = w.n;
    memo_end(&w);
    if (start != 0)
        record->walk_cycles = (uint32_t)(__builtin_ia32_rdtsc() - start);
}
