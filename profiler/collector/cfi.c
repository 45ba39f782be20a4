/* CFI to rules. libdw runs the unwind program of a function; here its answer, a small expression for each register, is
 * matched against the few forms that compilers and hand-written assembly really use. Anything else is
 * STILE__RULE_OTHER: libunwind walks it. Collector, normal context. */
#include "profiler/collector/cfi.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdlib.h>

#include "profiler/collector/own_address.h"
#include "profiler/region/record.h"
#include "profiler/region/rules.h"

/* Where the kernel's signal frame has the interrupted registers, from the stack pointer: see walk.c. */
#define SIGNAL_RBP 120
#define SIGNAL_RSP 160
#define SIGNAL_RIP 168

struct cfi {
    Elf *elf;
    Dwarf_CFI *dwarf;
    struct own_address own;
    bool no_barriers;
};

struct cfi *cfi_open(const struct elf_file *elf)
{
    struct cfi *c = elf->table_entries != 0 ? calloc(1, sizeof *c) : NULL;
    if (c == NULL)
        return NULL;
    elf_version(EV_CURRENT);
    c->elf = elf->fd >= 0 ? elf_begin(elf->fd, ELF_C_READ, NULL)
                          : elf_memory((char *)(uintptr_t)elf->image, elf->image_size);
    c->dwarf = c->elf != NULL ? dwarf_getcfi_elf(c->elf) : NULL;
    if (c->dwarf == NULL) {
        cfi_close(c);
        return NULL;
    }
    return c;
}

void cfi_close(struct cfi *c)
{
    if (c == NULL)
        return;
    if (c->dwarf != NULL)
        dwarf_cfi_end(c->dwarf);
    if (c->elf != NULL)
        elf_end(c->elf);
    own_address_free(&c->own);
    free(c);
}

/* register + offset, as one operation. */
static bool based(const Dwarf_Op *op, unsigned *reg, int64_t *offset)
{
    if (op->atom == DW_OP_bregx) {
        *reg = (unsigned)op->number;
        *offset = (int64_t)op->number2;
        return op->number < STILE__REG_COUNT;
    }
    *reg = (unsigned)op->atom - DW_OP_breg0;
    *offset = (int64_t)op->number;
    return op->atom >= DW_OP_breg0 && *reg < STILE__REG_COUNT;
}

static bool based_on(const Dwarf_Op *ops, size_t n, unsigned reg, int64_t offset)
{
    unsigned r;
    int64_t o;
    return n >= 1 && based(ops, &r, &o) && r == reg && o == offset;
}

/* rsp + 8 + ((rip & 15) >= extra) * 8, which linkers write for the PLT. Returns extra, or -1. */
static int plt_step(const Dwarf_Op *ops, size_t n)
{
    static const uint8_t tail[] = {DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus};
    if (n != 9 || !based_on(ops, n, STILE__REG_RSP, 8) || !based_on(ops + 1, n - 1, STILE__REG_RIP, 0) ||
        ops[2].atom != DW_OP_lit15 || ops[3].atom != DW_OP_and || ops[4].atom < DW_OP_lit0 ||
        ops[4].atom > DW_OP_lit15)
        return -1;
    for (size_t i = 0; i < sizeof tail; i++)
        if (ops[5 + i].atom != tail[i])
            return -1;
    return ops[4].atom - DW_OP_lit0;
}

/* *(register + offset) + 8 * extra. */
static bool deref_of(const Dwarf_Op *ops, size_t n, unsigned *reg, int64_t *offset, int64_t *extra)
{
    if (n < 2 || n > 3 || !based(ops, reg, offset) || ops[1].atom != DW_OP_deref)
        return false;
    *extra = 0;
    if (n == 3) {
        if (ops[2].atom != DW_OP_plus_uconst || ops[2].number % 8 != 0 || ops[2].number / 8 > INT8_MAX)
            return false;
        *extra = (int64_t)ops[2].number / 8;
    }
    return true;
}

static bool fits(int64_t offset)
{
    return offset >= INT32_MIN && offset <= INT32_MAX;
}

/* The CFA's part of a rule; STILE__RULE_OTHER if there is none. */
static uint64_t cfa_rule(const Dwarf_Op *ops, size_t n)
{
    unsigned reg;
    int64_t offset, extra;
    int plt = plt_step(ops, n);

    if (plt >= 0)
        return stile__rule_make(STILE__RULE_PLT, 0, 0, (int8_t)plt);
    if (n == 1 && based(ops, &reg, &offset) && fits(offset)) {
        if (reg == STILE__REG_RSP || reg == STILE__REG_RBP)
            return stile__rule_make(reg == STILE__REG_RSP ? STILE__RULE_RSP : STILE__RULE_RBP,
                                    (int32_t)offset, 0, 0);
        return stile__rule_make(STILE__RULE_REGISTER, (int32_t)offset, 0, (int8_t)reg);
    }
    if (deref_of(ops, n, &reg, &offset, &extra) && fits(offset) &&
        (reg == STILE__REG_RSP || reg == STILE__REG_RBP))
        return stile__rule_make(reg == STILE__REG_RSP ? STILE__RULE_DEREF_RSP : STILE__RULE_DEREF_RBP,
                                (int32_t)offset, 0, (int8_t)extra);
    return STILE__RULE_OTHER;
}

