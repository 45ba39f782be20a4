/* Parts of cfi.h: entries of .eh_frame, and expressions. */
#ifndef STILE_AGENT_CRASH_CFI_PARTS_H
#define STILE_AGENT_CRASH_CFI_PARTS_H

#include "profiler/agent/crash/cfi.h"

/* Bytes that are read one after the other. Beyond the end there are zeros, and what was read is bad. */
struct stile__cursor {
    const uint8_t *at, *end;
    bool bad;
};

static inline uint64_t stile__cursor_uint(struct stile__cursor *c, unsigned bytes)
{
    uint64_t value = 0;
    if ((uint64_t)(c->end - c->at) < bytes) {
        c->at = c->end;
        c->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)c->at[i] << 8 * i;
    c->at += bytes;
    return value;
}

static inline int64_t stile__cursor_int(struct stile__cursor *c, unsigned bytes)
{
    const unsigned unused = (64 - 8 * bytes) % 64;
    return (int64_t)(stile__cursor_uint(c, bytes) << unused) >> unused;
}

/* The bits of a LEB128 number as far as 64, up to where they go, and its last byte, which has the sign. */
static inline uint64_t stile__cursor_leb(struct stile__cursor *c, unsigned *shift, uint64_t *last)
{
    uint64_t value = 0;
    *shift = 0;
    do {
        *last = stile__cursor_uint(c, 1);
        if (*shift < 64) {
            value |= (*last & 0x7f) << *shift;
            *shift += 7;
        }
    } while (*last & 0x80);
    return value;
}

static inline uint64_t stile__cursor_uleb(struct stile__cursor *c)
{
    unsigned shift;
    uint64_t last;
    return stile__cursor_leb(c, &shift, &last);
}

static inline int64_t stile__cursor_sleb(struct stile__cursor *c)
{
    unsigned shift;
    uint64_t last, value = stile__cursor_leb(c, &shift, &last);
    if (shift < 64 && last & 0x40)
        value |= ~0ull << shift;
    return (int64_t)value;
}

static inline void stile__cursor_skip(struct stile__cursor *c, uint64_t bytes)
{
    if ((uint64_t)(c->end - c->at) < bytes) {
        c->at = c->end;
        c->bad = true;
    } else {
        c->at += bytes;
    }
}

/* A pointer as `encoding` (DW_EH_PE_*) has it, never read through. base: what it may be relative to, other than itself. */
uint64_t stile__cursor_pointer(struct stile__cursor *c, uint8_t encoding, uint64_t base);

/* The CFI of a function: its FDE with the CIE that this names. */
struct stile__cfi_entry {
    uint64_t start, end; /* of the code */
    struct stile__cursor common, program;
    uint64_t code_align;
    int64_t data_align;
    uint64_t ra; /* the column of the return address */
    uint64_t hdr;
    uint8_t encoding;
    bool signal;
};

/* Finds the entry of a pc. */
bool stile__cfi_find(const struct stile__cfi_section *s, uint64_t pc, struct stile__pages *pages,
                     struct stile__cfi_entry *e);

/* What an expression may use. */
struct stile__cfi_place {
    const struct stile__cfi_regs *regs;
    const struct stile__cfi_memory *memory;
    uint64_t hdr;
};

/* Evaluates an expression that is a block with its length before it. first: what is on its stack before, or NULL. */
bool stile__cfi_expression(const struct stile__cfi_place *p, struct stile__cursor block,
                           const uint64_t *first, uint64_t *value);

#endif
