/* Between fiber_moves.c and the kind of fibers that it is built with. */
#ifndef STILE_E2E_FIBER_MOVES_H
#define STILE_E2E_FIBER_MOVES_H

#include <stdint.h>

#define FIBER_STACK 262144

#ifdef __cplusplus
extern "C" {
#endif

/* How many threads may resume a fiber. */
unsigned kind_threads(void);

/* A fiber that will run fiber_main. */
void *kind_make(unsigned number);

/* On a thread's own stack: the fiber runs until it yields. */
void kind_resume(void *fiber);

/* On a fiber: whoever has resumed it goes on. */
void kind_yield(void *fiber);

/* At the bottom of a stack, whoever's it is: what else this kind can do, which changes nothing. */
void kind_try(void);

/* Ends a fiber where it is, and cleans up what is on its stack. */
void kind_end(void *fiber);

/* Goes up and down a stack of its own, for ever, and yields at every depth now and then. */
void fiber_main(unsigned number, void *fiber);

#ifdef __cplusplus
}
#endif

#endif
