/* DWARF expressions of CFI: a stack machine. Runs in the handlers of crashes. */
#include <stddef.h>

#include "profiler/agent/crash/cfi_parts.h"

#include "profiler/agent/signal/poison.h"

#define STACK_MAX 32u
#define OPS_MAX   1024u /* expressions may branch backwards */

struct machine {
    const struct stile__cfi_place *p;
    struct stile__cursor c;
    const uint8_t *begin;
    unsigned n;
    bool bad;
    uint64_t stack[STACK_MAX];
};

static void push(struct machine *m, uint64_t value)
{
    if (m->n < STACK_MAX)
        m->stack[m->n++] = value;
    else
        m->bad = true;
}

/* The i-th from the top. */
static uint64_t peek(struct machine *m, uint64_t i)
{
    if (i < m->n)
        return m->stack[m->n - 1 - i];
    m->bad = true;
    return 0;
}

static uint64_t pop(struct machine *m)
{
    const uint64_t value = peek(m, 0);
    m->n -= m->n > 0;
    return value;
}

static uint64_t reg(struct machine *m, uint64_t i)
{
    if (i < STILE__CFI_REGS && m->p->regs->known >> i & 1)
        return m->p->regs->value[i];
    m->bad = true;
    return 0;
}

static void deref(struct machine *m, uint64_t bytes)
{
    uint64_t word = 0;
    if (bytes == 0 || bytes > 8 || !m->p->memory->word(m->p->memory->arg, pop(m), &word)) {
        m->bad = true;
        return;
    }
    push(m, bytes == 8 ? word : word & ((1ull << 8 * bytes) - 1));
}

/* Two operands, the second one on top. */
static uint64_t binary(struct machine *m, uint8_t op, uint64_t a, uint64_t b)
{
    const int64_t sa = (int64_t)a, sb = (int64_t)b;
    switch (op) {
    case 0x1a:
        return a & b;
    case 0x1b: /* div */
        m->bad |= b == 0;
        return b == 0 ? 0 : sb == -1 ? 0 - a : (uint64_t)(sa / sb);
    case 0x1c:
        return a - b;
    case 0x1d: /* mod */
        m->bad |= b == 0;
        return b == 0 ? 0 : a % b;
    case 0x1e:
        return a * b;
    case 0x21:
        return a | b;
    case 0x22:
        return a + b;
    case 0x24: /* shl, shr, shra */
        return b < 64 ? a << b : 0;
    case 0x25:
        return b < 64 ? a >> b : 0;
    case 0x26:
        return (uint64_t)(sa >> (b < 64 ? b : 63));
    case 0x27:
        return a ^ b;
    case 0x29:
        return a == b;
    case 0x2a:
        return sa >= sb;
    case 0x2b:
        return sa > sb;
    case 0x2c:
        return sa <= sb;
    case 0x2d:
        return sa < sb;
    case 0x2e:
        return a != b;
    default:
        m->bad = true;
        return 0;
    }
}

static void branch(struct machine *m, bool taken)
{
    const int64_t by = stile__cursor_int(&m->c, 2);
    if (!taken)
        return;
    if (by < m->begin - m->c.at || by > m->c.end - m->c.at)
        m->bad = true;
    else
        m->c.at += by;
}

/* dup to rot: what moves operands. */
static void shuffle(struct machine *m, uint8_t op)
{
    uint64_t a, b, c;
    switch (op) {
    case 0x12: /* dup */
        push(m, peek(m, 0));
        break;
    case 0x13: /* drop */
        (void)pop(m);
        break;
    case 0x14: /* over */
        push(m, peek(m, 1));
        break;
    case 0x15: /* pick */
        push(m, peek(m, stile__cursor_uint(&m->c, 1)));
        break;
    case 0x16: /* swap */
        a = pop(m);
        b = pop(m);
        push(m, a);
        push(m, b);
        break;
    default: /* rot: the first becomes the third */
        a = pop(m);
        b = pop(m);
        c = pop(m);
        push(m, a);
        push(m, c);
        push(m, b);
        break;
    }
}

