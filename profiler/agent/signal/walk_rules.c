/* The rules of a walk: looked up in the region's table, and kept for the next time. Runs in the signal handler. */
#include "profiler/agent/signal/walker.h"

#include "profiler/agent/signal/faults.h"

#include "profiler/agent/signal/poison.h"

struct stile__rule_cached stile__rule_cache[STILE__RULES_CACHED];
static _Atomic uint64_t cache_era; /* the session, and its unloads beyond what a key has room for */

uint64_t stile__rule_search(struct stile__walker *w, uint64_t pc)
{
    if (w->rules == NULL || pc >= STILE__ADDRESS_MAX)
        return 0;
    uint64_t rule = stile__rules_find(w->rules, w->s->size.rule_pages, pc);
    if (stile__rule_op(rule) == STILE__RULE_PLT)
        rule =
            stile__rule_make(STILE__RULE_RSP, (int64_t)(pc & 15) >= stile__rule_extra(rule) ? 16 : 8, 0, 0);
    if (rule == 0)
        return 0;
    rule = stile__fault_rule(STILE__FAULT_ROW, rule);
    uint32_t i = stile__rule_cached_at(pc);
    atomic_store_explicit(&stile__rule_cache[i].rule, rule, memory_order_relaxed);
    atomic_store_explicit(&stile__rule_cache[i].check, rule ^ (pc | w->tag), memory_order_relaxed);
    return rule;
}

void stile__rules_begin(struct stile__walker *w)
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
        for (uint32_t i = 0; i < STILE__RULES_CACHED; i++) { /* zeros are no key's */
            atomic_store_explicit(&stile__rule_cache[i].rule, 0, memory_order_relaxed);
            atomic_store_explicit(&stile__rule_cache[i].check, 0, memory_order_relaxed);
        }
        atomic_store_explicit(&cache_era, era, memory_order_relaxed);
    }
    w->rules = (void *)((char *)w->r + w->s->at.rules);
}
