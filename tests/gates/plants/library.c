/* Planted: a library with whatever fault its build gives it. */
#include <unistd.h>

__attribute__((visibility("default"))) int stile_listed(void);
int stile_listed(void)
{
    return getpid();
}

#ifdef PLANT_EXPORT
__attribute__((visibility("default"))) int stile__internal(void);
int stile__internal(void)
{
    return 2;
}
#endif

#ifdef PLANT_TLS
__attribute__((visibility("default"))) extern _Thread_local int stile_thread;
_Thread_local int stile_thread;
__attribute__((visibility("default"))) int *stile_thread_get(void);
int *stile_thread_get(void)
{
    return &stile_thread;
}
#endif
