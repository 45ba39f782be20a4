/* Works while others keep the loader, or the list of mappings, busy: `loader_busy WAY PLUGIN MS`, where WAY is
 *   turns   a thread loads and unloads PLUGIN, another one has the list of modules read to it, a third one works
 *   maps    two threads map PLUGIN's code and unmap it again, a third one works
 *   first   all that the program ever does it does with the loader's lock held, from its first tick on; PLUGIN is not used.
 * Prints which libraries there are in the end. */
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "work.h"

static _Atomic bool over;
static const char *plugin;
static uint64_t work_ns;

WORK static uint64_t work_beside(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_under_lock(uint64_t ns)
{
    return burn(ns);
}

static int on_module(struct dl_phdr_info *info, size_t size, void *ns)
{
    (void)info, (void)size;
    work_under_lock(*(uint64_t *)ns);
    return 1;
}

static void *turns_main(void *unused)
{
    do {
        void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
        uint64_t (*spin)(uint64_t) = NULL;
        if (handle)
            *(void **)&spin = dlsym(handle, "plugin_spin");
        if (!spin)
            exit(3);
        spin(MS / 4);
        dlclose(handle);
    } while (!over);
    return unused;
}

static void *modules_main(void *unused)
{
    do {
        uint64_t ns = MS / 10;
        dl_iterate_phdr(on_module, &ns);
    } while (!over);
    return unused;
}

static void *maps_main(void *unused)
{
    int fd = open(plugin, O_RDONLY | O_CLOEXEC);
    do {
        char *at = mmap(NULL, 16384, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED || mprotect(at, 4096, PROT_READ) != 0 || munmap(at, 16384) != 0)
            exit(3);
        work_under_lock(MS / 50);
    } while (!over);
    close(fd);
    return unused;
}

static void *work_main(void *unused)
{
    work_beside(work_ns);
    over = true;
    return unused;
}

static void run(void *(*first)(void *), void *(*second)(void *))
{
    void *(*mains[3])(void *) = {first, second, work_main};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(&threads[i], NULL, mains[i], NULL) != 0)
            exit(3);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static int module_print(struct dl_phdr_info *info, size_t size, void *unused)
{
    const char *name = strrchr(info->dlpi_name, '/');
    (void)size, (void)unused;
    if (name != NULL)
        puts(name + 1);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    plugin = argv[2];
    work_ns = strtoull(argv[3], NULL, 10) * MS;
    if (strcmp(argv[1], "turns") == 0)
        run(turns_main, modules_main);
    else if (strcmp(argv[1], "maps") == 0)
        run(maps_main, maps_main);
    else
        dl_iterate_phdr(on_module, &work_ns);
    dl_iterate_phdr(module_print, NULL);
    return 0;
}
