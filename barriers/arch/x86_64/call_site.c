/* Call instructions, backwards. Near calls only: E8 with a displacement of 4 bytes, FF /2 with any operand, prefixes before
 * either (Intel SDM, volume 2: CALL, ModR/M and SIB). Runs in the signal handler. */
#include "barriers/call_site.h"

#include "profiler/agent/signal/poison.h"

#define CALL_LONGEST 7u /* FF /2 with SIB and a displacement of 4 bytes */

/* Bytes of FF /2 by its ModR/M and SIB bytes, from the opcode on, or 0. */
static unsigned indirect_length(uint8_t modrm, uint8_t sib)
{
    unsigned mod = modrm >> 6, rm = modrm & 7, n = 2;
    if ((modrm >> 3 & 7) != 2)
        return 0;
    if (mod == 3)
        return n;
    if (rm == 4)
        n++;
    if (mod == 1)
        return n + 1;
    return mod == 2 || rm == 5 || (rm == 4 && (sib & 7) == 5) ? n + 4 : n;
}

bool stile__call_precedes(uint64_t address)
{
    const uint8_t *end = (const uint8_t *)address;
    unsigned room = (unsigned)(address & 4095);
    if (room < CALL_LONGEST) /* an instruction across the page's beginning: it does without a barrier */
        return false;
    if (end[-5] == 0xe8)
        return true;
    for (unsigned n = 2; n <= CALL_LONGEST; n++)
        if (end[-(int)n] == 0xff && indirect_length(end[1 - (int)n], n > 2 ? end[2 - (int)n] : 0) == n)
            return true;
    return false;
}
