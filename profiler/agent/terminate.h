/* What a C++ program ends of by std::terminate: noted before its own handler has it. */
#ifndef STILE_AGENT_TERMINATE_H
#define STILE_AGENT_TERMINATE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum stile__terminated_state {
    STILE__TERMINATED_NONE,
    STILE__TERMINATED_TYPE, /* the type is noted, */
    STILE__TERMINATED_WHAT  /* and what() */
};

/* The first thread's that came there; another's once that thread is gone. Written by that thread, before it calls the program's
 * handler. */
struct stile__terminated {
    _Atomic uint32_t tid;   /* 0: nobody's */
    _Atomic uint32_t state; /* release: what it says is written */
    char type[256];         /* of the exception, mangled; empty: none, or no C++ one */
    char what[1024];        /* its what(); perhaps empty */
};

extern struct stile__terminated stile__terminated;

/* What a thread has noted, or NULL. Async-signal-safe; for the thread itself, or while it does not run. */
static inline const struct stile__terminated *stile__terminate_of(uint32_t tid)
{
    const struct stile__terminated *t = &stile__terminated;
    return atomic_load_explicit(&t->tid, memory_order_acquire) == tid &&
                   atomic_load_explicit(&t->state, memory_order_acquire) != STILE__TERMINATED_NONE
               ? t
               : NULL;
}

/* Looks for C++ runtimes and puts our handler before theirs, or before the program's. Costs a lookup in each module if any was loaded
 * or unloaded since, otherwise next to nothing. Normal context, after the program is loaded and after each dlopen. */
void stile__terminate_watch(void);

/* A library is unloaded: what the hooks have found may be gone. */
void stile__terminate_unloaded(void);

#endif
