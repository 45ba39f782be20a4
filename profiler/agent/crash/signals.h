/* The signals of crashes and what the kernel says with them. */
#ifndef STILE_AGENT_CRASH_SIGNALS_H
#define STILE_AGENT_CRASH_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* "SIGSEGV"; constant text. */
const char *stile__crash_signal_name(int signal);

/* "SEGV_MAPERR", or NULL. */
const char *stile__crash_code_name(int signal, int code);

/* Whether the kernel says at which address. */
static inline bool stile__crash_has_address(const siginfo_t *info)
{
    return info->si_code > 0 && info->si_code != SI_KERNEL &&
           (info->si_signo == SIGSEGV || info->si_signo == SIGBUS || info->si_signo == SIGILL ||
            info->si_signo == SIGFPE || info->si_signo == SIGTRAP);
}

#endif
