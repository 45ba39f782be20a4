/* Symbols of loaded modules, looked up by hand: without the loader's lock, and without an effect on what dlerror says. */
#ifndef STILE_BARRIERS_UNWIND_SYMBOLS_H
#define STILE_BARRIERS_UNWIND_SYMBOLS_H

#include <link.h>
#include <stdint.h>

/* A function that a module defines and exports, of its default version if it has several, or 0. Nobody may unload the module
 * meanwhile. */
uintptr_t stile__symbol_of(const struct link_map *map, const char *name);

/* The same of a variable. */
uintptr_t stile__symbol_variable_of(const struct link_map *map, const char *name);

/* The next definition of a function after this library's own, in the order in which programs find symbols, or 0. Any
 * context, also before this library is relocated: a resolver of an indirect function may be who calls. */
uintptr_t stile__symbol_next(const char *name);

#endif
