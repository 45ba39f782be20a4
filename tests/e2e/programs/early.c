/* A library that asks for symbols before anybody has begun: in a constructor, and, while the one that has EARLY_USER is
 * relocated, for that. EARLY_INTERPOSER: one that stands before dlsym itself, and counts. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stddef.h>

#include "early.h"

#ifdef EARLY_INTERPOSER
static volatile unsigned n;

SHOWN void *dlsym(void *handle, const char *name)
{
    static void *(*next)(void *, const char *);
    n++;
    if (next == NULL)
        *(void **)&next = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    return next(handle, name);
}

SHOWN unsigned early_count(void)
{
    return n;
}
#elif defined EARLY_USER
static int (*volatile resolved)(void) = early_resolved;

SHOWN int early_used(void)
{
    return resolved();
}
#else
static int found_early(void)
{
    return 2;
}

static int found_none(void)
{
    return 1;
}

static int (*resolve(void))(void)
{
    return dlsym(RTLD_DEFAULT, "getppid") != NULL ? found_early : found_none;
}

SHOWN int early_resolved(void) __attribute__((ifunc("resolve")));

static int constructed;

__attribute__((constructor)) static void construct(void)
{
    jmp_buf to;
    if (_setjmp(to) == 0 && dlsym(RTLD_NEXT, "getppid") != NULL)
        constructed = 1;
}

SHOWN int early_constructed(void)
{
    return constructed;
}
#endif
