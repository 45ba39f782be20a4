/* terminate_loads PLUGIN CASE: a C program that ends in a C++ plugin. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    (void)argc;
    void (*watch)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "probe_watch");
    void *(*get)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "_ZSt13get_terminatev");
    void *(*set)(void *) = (void *(*)(void *))dlsym(RTLD_DEFAULT, "_ZSt13set_terminatePFvvE");
    if (watch == NULL || get == NULL || set == NULL || get() != NULL || set(NULL) != NULL) /* no runtime */
        return 90;
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 91;
    }
    if (get() == NULL)
        return 92;
    watch();
    watch();
    void (*run)(const char *) = (void (*)(const char *))dlsym(plugin, "terminate_case");
    if (run == NULL)
        return 93;
    run(argv[2]);
    return 94;
}
