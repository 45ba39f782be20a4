/* Wraps condition variables, as sanitizers do: under their plain names, which have no version here. */
#include <dlfcn.h>
#include <pthread.h>

#include "tests/e2e/programs/wrapped.h"

#define EXPORT          __attribute__((visibility("default")))
#define WRAP(name, ...) ((__typeof__(&(name)))dlvsym(RTLD_NEXT, #name, "GLIBC_2.3.2"))(__VA_ARGS__)

EXPORT unsigned wrapped_calls;

EXPORT int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    wrapped_calls++;
    return WRAP(pthread_cond_wait, c, m);
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
    wrapped_calls++;
    return WRAP(pthread_cond_timedwait, c, m, until);
}

EXPORT int pthread_cond_signal(pthread_cond_t *c)
{
    wrapped_calls++;
    return WRAP(pthread_cond_signal, c);
}

EXPORT int pthread_cond_broadcast(pthread_cond_t *c)
{
    wrapped_calls++;
    return WRAP(pthread_cond_broadcast, c);
}
