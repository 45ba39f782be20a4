/* Walks of stacks for reports. Runs in the handlers of crashes. */
#include "profiler/agent/crash/frames.h"

#include <stddef.h>
#include <ucontext.h>

#include "barriers/call_site.h"
#include "barriers/stub.h"
#include "profiler/agent/crash/cfi.h"
#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/pages.h"

#include "profiler/agent/signal/poison.h"

#define DOWN_MAX   64u /* steps to a lower address: to the stack that a signal interrupted, or to another one */
#define NEAR_BYTES 4096u       /* of a function without CFI that are taken for its own */
#define SKIP_MAX   (16u << 20) /* bytes of a frame without CFI, at most */

/* In a signal frame, from the stack pointer that its handler returns to: a ucontext_t begins there. */
#define FRAME_REGS offsetof(ucontext_t, uc_mcontext.gregs)

/* By DWARF's numbers, as the kernel has them. */
static const uint8_t kernel_order[STILE__CFI_REGS] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                      REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                      REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};

struct walk {
    struct stile__cfi_regs regs;
    struct stile__cfi_section section; /* of the module that was met last */
    struct stile__cfi_memory memory;
    struct stile__pages pages;
    unsigned down;
    bool exact;  /* the frame's pc is where it goes on: it was interrupted, and has not called */
    bool signal; /* the last step was from a signal's frame */
};

bool stile__frames_read_own(void *arg, uint64_t address, uint64_t *word)
{
    struct stile__pages none = {{0}};
    if (!stile__pages_readable(arg != NULL ? arg : &none, address, sizeof *word))
        return false;
    *word = *(const volatile __attribute__((aligned(1))) uint64_t *)address;
    return true;
}

static bool word_at(const struct walk *w, uint64_t address, uint64_t *word)
{
    return w->memory.word(w->memory.arg, address, word);
}

/* Whether an address is in a module; section: that one's. */
static bool module_has(struct walk *w, uint64_t address)
{
    if (address - w->section.lo < w->section.hi - w->section.lo)
        return true;
    return stile__module_cfi(address, &w->section);
}

/* Whether an address is where a call returns to. In a module it has to be code; what was made by the program itself has to do
 * with what it looks like. */
static bool call_returns(struct walk *w, uint64_t ra)
{
    if (!stile__pages_readable(&w->pages, ra - 1, 1) ||
        (module_has(w, ra - 1) && !stile__module_code(ra - 1)))
        return false;
    return stile__call_precedes(ra) || (ra % STILE__PAGES_BYTES < 8 && module_has(w, ra - 1));
}

/* Whether a call of a function near an address returns there. */
static bool called_from(struct walk *w, uint64_t pc, uint64_t ra)
{
    if (ra % STILE__PAGES_BYTES < 5 || !call_returns(w, ra) || *(const uint8_t *)(ra - 5) != 0xe8)
        return false;
    const uint64_t target = ra + (uint64_t)(int64_t) * (const __attribute__((aligned(1))) int32_t *)(ra - 4);
    return pc - target < NEAR_BYTES;
}

static void caller_set(struct walk *w, uint64_t ra, uint64_t rsp)
{
    w->regs.value[STILE__CFI_RA] = ra;
    w->regs.value[STILE__CFI_RSP] = rsp;
}

/* The leaf has no frame yet: the word at rsp is its return address. all: it is in no code, as after a call of NULL; otherwise
 * only a direct call of just this function is believed. */
static bool frameless_step(struct walk *w, uint64_t pc, bool all)
{
    const uint64_t rsp = w->regs.value[STILE__CFI_RSP];
    uint64_t word;
    if (!word_at(w, rsp, &word))
        return false;
    word = stile__stub_through(word);
    if (all ? !call_returns(w, word) : !called_from(w, pc, word))
        return false;
    caller_set(w, word, rsp + 8);
    return true;
}

static bool frame_pointer_step(struct walk *w)
{
    const uint64_t rsp = w->regs.value[STILE__CFI_RSP], rbp = w->regs.value[STILE__CFI_RBP];
    uint64_t saved, ra;
    if ((w->regs.known >> STILE__CFI_RBP & 1) == 0 || rbp % 8 != 0 || rbp < rsp || rbp - rsp > SKIP_MAX ||
        !word_at(w, rbp, &saved) || !word_at(w, rbp + 8, &ra))
        return false;
    ra = stile__stub_through(ra);
    if (!call_returns(w, ra))
        return false;
    caller_set(w, ra, rbp + 16);
    w->regs.value[STILE__CFI_RBP] = saved;
    return true;
}

