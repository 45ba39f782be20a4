/* A shadow stack of the processor: returns are compared with it, so that a stub in a slot would end the program. */
#ifndef STILE_BARRIERS_SHADOW_STACK_H
#define STILE_BARRIERS_SHADOW_STACK_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the calling thread has one. That answers for all: the loader turns it on before there is a second thread, the
 * kernel gives one to each thread that one with it makes, and libc has no way to turn it on later. */
bool stile__shadow_stack_on(void);

/* What the kernel's answer means: its result, and the features that it has written. */
bool stile__shadow_stack_told(long result, uint64_t features);

#endif
