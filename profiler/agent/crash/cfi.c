/* The row of a pc, and the step by it. Runs in the handlers of crashes. */
#include "profiler/agent/crash/cfi.h"

#include <stddef.h>

#include "profiler/agent/crash/cfi_parts.h"

#include "profiler/agent/signal/poison.h"

#define REMEMBERED_MAX 8u

enum rule {
    RULE_SAME, /* also where nothing is said */
    RULE_UNDEFINED,
    RULE_OFFSET, /* saved at the CFA plus */
    RULE_VAL_OFFSET,
    RULE_REGISTER,
    RULE_EXPRESSION,
    RULE_VAL_EXPRESSION
};

/* Registers' rules at one address. Of expressions the value is where they are. */
struct row {
    uint64_t cfa_reg; /* CFA_EXPRESSION: none */
    uint64_t cfa;     /* what is added to it, or where the expression is */
    uint64_t value[STILE__CFI_REGS];
    uint8_t rule[STILE__CFI_REGS];
};
#define CFA_EXPRESSION UINT64_MAX

struct program {
    const struct stile__cfi_entry *e;
    struct stile__cursor c;
    struct row *row;
    const struct row *initial; /* of the CIE; NULL while that is run */
    uint64_t at, pc;
    unsigned n_remembered;
    struct row remembered[REMEMBERED_MAX];
};

/* Vector registers and the like have columns, too: nobody asks for them. */
static void set(struct program *p, uint64_t reg, enum rule rule, uint64_t value)
{
    if (reg < STILE__CFI_REGS) {
        p->row->rule[reg] = (uint8_t)rule;
        p->row->value[reg] = value;
    }
}

static void restore(struct program *p, uint64_t reg)
{
    if (reg >= STILE__CFI_REGS)
        return;
    if (p->initial == NULL)
        set(p, reg, RULE_SAME, 0);
    else
        set(p, reg, p->initial->rule[reg], p->initial->value[reg]);
}

/* Steps over a block, and returns where it was. */
static uint64_t block(struct program *p)
{
    const uint64_t at = (uint64_t)p->c.at;
    stile__cursor_skip(&p->c, stile__cursor_uleb(&p->c));
    return at;
}

static void def_cfa(struct program *p, uint64_t reg, uint64_t offset)
{
    p->row->cfa_reg = reg;
    p->row->cfa = offset;
    p->c.bad |= reg >= STILE__CFI_REGS;
}

static void remember(struct program *p, bool back)
{
    if (back ? p->n_remembered == 0 : p->n_remembered == REMEMBERED_MAX)
        p->c.bad = true;
    else if (back)
        *p->row = p->remembered[--p->n_remembered];
    else
        p->remembered[p->n_remembered++] = *p->row;
}

static uint64_t uleb(struct program *p)
{
    return stile__cursor_uleb(&p->c);
}

static uint64_t factored(struct program *p)
{
    return uleb(p) * (uint64_t)p->e->data_align;
}

static uint64_t factored_signed(struct program *p)
{
    return (uint64_t)stile__cursor_sleb(&p->c) * (uint64_t)p->e->data_align;
}

static void advance(struct program *p, uint64_t delta)
{
    p->at += delta * p->e->code_align;
}