/* A restorer without CFI: mov $SYS_rt_sigreturn, %eax or %rax; syscall. */
static bool is_restorer(struct walk *w, uint64_t at)
{
    static const uint8_t codes[][9] = {{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05},
                                       {0xb8, 15, 0, 0, 0, 0x0f, 0x05}};
    static const uint8_t lengths[] = {9, 7};
    for (unsigned k = 0; k < 2; k++) {
        unsigned i = 0;
        if (!stile__pages_readable(&w->pages, at, lengths[k]))
            continue;
        while (i < lengths[k] && ((const uint8_t *)at)[i] == codes[k][i])
            i++;
        if (i == lengths[k])
            return true;
    }
    return false;
}

static bool signal_step(struct walk *w)
{
    const uint64_t frame = w->regs.value[STILE__CFI_RSP] + FRAME_REGS;
    struct stile__cfi_regs caller = {.known = (1u << STILE__CFI_REGS) - 1};
    for (unsigned i = 0; i < STILE__CFI_REGS; i++)
        if (!word_at(w, frame + 8u * kernel_order[i], &caller.value[i]))
            return false;
    w->regs = caller;
    w->signal = true;
    return true;
}

/* In code without CFI, or in none. */
static enum stile__cfi_step guess_step(struct walk *w, uint64_t pc)
{
    if (is_restorer(w, w->regs.value[STILE__CFI_RA]))
        return signal_step(w) ? STILE__CFI_DONE : STILE__CFI_MEMORY;
    if ((w->exact && frameless_step(w, pc, !stile__module_code(pc))) || frame_pointer_step(w))
        return STILE__CFI_DONE;
    return STILE__CFI_NONE;
}

/* From the frame with this pc to its caller. */
static enum stile__cfi_step step(struct walk *w, uint64_t pc)
{
    enum stile__cfi_step s = STILE__CFI_NONE;
    w->signal = false;
    if (module_has(w, pc) && w->section.hdr != 0)
        s = stile__cfi_step(&w->section, pc, &w->regs, &w->memory, &w->signal);
    return s == STILE__CFI_NONE ? guess_step(w, pc) : s;
}

/* Whether the stack pointer may go from here to there. Not at all only where a leaf has its return address in a register (vfork).
 * Down only off a signal's stack, or off one that a frame was called
 * on with another register than rsp to find the way back; and not for ever. */
static bool may_go(struct walk *w, uint64_t from, uint64_t to)
{
    if (to > from || (to == from && w->exact && !w->signal))
        return true;
    return (to < from || w->signal) && w->down++ < DOWN_MAX;
}

static void note(struct stile__frames *f, uint64_t pc)
{
    if (f->n < STILE__FRAMES_LEAF)
        f->leaf[f->n] = pc;
    else
        f->root[f->n % STILE__FRAMES_ROOT] = pc;
    f->n++;
}

static enum stile__frames_end walk(struct walk *w, struct stile__frames *f)
{
    for (;;) {
        const uint64_t ra = stile__stub_through(w->regs.value[STILE__CFI_RA]);
        const uint64_t rsp = w->regs.value[STILE__CFI_RSP], pc = ra - !w->exact;
        if (ra == 0 && !w->exact)
            return STILE__FRAMES_END_ROOT;
        if (f->n == STILE__FRAMES_MAX)
            return STILE__FRAMES_END_MAX;
        w->regs.value[STILE__CFI_RA] = ra;
        note(f, pc);
        const enum stile__cfi_step s = step(w, pc);
        if (s != STILE__CFI_DONE)
            return s == STILE__CFI_ROOT   ? STILE__FRAMES_END_ROOT
                   : s == STILE__CFI_NONE ? STILE__FRAMES_END_NO_CFI
                                          : STILE__FRAMES_END_MEMORY;
        if (!may_go(w, rsp, w->regs.value[STILE__CFI_RSP]))
            return STILE__FRAMES_END_LOOP;
        w->exact = w->signal;
    }
}

void stile__frames_walk(struct stile__frames *f, const uint64_t *regs, stile__stack_reader_fn *reader,
                        void *arg)
{
    struct walk w;
    f->n = 0;
    w.section = (struct stile__cfi_section){0, 0, 0};
    for (unsigned i = 0; i < STILE__PAGES_KNOWN; i++)
        w.pages.known[i] = 0;
    for (unsigned i = 0; i < STILE__CFI_REGS; i++)
        w.regs.value[i] = regs[kernel_order[i]];
    w.regs.known = (1u << STILE__CFI_REGS) - 1;
    w.memory = (struct stile__cfi_memory){reader, arg, &w.pages};
    if (reader == stile__frames_read_own && arg == NULL)
        w.memory.arg = &w.pages;
    w.down = 0;
    w.exact = true;
    f->end = walk(&w, f);
}