/* The address at which a register was saved, where it does not start from the CFA: libdw has that on the stack all the
 * same, as the first operation. */
static bool saved_at(const Dwarf_Op *ops, size_t n, unsigned *reg, int64_t *offset)
{
    return n == 2 && ops[0].atom == DW_OP_call_frame_cfa && based(ops + 1, reg, offset);
}

/* Where the caller's rbp lies. False if no rule can say it. */
static bool saved_rbp(Dwarf_Frame *frame, uint64_t *rule)
{
    Dwarf_Op mem[3], *ops;
    size_t n;
    unsigned reg;
    int64_t offset;

    if (dwarf_frame_register(frame, STILE__REG_RBP, mem, &ops, &n) != 0)
        return false;
    if (n == 0) {
        if (ops != NULL) /* undefined */
            *rule |= (uint64_t)(uint16_t)STILE__RULE_LOST << 16;
        return true; /* still the caller's */
    }
    if (ops[0].atom == DW_OP_call_frame_cfa && n <= 2 && (n == 1 || ops[1].atom == DW_OP_plus_uconst)) {
        offset = n == 2 ? (int64_t)ops[1].number : 0;
    } else if (saved_at(ops, n, &reg, &offset) && reg == STILE__REG_RBP &&
               stile__rule_op(*rule) == STILE__RULE_DEREF_RBP) {
        *rule |= STILE__RULE_AT_BASE;
        offset += 8; /* 0 stands for something else */
    } else {
        return false;
    }
    if (offset % 8 != 0 || offset == 0 || offset / 8 <= INT16_MIN || offset / 8 > INT16_MAX)
        return false;
    *rule |= (uint64_t)(uint16_t)(int16_t)(offset / 8) << 16;
    return true;
}

static bool register_is_at(Dwarf_Frame *frame, int reg, int64_t offset)
{
    Dwarf_Op mem[3], *ops;
    size_t n;
    unsigned base;
    int64_t at;
    return dwarf_frame_register(frame, reg, mem, &ops, &n) == 0 && saved_at(ops, n, &base, &at) &&
           base == STILE__REG_RSP && at == offset;
}

static uint64_t rule_of(Dwarf_Frame *frame, bool signal)
{
    Dwarf_Op mem[3], *ops;
    size_t n;

    if (dwarf_frame_register(frame, STILE__REG_RIP, mem, &ops, &n) != 0)
        return STILE__RULE_OTHER;
    if (n == 0 && ops != NULL)
        return STILE__RULE_END;
    bool usual = n == 2 && ops[0].atom == DW_OP_call_frame_cfa && ops[1].atom == DW_OP_plus_uconst &&
                 (int64_t)ops[1].number == -8;
    if (dwarf_frame_cfa(frame, &ops, &n) != 0)
        return STILE__RULE_OTHER;
    if (signal)
        return n == 2 && based_on(ops, n, STILE__REG_RSP, SIGNAL_RSP) && ops[1].atom == DW_OP_deref &&
                       register_is_at(frame, STILE__REG_RIP, SIGNAL_RIP) &&
                       register_is_at(frame, STILE__REG_RBP, SIGNAL_RBP)
                   ? STILE__RULE_SIGNAL
                   : STILE__RULE_OTHER;
    uint64_t rule = usual ? cfa_rule(ops, n) : STILE__RULE_OTHER;
    return stile__rule_op(rule) != STILE__RULE_OTHER && saved_rbp(frame, &rule) ? rule : STILE__RULE_OTHER;
}

void cfi_barriers_forbid(struct cfi *c)
{
    if (c != NULL)
        c->no_barriers = true;
}

struct cfi_row cfi_row_at(struct cfi *c, const struct elf_file *elf, uint64_t address, uint64_t to)
{
    struct cfi_row row = {address, to, stile__rule_make(STILE__RULE_FRAME_POINTER, 0, -2, 0)};
    uint64_t start, end;
    Dwarf_Frame *frame = NULL;
    bool signal;

    if (c == NULL)
        return row;
    bool covered = elf_file_entry(elf, address, &start, &end);
    if (end < row.end)
        row.end = end;
    if (!covered)
        return row;
    row.rule = STILE__RULE_OTHER;
    Dwarf_Addr from, until;
    if (dwarf_cfi_addrframe(c->dwarf, address, &frame) != 0)
        return row;
    if (dwarf_frame_info(frame, &from, &until, &signal) >= 0 && from <= address && address < until) {
        if (until < row.end)
            row.end = until;
        row.rule = rule_of(frame, signal);
        if (c->no_barriers || own_address_read(&c->own, elf, start, end, row.rule))
            row.rule |= STILE__RULE_READS_RA;
    }
    free(frame);
    return row;
}