/* How a register is restored. False: it is no such instruction. */
static bool register_rule(struct program *p, uint8_t op)
{
    if ((op < 0x05 || op > 0x09) && op != 0x10 && op != 0x11 && (op < 0x14 || op > 0x16) && op != 0x2f)
        return false;
    const uint64_t reg = uleb(p);
    switch (op) {
    case 0x05: /* offset_extended */
        set(p, reg, RULE_OFFSET, factored(p));
        break;
    case 0x06: /* restore_extended */
        restore(p, reg);
        break;
    case 0x07:
        set(p, reg, RULE_UNDEFINED, 0);
        break;
    case 0x08:
        set(p, reg, RULE_SAME, 0);
        break;
    case 0x09:
        set(p, reg, RULE_REGISTER, uleb(p));
        break;
    case 0x10:
        set(p, reg, RULE_EXPRESSION, block(p));
        break;
    case 0x11: /* offset_extended_sf */
        set(p, reg, RULE_OFFSET, factored_signed(p));
        break;
    case 0x14:
        set(p, reg, RULE_VAL_OFFSET, factored(p));
        break;
    case 0x15: /* val_offset_sf */
        set(p, reg, RULE_VAL_OFFSET, factored_signed(p));
        break;
    case 0x16:
        set(p, reg, RULE_VAL_EXPRESSION, block(p));
        break;
    default: /* GNU_negative_offset_extended */
        set(p, reg, RULE_OFFSET, 0 - factored(p));
        break;
    }
    return true;
}

/* An offset, or a register, that only takes the place of what there is. */
static bool cfa_is_sum(struct program *p)
{
    p->c.bad |= p->row->cfa_reg == CFA_EXPRESSION;
    return !p->c.bad;
}

/* What the CFA is. False: it is no such instruction. */
static bool cfa_rule(struct program *p, uint8_t op)
{
    uint64_t reg;
    switch (op) {
    case 0x0c: /* def_cfa */
        reg = uleb(p);
        def_cfa(p, reg, uleb(p));
        return true;
    case 0x12: /* def_cfa_sf */
        reg = uleb(p);
        def_cfa(p, reg, factored_signed(p));
        return true;
    case 0x0d: /* def_cfa_register */
        if (cfa_is_sum(p))
            def_cfa(p, uleb(p), p->row->cfa);
        return true;
    case 0x0e: /* def_cfa_offset */
        if (cfa_is_sum(p))
            p->row->cfa = uleb(p);
        return true;
    case 0x13: /* def_cfa_offset_sf */
        if (cfa_is_sum(p))
            p->row->cfa = factored_signed(p);
        return true;
    case 0x0f: /* def_cfa_expression */
        p->row->cfa_reg = CFA_EXPRESSION;
        p->row->cfa = block(p);
        return true;
    default:
        return false;
    }
}

static void execute(struct program *p)
{
    const uint8_t op = (uint8_t)stile__cursor_uint(&p->c, 1);
    switch (op >> 6) {
    case 1:
        advance(p, op & 0x3f);
        return;
    case 2:
        set(p, op & 0x3f, RULE_OFFSET, factored(p));
        return;
    case 3:
        restore(p, op & 0x3f);
        return;
    default:
        break;
    }
    if (register_rule(p, op) || cfa_rule(p, op))
        return;
    switch (op) {
    case 0x00: /* nop */
        break;
    case 0x01: /* set_loc */
        p->at = stile__cursor_pointer(&p->c, p->e->encoding, p->e->hdr);
        break;
    case 0x02:
    case 0x03:
    case 0x04: /* advance_loc 1, 2, 4 */
        advance(p, stile__cursor_uint(&p->c, 1u << (op - 0x02)));
        break;
    case 0x0a:
    case 0x0b:
        remember(p, op == 0x0b);
        break;
    case 0x2e: /* GNU_args_size */
        (void)uleb(p);
        break;
    default:
        p->c.bad = true;
        break;
    }
}

/* The row of a pc. Each instruction is at least a byte of an entry, and none goes back. */
static bool row_find(const struct stile__cfi_entry *e, uint64_t pc, struct row *row)
{
    struct program p;
    struct row initial;
    for (unsigned i = 0; i < STILE__CFI_REGS; i++) {
        row->rule[i] = RULE_SAME;
        row->value[i] = 0;
    }
    row->cfa_reg = CFA_EXPRESSION;
    row->cfa = 0;
    p.e = e;
    p.row = row;
    p.n_remembered = 0;
    p.at = e->start;
    p.initial = NULL;
    for (p.c = e->common; p.c.at < p.c.end && !p.c.bad;)
        execute(&p);
    if (p.c.bad)
        return false;
    initial = *row;
    p.initial = &initial;
    for (p.c = e->program; p.c.at < p.c.end && !p.c.bad && p.at <= pc;)
        execute(&p);
    return !p.c.bad && !(row->cfa_reg == CFA_EXPRESSION && row->cfa == 0);
}

