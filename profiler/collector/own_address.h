/* Whether a function reads its own return address: where a barrier stood there it would find a stub. Collector, normal
 * context. */
#ifndef STILE_COLLECTOR_OWN_ADDRESS_H
#define STILE_COLLECTOR_OWN_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "profiler/collector/elf_file.h"
#include "proto/id_table.h"

struct own_address_answer {
    uint64_t start, end, rule;
    bool reads;
};

/* The code of the function that was asked for last, and all that was answered: a function is asked for once for each of its
 * blocks of rules, with others in between. Zeros at first. */
struct own_address {
    uint64_t start, end;
    uint8_t *code; /* owned */
    size_t n;      /* 0: it cannot be read */
    bool jumps;    /* it ends in a jump to a function that takes its return address at once */
    struct own_address_answer *answers; /* owned */
    size_t n_answers, cap_answers;
    struct stile__id_table by_question;
};

/* Whether the function at start, up to end, has an instruction that uses the word at CFA - 8, with the CFA as one of its
 * rules has it, or jumps to another of its file that begins by taking its return address (a setjmp, a switch of contexts). Looks for operands, without decoding instructions: it may take others for one, which costs a barrier.
 * Does not find: the part of a function that has an unwind entry of its own, pointers to the slot made by other means. */
bool own_address_read(struct own_address *o, const struct elf_file *elf, uint64_t start, uint64_t end,
                      uint64_t rule);

void own_address_free(struct own_address *o);

#endif
