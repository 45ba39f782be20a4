/* Parts of a report, each a few lines. Runs in the handlers of crashes. The format is in profiler/region/report.h. */
#ifndef STILE_AGENT_CRASH_PARTS_H
#define STILE_AGENT_CRASH_PARTS_H

#include <stdint.h>

#include "profiler/agent/crash/frames.h"
#include "profiler/agent/crash/text.h"

/* One line: `  #I 0xPC PATH+0xOFFSET (NAME+0xN)`, as far as these are known. */
void stile__report_frame(struct stile__text *t, uint32_t i, uint64_t pc);

/* A stack's frames, what was left out between them, and why it ends. first: how many frames below them were told before. */
void stile__report_frames(struct stile__text *t, const struct stile__frames *f, uint32_t first);

/* All modules: where, which build, which file. */
void stile__report_modules(struct stile__text *t);

/* The general registers, in the kernel's order. */
void stile__report_registers(struct stile__text *t, const uint64_t *regs);

/* The mapping that an address lies in, as the kernel has it, or between which ones it lies. rsp: of who accessed it, to tell
 * whether his stack may have overflowed. */
void stile__report_mapping(struct stile__text *t, uint64_t address, uint64_t rsp);

#endif