/* The block at an address that the program of the entry, or of its CIE, has gone over. */
static struct stile__cursor block_at(const struct stile__cfi_entry *e, uint64_t at)
{
    const uint8_t *block = (const uint8_t *)at;
    const bool common = block >= e->common.at && block < e->common.end;
    return (struct stile__cursor){block, common ? e->common.end : e->program.end, false};
}

/* A register of the caller. False: it is not known. */
static bool caller_register(const struct stile__cfi_place *p, const struct stile__cfi_entry *e,
                            const struct row *row, unsigned i, uint64_t cfa, uint64_t *value)
{
    uint64_t at = row->value[i];
    switch (row->rule[i]) {
    case RULE_SAME:
        *value = i == STILE__CFI_RSP ? cfa : p->regs->value[i];
        return i == STILE__CFI_RSP || (p->regs->known >> i & 1) != 0;
    case RULE_OFFSET:
        return p->memory->word(p->memory->arg, cfa + at, value);
    case RULE_VAL_OFFSET:
        *value = cfa + at;
        return true;
    case RULE_REGISTER:
        *value = at < STILE__CFI_REGS ? p->regs->value[at] : 0;
        return at < STILE__CFI_REGS && (p->regs->known >> at & 1) != 0;
    case RULE_EXPRESSION:
        return stile__cfi_expression(p, block_at(e, at), &cfa, &at) &&
               p->memory->word(p->memory->arg, at, value);
    case RULE_VAL_EXPRESSION:
        return stile__cfi_expression(p, block_at(e, at), &cfa, value);
    default:
        return false;
    }
}

static bool cfa_of(const struct stile__cfi_place *p, const struct stile__cfi_entry *e, const struct row *row,
                   uint64_t *cfa)
{
    if (row->cfa_reg == CFA_EXPRESSION)
        return stile__cfi_expression(p, block_at(e, row->cfa), NULL, cfa);
    *cfa = p->regs->value[row->cfa_reg] + row->cfa;
    return (p->regs->known >> row->cfa_reg & 1) != 0;
}

static enum stile__cfi_step step(const struct stile__cfi_entry *e, const struct row *row,
                                 struct stile__cfi_regs *regs, const struct stile__cfi_memory *memory)
{
    const struct stile__cfi_place place = {regs, memory, e->hdr};
    struct stile__cfi_regs caller = {.known = 0};
    uint64_t cfa, value;
    if (row->rule[e->ra] == RULE_UNDEFINED)
        return STILE__CFI_ROOT;
    if (!cfa_of(&place, e, row, &cfa))
        return STILE__CFI_MEMORY;
    for (unsigned i = 0; i < STILE__CFI_REGS; i++)
        if (caller_register(&place, e, row, i, cfa, &value)) {
            caller.value[i] = value;
            caller.known |= 1u << i;
        }
    if ((caller.known >> e->ra & 1) == 0 || (caller.known >> STILE__CFI_RSP & 1) == 0)
        return STILE__CFI_MEMORY;
    caller.value[STILE__CFI_RA] = caller.value[e->ra];
    caller.known |= 1u << STILE__CFI_RA;
    *regs = caller;
    return STILE__CFI_DONE;
}

enum stile__cfi_step stile__cfi_step(const struct stile__cfi_section *s, uint64_t pc,
                                     struct stile__cfi_regs *regs, const struct stile__cfi_memory *memory,
                                     bool *signal)
{
    struct stile__cfi_entry e;
    struct row row;
    if (!stile__cfi_find(s, pc, memory->pages, &e) || !row_find(&e, pc, &row))
        return STILE__CFI_NONE;
    *signal = e.signal;
    return step(&e, &row, regs, memory);
}
