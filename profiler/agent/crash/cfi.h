/* One step up a stack by the CFI of a module's .eh_frame (LSB: Exception Frames; DWARF 5, 6.4 and 2.5). Runs in the handlers of
 * crashes. Whatever a module's CFI says, a step reads only what is in the module and readable, and ends. */
#ifndef STILE_AGENT_CRASH_CFI_H
#define STILE_AGENT_CRASH_CFI_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/agent/crash/frames.h"
#include "profiler/agent/crash/pages.h"

#define STILE__CFI_REGS 17u
#define STILE__CFI_RBP  6u
#define STILE__CFI_RSP  7u
#define STILE__CFI_RA   16u

/* By DWARF's numbers; of a frame the return address is where it goes on. */
struct stile__cfi_regs {
    uint64_t value[STILE__CFI_REGS];
    uint32_t known; /* bit n: register n */
};

/* Where a module's CFI is. */
struct stile__cfi_section {
    uint64_t hdr;    /* .eh_frame_hdr */
    uint64_t lo, hi; /* the module: nothing outside is read for CFI */
};

/* What memory is read through. */
struct stile__cfi_memory {
    stile__stack_reader_fn *word; /* the stack */
    void *arg;
    struct stile__pages *pages; /* the module */
};

enum stile__cfi_step {
    STILE__CFI_DONE,
    STILE__CFI_NONE,  /* the pc has no CFI, or what it has is broken */
    STILE__CFI_ROOT,  /* outermost: no return address */
    STILE__CFI_MEMORY /* the stack could not be read, or a register is not known any more */
};

/* Replaces the registers of the frame with this pc (see struct stile__frames) by its caller's. *signal: what lies above was
 * interrupted, and has not called. */
enum stile__cfi_step stile__cfi_step(const struct stile__cfi_section *s, uint64_t pc,
                                     struct stile__cfi_regs *regs, const struct stile__cfi_memory *memory,
                                     bool *signal);

#endif
