/* libbarring.so: the product's stubs, chain and personality routine in a library that is preloaded, with which a program
 * has a barrier on every frame of its stack at once, rather than where a sample would have placed one. Programs find these
 * by dlsym, so that they run without it and with libstile.so as well. */
#ifndef STILE_E2E_BARRING_H
#define STILE_E2E_BARRING_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Takes the barriers off that stand on the calling thread's own stack, and places one on each of its frames, the caller's
 * first. Returns how many stand. */
unsigned bar_stack(void);

/* Takes them off. */
void unbar_stack(void);

/* Where in its stub an address is, or -1 if it is in none. */
int bar_at(uintptr_t address);

/* The same of the landings, where exceptions go on. */
int bar_landing_at(uintptr_t address);

/* Landing k, or 0 if there are not so many. */
uintptr_t bar_landing(unsigned k);

#ifdef __cplusplus
}
#endif

#endif
