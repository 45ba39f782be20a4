/* What was found early, whether dlerror is left alone, and whether somebody else's dlsym is still passed by. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>

#include "early.h"

#ifdef EARLY_USER
#    define RESOLVED early_used
#else
#    define RESOLVED early_resolved
#endif

int main(void)
{
    unsigned (*count)(void), before = 0;
    jmp_buf to;
    dlsym(RTLD_DEFAULT, "early_nothing");
    int untouched = setjmp(to) == 0 && dlerror() != NULL && dlerror() == NULL;
    *(void **)&count = dlsym(RTLD_DEFAULT, "early_count");
    dlerror();
    if (count != NULL)
        before = count();
    int found = dlsym(RTLD_DEFAULT, "getppid") != NULL;
    printf("resolved %d constructed %d found %d untouched %d counted %d\n", RESOLVED(), early_constructed(),
           found, untouched, count != NULL ? (int)(count() - before) : -1);
    return 0;
}
