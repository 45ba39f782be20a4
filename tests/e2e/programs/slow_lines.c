/* slow_lines MILLISECONDS: burns so long in spin() and sleeps a moment in rest(), whose debug information takes minutes to
 * read, and says nothing: a hundred thousand functions without code, all of the same 65536 empty ranges. It is compiled
 * without any other. */
#include <stdlib.h>

#include "work.h"

__asm__(".pushsection .debug_abbrev, \"\", @progbits\n"
        ".Labbrev:\n"
        ".uleb128 1, 0x11\n .byte 1\n .uleb128 0x11, 0x01, 0x12, 0x01, 0, 0\n" /* unit: low_pc, high_pc */
        ".uleb128 2, 0x2e\n .byte 0\n .uleb128 0x55, 0x17, 0, 0\n"             /* subprogram: ranges */
        ".byte 0\n"
        ".popsection\n"
        ".pushsection .debug_ranges, \"\", @progbits\n"
        ".Lranges:\n"
        ".rept 65536\n .quad 1, 1\n .endr\n"
        ".quad 0, 0\n"
        ".popsection\n"
        ".pushsection .debug_info, \"\", @progbits\n"
        ".long .Lend - .Lbegin\n"
        ".Lbegin:\n"
        ".short 4\n .long .Labbrev\n .byte 8\n"
        ".uleb128 1\n .quad __start_slow, __stop_slow\n"
        ".rept 100000\n .uleb128 2\n .long .Lranges\n .endr\n"
        ".byte 0\n"
        ".Lend:\n"
        ".popsection\n");

#define SLOW WORK __attribute__((section("slow")))

SLOW static uint64_t spin(uint64_t ns)
{
    return burn(ns);
}

SLOW static int rest(uint64_t ns)
{
    struct timespec t = {0, (long)ns};
    return nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
    return argc != 2 || spin((uint64_t)atoi(argv[1]) * MS) == 0 || rest(50 * MS) != 0;
}
