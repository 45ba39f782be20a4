/* A library with either kind of symbol table, for test_symbols.c. */
#include <dlfcn.h>

__attribute__((visibility("default"))) int plugin_function(void *handle);
int plugin_function(void *handle)
{
    return dlclose(handle);
}
