/* What the stages of a walk share: the walker itself, the stack it may read, the rules it walks by. Only for walk.c,
 * walk_stack.c and walk_rules.c; runs in the signal handler. */
#ifndef STILE_AGENT_SIGNAL_WALKER_H
#define STILE_AGENT_SIGNAL_WALKER_H

#include "profiler/agent/signal/handler.h"

#define STILE__ADDRESS_MAX (1ull << 48)
#define STILE__CODE_MIN    65536u /* nothing is mapped below: vm.mmap_min_addr */

#define STILE__WALKER_PLACES 24u /* at doubling distances more than any stack has */

/* A frame all of whose registers are known: libunwind can start from it. */
struct stile__anchor {
    uint32_t n;           /* frames below it */
    const uint64_t *regs; /* in the kernel's order */
};

struct stile__walker {
    struct stile__session *s;
    struct stile__region *r;
    struct stile__rules *rules;
    const struct stile__place *at;
    const struct stile__bounds *stack;  /* the thread's own */
    uintptr_t *stack_read, *stack_root; /* as in stile__thread */
    struct stile__record *record;
    uint64_t status;  /* of the thread: whether barriers may be placed */
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
    bool ascends; /* through its thread's own stack, without a leap down or to another stack */
    struct stile__anchor anchor;
    struct stile__memo *memo;
    const struct stile__memo_frame *old, *old_end; /* of the last walk: what comes next */
    struct stile__memo_frame *now, *now_limit;     /* of this one */
    uint32_t now_step;                             /* 1, or 0 where there is no room for more */
    uint32_t no_recursion;                         /* frames since then that were not among the last ones */
    struct stile__barriers *barriers;              /* of the stack, or NULL: there are none in this session */
    uint32_t place_at;  /* frames after which a barrier may be proposed; UINT32_MAX: none */
    uint64_t candidate; /* a slot that its caller's rule decides on, or 0 */
    uint32_t n_places;
    struct stile__walker_place {
        uint64_t slot;
        uint32_t depth;             /* frames from the leaf to the one whose slot it is */
    } places[STILE__WALKER_PLACES]; /* that will do for a barrier, if one is worth it: the walk's end tells */
};

/* Finds the stack that w->rsp is on, and sets what of it may be read. False: it cannot be read at all. */
bool stile__stack_find(struct stile__walker *w);

/* Makes sure that everything below `end` can be read. */
bool stile__stack_reach(struct stile__walker *w, uint64_t end);

/* Whether all of a stack can be read whose end only the program knows, as far as a snapshot goes. */
bool stile__stack_readable(const struct stile__walker *w);

static inline uint64_t stile__stack_word(uint64_t address)
{
    return *(const uint64_t *)address;
}

/* Whether the word at an address lies in what may be read. */
static inline bool stile__in_stack(const struct stile__walker *w, uint64_t address)
{
    return address >= w->floor && address < w->hi && w->hi - address >= sizeof(uint64_t);
}

#define STILE__RULES_CACHED                                                                                  \
    8192u /* rules by program counter, for the whole process: 128 KiB, touched as it is used */

/* Rules that were looked up before. Both words are written without a lock: a pair belongs together if the first is the
 * second, exclusive or, with the key that is asked for. Keys carry the count of unloads: another library's rules are not
 * found. */
struct stile__rule_cached {
    _Atomic uint64_t check, rule;
};
extern struct stile__rule_cached stile__rule_cache[STILE__RULES_CACHED];

/* Finds the rules, if they may be used now. */
void stile__rules_begin(struct stile__walker *w);

/* A rule that the cache has not; 0 if there is none. */
uint64_t stile__rule_search(struct stile__walker *w, uint64_t pc);

static inline uint32_t stile__rule_cached_at(uint64_t pc)
{
    return (uint32_t)(pc ^ pc >> 13) % STILE__RULES_CACHED;
}

static inline uint64_t stile__rule_find(struct stile__walker *w, uint64_t pc)
{
    uint32_t i = stile__rule_cached_at(pc);
    uint64_t rule = atomic_load_explicit(&stile__rule_cache[i].rule, memory_order_relaxed);
    if ((atomic_load_explicit(&stile__rule_cache[i].check, memory_order_relaxed) ^ rule) == (pc | w->tag))
        return rule;
    return stile__rule_search(w, pc);
}

#endif
