/* Two libraries have these; the first one looks for the second one's, and for a plugin where its own RUNPATH says. */
#include <dlfcn.h>
#include <stddef.h>

#include "callers.h"

#define SHOWN __attribute__((visibility("default")))

SHOWN const char *callers_which(void)
{
    return CALLERS_NAME;
}

#ifdef CALLERS_FIRST
SHOWN void *callers_next(int jump)
{
    return jump ? jump_dlsym(RTLD_NEXT, "callers_which") : dlsym(RTLD_NEXT, "callers_which");
}

SHOWN void *callers_next_version(int jump)
{
    return jump ? jump_dlvsym(RTLD_NEXT, "callers_which", "CALLERS_1")
                : dlvsym(RTLD_NEXT, "callers_which", "CALLERS_1");
}

SHOWN void *callers_open(int jump)
{
    return jump ? jump_dlopen("callers_plugin.so", RTLD_NOW) : dlopen("callers_plugin.so", RTLD_NOW);
}

SHOWN void *callers_mopen(long ns, int jump)
{
    return jump ? jump_dlmopen(ns, "callers_plugin.so", RTLD_NOW)
                : dlmopen(ns, "callers_plugin.so", RTLD_NOW);
}
#endif
