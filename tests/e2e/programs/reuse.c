/* Two libraries that take turns at the same address: `reuse A B ROUNDS MS`. Exits with 77 if they cannot be had there.
 * Looks a few times: the place may be taken by something else for a moment. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "work.h"

typedef uint64_t work_fn(uint64_t ns);

/* Loads a library at `*base`, or anywhere if that is NULL; NULL if it comes elsewhere. */
static void *load_at(const char *path, const char *name, void **base, work_fn **work)
{
    for (int i = 0; i < 10; i++) {
        Dl_info info;
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        void *symbol = handle ? dlsym(handle, name) : NULL;
        if (symbol == NULL || dladdr(symbol, &info) == 0) {
            fprintf(stderr, "%s\n", dlerror());
            exit(1);
        }
        if (*base == NULL)
            *base = info.dli_fbase;
        if (info.dli_fbase == *base) {
            *(void **)work = symbol;
            return handle;
        }
        dlclose(handle);
    }
    return NULL;
}

static void work_once(const char *path, const char *name, void **base, work_fn **where, uint64_t ns)
{
    work_fn *work = NULL;
    void *handle = load_at(path, name, base, &work);

    if (handle == NULL || (*where != NULL && *where != work))
        exit(77);
    *where = work;
    work(ns);
    dlclose(handle);
}

int main(int argc, char **argv)
{
    void *base = NULL;
    work_fn *where = NULL;

    if (argc < 5)
        return 1;
    for (int i = 0; i < atoi(argv[3]); i++) {
        work_once(argv[1], "work_a", &base, &where, strtoull(argv[4], NULL, 10) * MS);
        work_once(argv[2], "work_b", &base, &where, strtoull(argv[4], NULL, 10) * MS);
    }
    puts("done");
    return 0;
}
