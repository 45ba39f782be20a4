/* Operands that are a function's own return address. Collector, normal context. See own_address.h, and the Intel SDM,
 * volume 2, on ModR/M and SIB bytes. */
#include "profiler/collector/own_address.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/region/rules.h"

#define CODE_MAX (1u << 20) /* bytes of a function; larger ones are taken to read it */

#define BEGINNING 48u /* bytes of a function in which its return address is taken, if at once */
#define JUMPS_MAX 32u /* out of a function, that are followed */

#define MOD_DISP8  1u
#define MOD_DISP32 2u
#define RM_RBP     5u
#define RM_SIB     4u
#define SIB_RSP    0x24u

/* Whether the byte before a ModR/M byte can be an opcode that has one with an operand in memory. Those of compilers: moves,
 * lea, push, arithmetic and comparisons; anything behind 0F, or in VEX. */
static bool opcode_before(const uint8_t *code, size_t modrm)
{
    static const uint8_t opcodes[] = {0x01, 0x03, 0x09, 0x0b, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33, 0x39, 0x3b,
                                      0x63, 0x81, 0x83, 0x85, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0xc7, 0xff};
    return (modrm >= 1 && memchr(opcodes, code[modrm - 1], sizeof opcodes) != NULL) ||
           (modrm >= 2 && code[modrm - 2] == 0x0f) || (modrm >= 3 && code[modrm - 3] == 0xc5) ||
           (modrm >= 4 && code[modrm - 4] == 0xc4);
}

/* Whether code has an operand: a ModR/M byte of this kind, and then these bytes. */
static bool operand_found(const uint8_t *code, size_t n, unsigned mod, unsigned rm, const uint8_t *rest,
                          size_t len)
{
    const uint8_t *end = code + n;
    for (const uint8_t *at = code; (at = memmem(at, (size_t)(end - at), rest, len)) != NULL; at++)
        if (at > code && at[-1] >> 6 == mod && (at[-1] & 7u) == rm &&
            opcode_before(code, (size_t)(at - 1 - code)))
            return true;
    return false;
}

/* Whether code uses the word below the CFA: a displacement of one byte where that is enough, or of four. */
static bool code_uses(const uint8_t *code, size_t n, uint64_t rule)
{
    const bool from_rsp = stile__rule_op(rule) == STILE__RULE_RSP;
    const unsigned rm = from_rsp ? RM_SIB : RM_RBP;
    const int32_t distance = stile__rule_offset(rule) - 8;
    uint8_t rest[1 + sizeof distance] = {SIB_RSP};
    memcpy(rest + 1, &distance, sizeof distance);
    const uint8_t *from = from_rsp ? rest : rest + 1;
    const size_t sib = from_rsp ? 1 : 0;
    return (distance == (int8_t)distance && operand_found(code, n, MOD_DISP8, rm, from, sib + 1)) ||
           operand_found(code, n, MOD_DISP32, rm, from, sib + sizeof distance);
}

/* Whether the function at an address takes its return address from where rsp points, with its first instructions. */
static bool taken_at_once(const struct elf_file *elf, uint64_t address)
{
    uint8_t code[BEGINNING];
    if (!elf_file_read(elf, address, code, sizeof code))
        return false;
    for (size_t i = 1; i + 1 < sizeof code; i++) /* ModR/M without displacement, and SIB */
        if (code[i + 1] == SIB_RSP && code[i] >> 6 == 0 && (code[i] & 7u) == RM_SIB && opcode_before(code, i))
            return true;
    return false;
}

/* Jumps of 5 bytes (E9) out of a function. Where one seems to be that is none, it leads to no such function, most likely. */
static bool jumps_to_one(const struct own_address *o, const struct elf_file *elf)
{
    const uint8_t *end = o->code + o->n;
    unsigned tries = 0;
    for (const uint8_t *at = o->code; at < end && tries < JUMPS_MAX; at++) {
        int32_t by;
        at = memchr(at, 0xe9, (size_t)(end - at));
        if (at == NULL || (size_t)(end - at) < 1 + sizeof by)
            return false;
        memcpy(&by, at + 1, sizeof by);
        uint64_t to = o->start + (uint64_t)(at - o->code) + 5 + (uint64_t)(int64_t)by;
        if (to >= o->start && to < o->end)
            continue;
        tries++;
        if (taken_at_once(elf, to))
            return true;
    }
    return false;
}

static void function_drop(struct own_address *o)
{
    free(o->code);
    o->code = NULL;
    o->n = 0;
    o->start = o->end = 0;
    o->jumps = false;
}

void own_address_free(struct own_address *o)
{
    function_drop(o);
    free(o->answers);
    o->answers = NULL;
    o->n_answers = o->cap_answers = 0;
    stile__id_table_free(&o->by_question);
}

static void function_take(struct own_address *o, const struct elf_file *elf, uint64_t start, uint64_t end)
{
    function_drop(o);
    o->start = start;
    o->end = end;
    if (end <= start || end - start > CODE_MAX)
        return;
    o->code = malloc(end - start);
    if (o->code == NULL || !elf_file_read(elf, start, o->code, end - start))
        return;
    o->n = end - start;
    o->jumps = jumps_to_one(o, elf);
}

struct question {
    const struct own_address *o;
    uint64_t start, end, rule;
};

static bool is_answered(const void *context, uint64_t id)
{
    const struct question *q = context;
    const struct own_address_answer *a = &q->o->answers[id];
    return a->start == q->start && a->end == q->end && a->rule == q->rule;
}

/* Without memory for it, it will be found out again. */
static void answer_keep(struct own_address *o, uint64_t hash, const struct own_address_answer *answer)
{
    if (o->n_answers == o->cap_answers) {
        size_t cap = o->cap_answers != 0 ? o->cap_answers * 2 : 64;
        struct own_address_answer *answers = realloc(o->answers, cap * sizeof *answers);
        if (answers == NULL)
            return;
        o->answers = answers;
        o->cap_answers = cap;
    }
    if (stile__id_table_reserve(&o->by_question) != 0)
        return;
    o->answers[o->n_answers] = *answer;
    stile__id_table_add(&o->by_question, hash, o->n_answers++);
}

bool own_address_read(struct own_address *o, const struct elf_file *elf, uint64_t start, uint64_t end,
                      uint64_t rule)
{
    if (stile__rule_op(rule) != STILE__RULE_RSP && stile__rule_op(rule) != STILE__RULE_RBP)
        return false;
    /* Where rbp is saved makes no difference. */
    rule = stile__rule_make(stile__rule_op(rule), stile__rule_offset(rule), 0, 0);
    const struct question q = {o, start, end, rule};
    const uint64_t hash = stile__hash_add(stile__hash_add(stile__hash_add(0, start), end), rule);
    uint64_t id;
    if (stile__id_table_find(&o->by_question, hash, is_answered, &q, &id))
        return o->answers[id].reads;
    if (o->start != start || o->end != end)
        function_take(o, elf, start, end);
    const bool reads = o->n == 0 || o->jumps || code_uses(o->code, o->n, rule);
    answer_keep(o, hash, &(struct own_address_answer){start, end, rule, reads});
    return reads;
}
