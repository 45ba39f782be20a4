/* The text of a crash report: written by the program (profiler/agent/crash), named by the collector or by `stile symbolize`.
 *
 *   stile: crash report of process PID (COMM): SIGSEGV (SEGV_MAPERR) at 0xADDRESS
 *   ... lines that tell more: "key: text" ...
 *   registers:
 *     rip 0x... rsp 0x... (four to a line)
 *   thread TID "NAME" crashed:
 *     #0 0xPC PATH+0xOFFSET (NAME+0xN)
 *     #1 0xPC PATH+0xOFFSET
 *     #2 0xPC
 *     ... 1234 frames are not shown ...
 *     (the stack could not be read further)
 *   modules:
 *     0xSTART-0xEND 0xBIAS BUILD-ID-OR-"-" PATH
 *   thread TID "NAME" STATE:
 *     #0 ...
 *   stile: end of the report
 *
 * Invariants
 *  - One fact a line; lines end in \n, and nothing that comes from the program can end one (stile__text_foreign).
 *  - PC of a frame is the address that is to be looked up: for callers the return address less one.
 *  - OFFSET is PC less BIAS: a virtual address of the file, as addr2line and objdump take it.
 *  - What names frames goes by the modules' START, END and BUILD-ID; a path may be another file's by then. */
#ifndef STILE_REGION_REPORT_H
#define STILE_REGION_REPORT_H

#define STILE__REPORT_BEGIN   "stile: crash report of process "
#define STILE__REPORT_MODULES "modules:\n"
#define STILE__REPORT_END     "stile: end of the report\n"
#define STILE__REPORT_NAMES   "stile: the same stacks, named:\n"
#define STILE__REPORT_NAMED   "stile: end of the names\n"

/* Of a dump, `PID (COMM): N threads` and threads as above stand between these. */
#define STILE__DUMP_BEGIN "stile: dump of process "
#define STILE__DUMP_END   "stile: end of the dump\n"

#define STILE__REPORT_BYTES (4u << 20) /* of a report that are kept in the region, and of its names */

/* How far a report has come: agent, upwards. */
enum stile__crash_state {
    STILE__CRASH_NONE,
    STILE__CRASH_BEGUN,   /* being written */
    STILE__CRASH_WRITTEN, /* all that the program knows; its names are waited for */
    STILE__CRASH_TOLD     /* names, too, or nobody waits for them any more */
};

#endif
