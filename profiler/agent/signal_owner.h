/* Whose the profiling signal is. */
#ifndef STILE_AGENT_SIGNAL_OWNER_H
#define STILE_AGENT_SIGNAL_OWNER_H

#include <stdbool.h>
#include <stdint.h>

struct sigaction;

/* Installs our handler for a signal, once; it stays after a session's end, since a signal may come late. Returns 0,
 * -EBUSY if the program handles the signal itself, or another -errno. */
int stile__signal_install(int signal);

/* The process that the handler belongs to: a vfork child shares our memory, but has handlers of its own. */
void stile__signal_owner_set(int32_t pid);

/* Whether that is this process, or there was no session yet. Async-signal-safe; a system call. */
bool stile__signal_owned_here(void);

/* Whether a disposition is a handler. */
bool stile__is_handler(const struct sigaction *act);

/* Exec turns our handler into the default action. If the program ignores the signal, it has to be ignored for the next
 * image too: ignores it and returns true, to be taken back if exec fails. In a vfork child this changes its own. */
bool stile__signal_before_exec(void);
void stile__signal_exec_failed(void);

/* The program's sigaction on our signal, once our handler is installed: returns true if it has been dealt with (the
 * result is 0), false if it has to go to the kernel. *old gets what the program set, not what is installed. A handler
 * of the program's takes the signal from us: the clocks stop and one line says so. */
bool stile__signal_sigaction(int signal, const struct sigaction *act, struct sigaction *old);

#endif
