/* Whose our signals are: the one that the clocks deliver, and the toggle's. */
#ifndef STILE_AGENT_SIGNAL_OWNER_H
#define STILE_AGENT_SIGNAL_OWNER_H

#include <stdbool.h>
#include <signal.h>
#include <stdint.h>

typedef void stile__signal_handler(int signal, siginfo_t *info, void *context);

/* Installs our handler for a signal, once; it stays after a session's end, since a signal may come late. Returns 0,
 * -EBUSY if the program handles the signal itself, or another -errno. */
int stile__signal_install(int signal, stile__signal_handler *handler);

/* The signal that the clocks deliver in this process or, in a forked child, did in its parent. */
int stile__signal_of_clocks(void);

/* The process that the handlers belong to: a vfork child shares our memory, but has handlers of its own. */
void stile__signal_owner_set(int32_t pid);

/* Whether that is this process, or there was no session yet. Async-signal-safe; a system call. */
bool stile__signal_owned_here(void);

/* libc's own sigaction. Async-signal-safe once it has been called. */
int stile__sigaction_next(int signal, const struct sigaction *act, struct sigaction *old);

/* Whether a disposition is a handler. */
bool stile__is_handler(const struct sigaction *act);

/* Exec turns our handlers into the default action. A signal that the program ignores has to be ignored for the next
 * image too: ignores those and returns them as a mask, to be taken back if exec fails. In a vfork child this changes
 * its own. */
uint64_t stile__signal_before_exec(void);
void stile__signal_exec_failed(uint64_t ignored);

/* The program's sigaction on a signal of ours, once our handler is installed: returns true if it has been dealt with (the
 * result is 0), false if it has to go to the kernel. *old gets what the program set, not what is installed. A handler
 * of the program's takes the signal from us: the clocks stop, or there are no toggles any more, and one line says so. */
bool stile__signal_sigaction(int signal, const struct sigaction *act, struct sigaction *old);

#endif
