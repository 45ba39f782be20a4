/* Parts of a report. Runs in the handlers of crashes. */
#include "profiler/agent/crash/parts.h"

#include <stddef.h>
#include <ucontext.h>

#include "profiler/agent/crash/module.h"
#include "profiler/region/report.h"

#include "profiler/agent/signal/poison.h"

#define NAME_SHOWN 1024u /* bytes of a function's name, at most */

static void where_put(struct stile__text *t, const struct stile__module *m, uint64_t pc)
{
    uint64_t into = 0;
    stile__text(t, " ");
    stile__text_foreign(t, m->path, STILE__MODULE_PATH_MAX);
    stile__text(t, "+");
    stile__text_hex(t, pc - m->bias, 1);
    const char *name = stile__module_symbol(m, pc, &into);
    if (name == NULL)
        return;
    stile__text(t, " (");
    stile__text_foreign(t, name, NAME_SHOWN);
    stile__text(t, "+");
    stile__text_hex(t, into, 1);
    stile__text(t, ")");
}

void stile__report_frame(struct stile__text *t, uint32_t i, uint64_t pc)
{
    struct stile__module m;
    stile__text(t, "  #");
    stile__text_decimal(t, i);
    stile__text(t, " ");
    stile__text_hex(t, pc, 1);
    if (stile__module_of(pc, &m))
        where_put(t, &m, pc);
    stile__text(t, "\n");
}

static const char *end_text(enum stile__frames_end end)
{
    switch (end) {
    case STILE__FRAMES_END_NO_CFI:
        return "  (what is there has no unwind information)\n";
    case STILE__FRAMES_END_MEMORY:
        return "  (the stack could not be read further)\n";
    case STILE__FRAMES_END_LOOP:
        return "  (the stack leads back to itself)\n";
    case STILE__FRAMES_END_MAX:
        return "  (the stack is deeper than is walked)\n";
    case STILE__FRAMES_END_LOCKED:
        return "  (the stack was being changed)\n";
    default:
        return "";
    }
}

void stile__report_frames(struct stile__text *t, const struct stile__frames *f, uint32_t first)
{
    const uint32_t shown = STILE__FRAMES_LEAF + STILE__FRAMES_ROOT;
    for (uint32_t i = 0; i < f->n && i < STILE__FRAMES_LEAF; i++)
        stile__report_frame(t, first + i, f->leaf[i]);
    if (f->n > shown) {
        stile__text(t, "  ... ");
        stile__text_decimal(t, f->n - shown);
        stile__text(t, f->n - shown == 1 ? " frame is not shown ...\n" : " frames are not shown ...\n");
    }
    for (uint32_t i = f->n > shown ? f->n - STILE__FRAMES_ROOT : STILE__FRAMES_LEAF; i < f->n; i++)
        stile__report_frame(t, first + i, f->root[i % STILE__FRAMES_ROOT]);
    stile__text(t, end_text(f->end));
}

static void module_put(const struct stile__module *m, void *arg)
{
    struct stile__text *t = arg;
    stile__text(t, "  ");
    stile__text_hex(t, m->start, 1);
    stile__text(t, "-");
    stile__text_hex(t, m->end, 1);
    stile__text(t, " ");
    stile__text_hex(t, m->bias, 1);
    stile__text(t, " ");
    if (m->build_id_len == 0)
        stile__text(t, "-");
    else
        stile__text_octets(t, m->build_id, m->build_id_len);
    stile__text(t, " ");
    stile__text_foreign(t, m->path, STILE__MODULE_PATH_MAX);
    stile__text(t, "\n");
}

void stile__report_modules(struct stile__text *t)
{
    stile__text(t, STILE__REPORT_MODULES);
    stile__modules_each(module_put, t);
}

void stile__report_registers(struct stile__text *t, const uint64_t *regs)
{
    static const struct {
        char name[4];
        uint8_t at;
    } all[] = {{"rip", REG_RIP}, {"rsp", REG_RSP}, {"rbp", REG_RBP}, {"rax", REG_RAX}, {"rbx", REG_RBX},
               {"rcx", REG_RCX}, {"rdx", REG_RDX}, {"rsi", REG_RSI}, {"rdi", REG_RDI}, {"r8", REG_R8},
               {"r9", REG_R9},   {"r10", REG_R10}, {"r11", REG_R11}, {"r12", REG_R12}, {"r13", REG_R13},
               {"r14", REG_R14}, {"r15", REG_R15}};
    const unsigned n = sizeof all / sizeof *all;
    stile__text(t, "registers:\n");
    for (unsigned i = 0; i < n; i++) {
        stile__text(t, i % 4 == 0 ? "  " : " ");
        stile__text(t, all[i].name);
        stile__text(t, " ");
        stile__text_hex(t, regs[all[i].at], 16);
        if (i % 4 == 3 || i + 1 == n)
            stile__text(t, "\n");
    }
}
