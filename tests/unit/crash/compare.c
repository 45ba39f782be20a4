#include "tests/unit/crash/compare.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unwind.h>

#include "profiler/agent/crash/module.h"

struct compare_counts compare_counts;
struct stile__frames compare_walk;

static struct reference {
    uint64_t pc[COMPARE_FRAMES];
    bool exact[COMPARE_FRAMES];
    unsigned n;
} reference, first_reference;
static struct stile__frames first_walk;

static _Unwind_Reason_Code collect(struct _Unwind_Context *context, void *arg)
{
    int exact = 0;
    (void)arg;
    if (reference.n == COMPARE_FRAMES)
        return _URC_END_OF_STACK;
    const uint64_t ip = _Unwind_GetIPInfo(context, &exact);
    if (ip == 0 && exact == 0) /* a return address of 0 is no frame */
        return _URC_END_OF_STACK;
    reference.exact[reference.n] = exact != 0;
    reference.pc[reference.n++] = ip - (exact == 0);
    return _URC_NO_REASON;
}

/* Its frames include the handler's, up to the one that is exactly what was interrupted. */
static unsigned interrupted_at(uint64_t pc)
{
    unsigned i = 0;
    while (i < reference.n && !(reference.exact[i] && reference.pc[i] == pc))
        i++;
    return i;
}

static uint64_t frame_of(const struct stile__frames *f, unsigned i)
{
    return i < STILE__FRAMES_LEAF ? f->leaf[i] : f->root[i % STILE__FRAMES_ROOT];
}

static bool kept(const struct stile__frames *f, unsigned i)
{
    return i < STILE__FRAMES_LEAF || i + STILE__FRAMES_ROOT >= f->n;
}

void compare_init(void)
{
    stile__modules_init();
    reference.n = 0;
    (void)_Unwind_Backtrace(collect, NULL);
}

static bool same(const struct stile__frames *f, unsigned begin, bool *beyond)
{
    const unsigned n = reference.n - begin;
    for (unsigned i = 0; i < f->n && i < n; i++)
        if (kept(f, i) && frame_of(f, i) != reference.pc[begin + i])
            return false;
    *beyond = f->n > n;
    return f->n >= n && (f->n == n ? f->end == STILE__FRAMES_END_ROOT || f->end == STILE__FRAMES_END_NO_CFI
                                   : f->end == STILE__FRAMES_END_ROOT);
}

void compare_at(const ucontext_t *uc)
{
    bool beyond = false;
    reference.n = 0;
    (void)_Unwind_Backtrace(collect, NULL);
    const unsigned begin = interrupted_at((uint64_t)uc->uc_mcontext.gregs[REG_RIP]);
    stile__frames_walk(&compare_walk, (const uint64_t *)uc->uc_mcontext.gregs, stile__frames_read_own, NULL);
    compare_counts.walks++;
    compare_counts.frames += compare_walk.n;
    if (begin == reference.n || !same(&compare_walk, begin, &beyond)) {
        if (compare_counts.differ++ == 0) {
            first_reference = reference;
            first_walk = compare_walk;
        }
    }
    compare_counts.beyond += beyond;
}

static void name(uint64_t pc)
{
    Dl_info info = {0};
    if (dladdr((void *)pc, &info) != 0)
        fprintf(stderr, " %s+%#lx %s", info.dli_fname, pc - (uint64_t)info.dli_fbase,
                info.dli_sname != NULL ? info.dli_sname : "");
    fputc('\n', stderr);
}

void compare_explain(void)
{
    fprintf(stderr, "%u walks of %u frames, %u beyond, %u differ\n", compare_counts.walks,
            compare_counts.frames, compare_counts.beyond, compare_counts.differ);
    if (compare_counts.differ == 0)
        return;
    fprintf(stderr, "the first that differs: %u frames, end %d\n", first_walk.n, (int)first_walk.end);
    for (unsigned i = 0; i < first_walk.n && i < 40; i++) {
        fprintf(stderr, "  #%u %#lx", i, frame_of(&first_walk, i));
        name(frame_of(&first_walk, i));
    }
    fprintf(stderr, "reference:\n");
    for (unsigned i = 0; i < first_reference.n && i < 40; i++) {
        fprintf(stderr, "  %#lx%s", first_reference.pc[i], first_reference.exact[i] ? " exact" : "");
        name(first_reference.pc[i]);
    }
}