static void constant(struct machine *m, uint8_t op)
{
    if (op == 0x10)
        push(m, stile__cursor_uleb(&m->c));
    else if (op == 0x11)
        push(m, (uint64_t)stile__cursor_sleb(&m->c));
    else if (op & 1) /* 1, 2, 4, 8 bytes; even ones are unsigned */
        push(m, (uint64_t)stile__cursor_int(&m->c, 1u << (op - 0x08) / 2));
    else
        push(m, stile__cursor_uint(&m->c, 1u << (op - 0x08) / 2));
}

static void other(struct machine *m, uint8_t op)
{
    uint64_t value, i;
    switch (op) {
    case 0x03: /* addr */
        push(m, stile__cursor_uint(&m->c, 8));
        break;
    case 0x06: /* deref */
        deref(m, 8);
        break;
    case 0x19: /* abs */
        value = pop(m);
        push(m, (int64_t)value < 0 ? 0 - value : value);
        break;
    case 0x1f: /* neg */
        push(m, 0 - pop(m));
        break;
    case 0x20: /* not */
        push(m, ~pop(m));
        break;
    case 0x23: /* plus_uconst */
        value = pop(m);
        push(m, value + stile__cursor_uleb(&m->c));
        break;
    case 0x28: /* bra */
        branch(m, pop(m) != 0);
        break;
    case 0x2f: /* skip */
        branch(m, true);
        break;
    case 0x90: /* regx */
        push(m, reg(m, stile__cursor_uleb(&m->c)));
        break;
    case 0x92: /* bregx */
        i = stile__cursor_uleb(&m->c);
        push(m, reg(m, i) + (uint64_t)stile__cursor_sleb(&m->c));
        break;
    case 0x94: /* deref_size */
        deref(m, stile__cursor_uint(&m->c, 1));
        break;
    case 0x96: /* nop */
        break;
    case 0xf1: { /* GNU_encoded_addr */
        const uint8_t encoding = (uint8_t)stile__cursor_uint(&m->c, 1);
        push(m, stile__cursor_pointer(&m->c, encoding, m->p->hdr));
        break;
    }
    default:
        m->bad = true;
        break;
    }
}

static void execute(struct machine *m)
{
    const uint8_t op = (uint8_t)stile__cursor_uint(&m->c, 1);
    if (op >= 0x08 && op <= 0x11) {
        constant(m, op);
    } else if (op >= 0x12 && op <= 0x17) {
        shuffle(m, op);
    } else if (op >= 0x30 && op <= 0x4f) {
        push(m, op - 0x30u);
    } else if (op >= 0x50 && op <= 0x6f) {
        push(m, reg(m, op - 0x50u));
    } else if (op >= 0x70 && op <= 0x8f) {
        const uint64_t offset = (uint64_t)stile__cursor_sleb(&m->c);
        push(m, reg(m, op - 0x70u) + offset);
    } else if (op >= 0x1a && op <= 0x2e && op != 0x1f && op != 0x20 && op != 0x23 && op != 0x28) {
        const uint64_t b = pop(m), a = pop(m);
        push(m, binary(m, op, a, b));
    } else {
        other(m, op);
    }
}

bool stile__cfi_expression(const struct stile__cfi_place *p, struct stile__cursor block,
                           const uint64_t *first, uint64_t *value)
{
    struct machine m;
    const uint64_t n = stile__cursor_uleb(&block);
    if (block.bad || n > (uint64_t)(block.end - block.at))
        return false;
    m.p = p;
    m.begin = block.at;
    m.c = (struct stile__cursor){block.at, block.at + n, false};
    m.n = 0;
    m.bad = false;
    if (first != NULL)
        push(&m, *first);
    for (unsigned ops = 0; m.c.at < m.c.end; ops++) {
        if (ops == OPS_MAX)
            return false;
        execute(&m);
        if (m.bad || m.c.bad)
            return false;
    }
    *value = peek(&m, 0);
    return !m.bad;
}
