/* Functions of libc that go by their own return address, reached by a jump from one that has worked deep below before. */
#ifndef STILE_E2E_CALLERS_H
#define STILE_E2E_CALLERS_H

#include <setjmp.h>
#include <sys/types.h>
#include <ucontext.h>

/* Deep work: a barrier comes to stand on the caller. */
void callers_work(void);

/* The libraries'. */
const char *callers_which(void);
void *callers_next(int jump), *callers_next_version(int jump), *callers_open(int jump);
void *callers_mopen(long ns, int jump);

/* callers_asm.S: work, then the jump. */
#define TWICE __attribute__((returns_twice))
void *jump_dlsym(void *handle, const char *name);
void *jump_dlvsym(void *handle, const char *name, const char *version);
void *jump_dlopen(const char *name, int mode);
void *jump_dlmopen(long ns, const char *name, int mode);
TWICE int jump_getcontext(ucontext_t *to);
TWICE int jump_swapcontext(ucontext_t *from, const ucontext_t *to);
TWICE int jump_setjmp(jmp_buf to);
TWICE int jump__setjmp(jmp_buf to);
TWICE int jump___sigsetjmp(sigjmp_buf to, int mask);
TWICE pid_t jump_vfork(void);

#endif
