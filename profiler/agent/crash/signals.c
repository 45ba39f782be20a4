/* Names of signals and codes. Runs in the handlers of crashes. */
#include "profiler/agent/crash/signals.h"

#include <stddef.h>

#include "profiler/agent/signal/poison.h"

struct name {
    int signal, code;
    const char *text;
};

static const struct name codes[] = {
    {SIGSEGV, SEGV_MAPERR, "SEGV_MAPERR"},
    {SIGSEGV, SEGV_ACCERR, "SEGV_ACCERR"},
    {SIGSEGV, SEGV_BNDERR, "SEGV_BNDERR"},
    {SIGSEGV, SEGV_PKUERR, "SEGV_PKUERR"},
    {SIGSEGV, SI_KERNEL, "not an address that can be"},
    {SIGBUS, BUS_ADRALN, "BUS_ADRALN"},
    {SIGBUS, BUS_ADRERR, "BUS_ADRERR"},
    {SIGBUS, BUS_OBJERR, "BUS_OBJERR"},
    {SIGBUS, BUS_MCEERR_AR, "BUS_MCEERR_AR"},
    {SIGBUS, BUS_MCEERR_AO, "BUS_MCEERR_AO"},
    {SIGILL, ILL_ILLOPC, "ILL_ILLOPC"},
    {SIGILL, ILL_ILLOPN, "ILL_ILLOPN"},
    {SIGILL, ILL_ILLADR, "ILL_ILLADR"},
    {SIGILL, ILL_ILLTRP, "ILL_ILLTRP"},
    {SIGILL, ILL_PRVOPC, "ILL_PRVOPC"},
    {SIGILL, ILL_PRVREG, "ILL_PRVREG"},
    {SIGILL, ILL_COPROC, "ILL_COPROC"},
    {SIGILL, ILL_BADSTK, "ILL_BADSTK"},
    {SIGFPE, FPE_INTDIV, "FPE_INTDIV"},
    {SIGFPE, FPE_INTOVF, "FPE_INTOVF"},
    {SIGFPE, FPE_FLTDIV, "FPE_FLTDIV"},
    {SIGFPE, FPE_FLTOVF, "FPE_FLTOVF"},
    {SIGFPE, FPE_FLTUND, "FPE_FLTUND"},
    {SIGFPE, FPE_FLTRES, "FPE_FLTRES"},
    {SIGFPE, FPE_FLTINV, "FPE_FLTINV"},
    {SIGFPE, FPE_FLTSUB, "FPE_FLTSUB"},
    {SIGTRAP, TRAP_BRKPT, "TRAP_BRKPT"},
    {SIGTRAP, TRAP_TRACE, "TRAP_TRACE"},
    {SIGTRAP, TRAP_BRANCH, "TRAP_BRANCH"},
    {SIGTRAP, TRAP_HWBKPT, "TRAP_HWBKPT"},
    {SIGTRAP, SI_KERNEL, "a breakpoint"},
    {SIGSYS, 1, "SYS_SECCOMP"},
};
static const struct name sent[] = {
    {0, SI_USER, "SI_USER"},
    {0, SI_TKILL, "SI_TKILL"},
    {0, SI_QUEUE, "SI_QUEUE"},
    {0, SI_TIMER, "SI_TIMER"},
};
static const struct name names[] = {
    {SIGSEGV, 0, "SIGSEGV"}, {SIGBUS, 0, "SIGBUS"},   {SIGILL, 0, "SIGILL"}, {SIGFPE, 0, "SIGFPE"},
    {SIGABRT, 0, "SIGABRT"}, {SIGTRAP, 0, "SIGTRAP"}, {SIGSYS, 0, "SIGSYS"},
};

const char *stile__crash_signal_name(int signal)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].signal == signal)
            return names[i].text;
    return "a signal";
}

const char *stile__crash_code_name(int signal, int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].signal == signal && codes[i].code == code)
            return codes[i].text;
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++)
        if (sent[i].code == code)
            return sent[i].text;
    return NULL;
}
