/* Hooks on functions of libc that go by their own return address, which is a stub's where whoever has called them by a jump
 * has a barrier in its slot: dlsym and dlopen look for the module that it lies in; getcontext, setjmp, vfork keep it to go
 * there later, when the stub may stand for another. The hooks (arch/x86_64/caller_hooks.S) put the return address back, and
 * are otherwise one jump: any context, no session needed, also in the child of a vfork. */
#ifndef STILE_BARRIERS_UNWIND_CALLER_HOOKS_H
#define STILE_BARRIERS_UNWIND_CALLER_HOOKS_H

#include <stdint.h>

/* In the order of the hooks. vfork's kin share its code. */
enum stile__caller_hook {
    STILE__CALLER_DLSYM,
    STILE__CALLER_DLVSYM,
    STILE__CALLER_DLOPEN,
    STILE__CALLER_DLMOPEN,
    STILE__CALLER_GETCONTEXT,
    STILE__CALLER_SWAPCONTEXT,
    STILE__CALLER_SETJMP,
    STILE__CALLER__SETJMP,
    STILE__CALLER___SIGSETJMP,
    STILE__CALLER_VFORK,
    STILE__CALLER___VFORK,
    STILE__CALLER_HOOKS
};

/* What stands behind them: 0 until the first call, or until they are looked up all at once. */
extern uintptr_t stile__caller_nexts[STILE__CALLER_HOOKS];

/* Looks one up. Any context; idempotent. */
uintptr_t stile__caller_next(enum stile__caller_hook hook);

/* Looks all up. */
void stile__caller_nexts_find(void);

extern const char stile__caller_hooks_end[]; /* of their code */

#endif
