/* Loads a library, works in it, unloads it, and works on: `loader PLUGIN ROUNDS [SAY]`. With SAY it says
 * how much CPU time that was. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "work.h"

WORK static uint64_t work_after_unload(uint64_t ns)
{
    return burn(ns);
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    uint64_t used = 0;

    for (int i = 0; i < rounds; i++) {
        void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        uint64_t (*spin)(uint64_t) = NULL;
        if (handle)
            *(void **)&spin = dlsym(handle, "plugin_spin");
        if (!spin) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        used += spin(600ull * MS / (unsigned)rounds);
        dlclose(handle);
    }
    uint64_t after = work_after_unload(300 * MS);
    if (argc > 3)
        printf("%llu %llu\n", (unsigned long long)used, (unsigned long long)after);
    else
        puts("done");
    return 0;
}
